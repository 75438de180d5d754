"""The remedy: what helps against what a message reports, and the commands for it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from notify.letter import Kind, Letter
from notify.settings import Settings

# Whether a replay's first and last second are among its time is not documented, and a letter is
# archived with the time of its event, which is a little later than that of its outcome.
MARGIN = timedelta(seconds=60)
# Up to ten minutes may pass before an event is in the archive (EventBridge user guide, "Archives").
ARCHIVED = timedelta(minutes=10)
# A rule makes its call a moment after the event that it matched.
SOURCE_EVENT = timedelta(seconds=60)

MOST_NAMES = 5

# How the retrying function says that the stack was narrowed while a retry was pending.
NARROWED = "The stack was narrowed"

# What helps against a reason that no retry helps against (ECS developer guide, "API failure
# reasons"). That of LOCATION is a guess: it is named there, and not explained.
CHANGES = {
    "ATTRIBUTE": "ATTRIBUTE: add a container instance with the attributes that the task requires.",
    "LOCATION": "LOCATION: add a container instance where the task may be placed.",
    "MISSING": "MISSING: the request names something that does not exist.",
    "INACTIVE": "INACTIVE: the request names something that is not active any more.",
    "above your limit": "The limit: ask Service Quotas for a higher one.",
}


@dataclass(frozen=True, slots=True)
class Step:
    """What to do, as a sentence or two; and the command for it, if there is one."""

    text: str
    command: str = ""


def steps(letters: Sequence[Letter], settings: Settings) -> list[Step]:
    """What helps against these letters, in the order in which to do it.

    A replay comes before any start by hand. It takes all letters of its time, and what it could not
    start comes back in a new message: the other way round, a job could run twice.
    """
    of_kind = {kind: [letter for letter in letters if letter.kind is kind] for kind in Kind}
    not_replayable, unreadable = of_kind[Kind.NOT_REPLAYABLE], of_kind[Kind.UNREADABLE]
    by_hand = [letter for letter in not_replayable if NARROWED not in letter.detail]
    none_of_ours = {id(letter) for letter in by_hand + unreadable}
    replayable = [letter for letter in letters if id(letter) not in none_of_ours]
    doubtful = [letter for letter in replayable if letter.may_run]
    found = []
    if len(by_hand) < len(not_replayable):
        found.append(Step("Widen ClusterArns or TaskDefinitionArns, so that they cover the job."))
    if of_kind[Kind.NOT_RETRYABLE]:
        found.append(_change(of_kind[Kind.NOT_RETRYABLE]))
    if of_kind[Kind.FAILED]:
        found.append(
            Step(
                "Fix what the error names. What the function wrote is in the log group "
                f"{settings.log_group}, under the request's id."
            )
        )
    if doubtful:
        found.append(
            Step(
                f"See whether these run or have run: {names_of(doubtful)}. A replay starts a job "
                "again that ended more than an hour ago."
            )
        )
    if replayable:
        found.append(_replay(replayable, is_all=len(replayable) == len(letters), settings=settings))
    if by_hand:
        found += _by_hand(by_hand, settings, is_replayed=bool(replayable))
    if unreadable:
        found.append(
            Step(
                "Which job a letter is about that cannot be read: see the saved query "
                f'"{settings.query}" for one that no message names, at about {_minute(unreadable)}.'
            )
        )
    return found


def names_of(letters: Iterable[Letter]) -> str:
    """The names of the jobs, each once: `a, b and 3 more`."""
    names = list(dict.fromkeys(letter.job or "a job without a name" for letter in letters))
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def moment(time: datetime) -> str:
    """As EventBridge takes it: `2026-11-23T00:00:04Z`."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _minute(letters: Sequence[Letter]) -> str:
    return f"{min(letter.time for letter in letters):%Y-%m-%d %H:%M} UTC"


def _replay(letters: Sequence[Letter], *, is_all: bool, settings: Settings) -> Step:
    """One command for all of them, and for as little else as can be."""
    times = [letter.time for letter in letters]
    first, last = min(times), max(times)
    command = settings.start_replay.replace("time START", f"time {moment(first - MARGIN)}")
    command = command.replace("time END", f"time {moment(last + MARGIN)}")
    archived = last + ARCHIVED + timedelta(seconds=59)  # in whole minutes, not too early
    those = "it" if len(letters) == 1 else f"all {len(letters):,}"
    return Step(
        f"To retry {those if is_all else names_of(letters)}: when the cause is gone, and not "
        f"before {archived:%Y-%m-%d %H:%M} UTC (EventBridge needs ten minutes to archive), paste "
        "this once. It retries whatever was lost in its time, so do first what other messages of "
        "that time say. Do not replay the same time later: a job that ended more than an hour ago "
        "would run again.",
        command,
    )


def _change(letters: Sequence[Letter]) -> Step:
    """What to change where no retry helps."""
    reasons = [reason for letter in letters for reason in letter.said]
    helps = [change for known, change in CHANGES.items() if any(known in r for r in reasons)]
    return Step(
        " ".join(helps) + " A replay sends the old request. If only another request or task "
        "definition helps, start the job by hand instead, and if you replay as well, do that first."
    )


def _by_hand(letters: Sequence[Letter], settings: Settings, *, is_replayed: bool) -> list[Step]:
    """What helps where the request cannot be repeated: nothing of ours starts this run."""
    first = "If you replay, wait for what comes back in a new message. " if is_replayed else ""
    found = [
        Step(
            f"Not replayable: {names_of(letters)}. What is said above helps the next run. {first}"
            "For this one, see whether the job runs, and start it by hand if not."
        )
    ]
    of_rules = [(each, each.since) for each in letters if each.rule and each.since]
    if not of_rules:
        return found
    letter, since = of_rules[0]
    rule = "RULE_NAME" if letter.is_cut else letter.rule
    name = f"whose name begins with {letter.rule}" if letter.is_cut else rule
    home = f"arn:{settings.partition}:events:{settings.region}:{settings.account}"
    others = " The others: the same with their rule and time." if len(of_rules) > 1 else ""
    found.append(
        Step(
            f"Or, if it does not run, an event triggers the rule {name} (and no schedule), and an "
            "archive of its bus has that event: replay it to this rule alone. Put in what stands "
            "in capitals (and for a bus of your own: event-bus/BUS, rule/BUS/RULE_NAME). Each "
            f"event of the minute before the call starts the job once.{others}",
            f"aws events start-replay --region {settings.region} --replay-name source-$(date +%s) "
            f"--event-source-arn ARCHIVE_ARN --destination "
            f"Arn={home}:event-bus/default,FilterArns={home}:rule/{rule} "
            f"--event-start-time {moment(since - SOURCE_EVENT)} "
            f"--event-end-time {moment(since + timedelta(seconds=1))}",
        )
    )
    return found
