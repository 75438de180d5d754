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

MOST_NAMES, MOST_DOUBTFUL = 5, 20

# How the retrying function says that the stack was narrowed while a retry was pending.
NARROWED = "The stack was narrowed"

# What helps against a reason that no retry helps against (ECS developer guide, "API failure
# reasons"). That of LOCATION is a guess: it is named there, and not explained.
CHANGES = {
    "ATTRIBUTE": "ATTRIBUTE: add a container instance with the attributes that the task requires.",
    "LOCATION": "LOCATION: add a container instance where the task may be placed.",
    "MISSING": "MISSING: make what the request names, or name another one in the job.",
    "INACTIVE": "INACTIVE: name another one in the job, which is active.",
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
        found += _failures(of_kind[Kind.FAILED], settings)
    if of_kind[Kind.EXPIRED]:
        found.append(Step("EXPIRED: retry these only if a late run does no harm."))
    if doubtful:
        found.append(
            Step(
                f"See whether these run or have run: {names_of(doubtful, MOST_DOUBTFUL)}. If one "
                "has, and ended more than an hour ago, a replay would start it again: then start "
                "the others by hand, and do not replay."
            )
        )
    if replayable:
        found.append(_replay(replayable, is_all=len(replayable) == len(letters), settings=settings))
    if by_hand:
        found += _by_hand(by_hand, settings)
    if unreadable:
        found.append(
            Step(
                f'A letter cannot be read. Open the saved query "{settings.query}" at about '
                f"{_minute(unreadable)}, and look for a job that no message names."
            )
        )
    return found


def names_of(letters: Iterable[Letter], most: int = MOST_NAMES) -> str:
    """The names of the jobs, each once: `a, b and 3 more`."""
    names = list(dict.fromkeys(letter.job or "a job without a name" for letter in letters))
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


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
        "this into a shell, once. It retries every job that was lost in its time: read the other "
        "messages of that time first, and start none of those jobs by hand before it. Do not "
        "replay the same time later: a job that ended more than an hour ago would run again.",
        command,
    )


def _failures(letters: Sequence[Letter], settings: Settings) -> list[Step]:
    """What helps where the retrying function failed, or did not run."""
    found = []
    if any(letter.cause for letter in letters):
        log = f"What the function wrote is in the log group {settings.log_group}"
        found.append(Step(f"Fix what the error names. {log}, under the request's id."))
    if not all(letter.cause for letter in letters):
        found.append(
            Step(
                "Lambda did not run the function: look at its reserved concurrency (README, "
                '"Stop everything at once") and at the concurrency of the account.'
            )
        )
    return found


def _change(letters: Sequence[Letter]) -> Step:
    """What to change where no retry helps."""
    reasons = [reason for letter in letters for reason in letter.said]
    helps = [change for known, change in CHANGES.items() if any(known in r for r in reasons)]
    return Step(
        f"{' '.join(helps)} A replay sends the old request. If only another request or task "
        "definition helps, start the job by hand, after any replay."
    )


def _by_hand(letters: Sequence[Letter], settings: Settings) -> list[Step]:
    """What helps where the request cannot be repeated: nothing of ours starts this run."""
    found = [
        Step(
            f"Not replayable: {names_of(letters)}. What is said above helps the next run. For this "
            "one, see whether the job runs, and start it by hand if not. If anybody replays this "
            "time, wait first: what did not start then comes back in a new message."
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
            f"Or, if it does not run, if an event (and no schedule) triggers the rule {name}, and "
            "if its bus has an archive: replay that event to this rule alone. Put in what stands "
            "in capitals (for a bus of your own: event-bus/BUS and rule/BUS/RULE_NAME). Careful: "
            "all events of the minute before the call are replayed, and jobs that ran for them "
            f"run again.{others}",
            f"aws events start-replay --region {settings.region} --replay-name source-$(date +%s) "
            f"--event-source-arn ARCHIVE_ARN --destination "
            f"Arn={home}:event-bus/default,FilterArns={home}:rule/{rule} "
            f"--event-start-time {moment(since - SOURCE_EVENT)} "
            f"--event-end-time {moment(since + timedelta(seconds=1))}",
        )
    )
    return found
