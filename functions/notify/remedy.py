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

# How the retrying function says that an attempt may have started the job, and that the stack was
# narrowed while a retry was pending.
MAY_RUN = "see whether it runs or has run"
NARROWED = "The stack was narrowed"

# What helps against a reason that no retry helps against (ECS developer guide, "API failure
# reasons"). That of LOCATION is a guess: it is named there, and not explained.
CHANGES = {
    "ATTRIBUTE": "ATTRIBUTE: add a container instance with the attributes that the task requires.",
    "LOCATION": "LOCATION: add a container instance where the task may be placed.",
    "MISSING": "MISSING: correct the request, which names something that does not exist.",
    "INACTIVE": "INACTIVE: correct the request, which names something that is not active any more.",
    "above your limit": "The limit: ask Service Quotas for a higher one.",
}


@dataclass(frozen=True, slots=True)
class Step:
    """What to do, as a sentence or two; and the command for it, if there is one."""

    text: str
    command: str = ""


def steps(letters: Sequence[Letter], settings: Settings) -> list[Step]:
    """What helps against these letters, in the order in which to do it."""
    of_kind = {kind: [letter for letter in letters if letter.kind is kind] for kind in Kind}
    narrowed = [letter for letter in of_kind[Kind.NOT_REPLAYABLE] if NARROWED in letter.detail]
    by_hand = [letter for letter in of_kind[Kind.NOT_REPLAYABLE] if letter not in narrowed]
    replayable = [letter for letter in letters if letter not in by_hand]
    found = []
    if by_hand:
        found += _by_hand(by_hand, settings)
    if narrowed:
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
    doubtful = [one for one in replayable if one.kind.may_have_started or MAY_RUN in one.detail]
    if doubtful:
        found.append(
            Step(
                "First see whether these run or have run: a replay starts a job again that ended "
                f"more than an hour ago. {names_of(doubtful)}."
            )
        )
    if replayable:
        found.append(_replay(replayable, settings))
    return found


def names_of(letters: Iterable[Letter]) -> str:
    """The names of the jobs, each once: `a, b and 3 more`."""
    names = list(dict.fromkeys(letter.job or "a job without a name" for letter in letters))
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def moment(time: datetime) -> str:
    """As EventBridge takes it: `2026-11-23T00:00:04Z`."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _replay(letters: Sequence[Letter], settings: Settings) -> Step:
    """One command for all of them, and for as little else as can be."""
    times = [letter.time for letter in letters]
    first, last = min(times), max(times)
    command = settings.start_replay.replace("time START", f"time {moment(first - MARGIN)}")
    command = command.replace("time END", f"time {moment(last + MARGIN)}")
    archived = last + ARCHIVED + timedelta(seconds=59)  # in whole minutes, not too early
    those = "it" if len(letters) == 1 else f"all {len(letters):,}"
    return Step(
        f"To retry {those}: when the cause is gone, and not before {archived:%Y-%m-%d %H:%M} UTC "
        "(EventBridge needs ten minutes to archive), paste this once. It retries whatever was lost "
        "in its time, and the command of another message may cover the same.",
        command,
    )


def _by_hand(letters: Sequence[Letter], settings: Settings) -> list[Step]:
    """What helps where the request cannot be repeated: nothing of ours starts this run."""
    found = [
        Step(
            f"Not replayable: {names_of(letters)}. What is said above helps the next run. For this "
            "one, see whether the job runs, and start it by hand if not."
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
            f"Or, if an event triggers the rule {name} (and no schedule), and an archive of its "
            "bus has that event: replay it to this rule alone. Put in what stands in capitals, and "
            "the bus if it is not the default one. Each event of the minute before the call "
            f"starts the job once.{others}",
            f"aws events start-replay --region {settings.region} --replay-name source-$(date +%s) "
            f"--event-source-arn ARCHIVE_ARN --destination "
            f"Arn={home}:event-bus/default,FilterArns={home}:rule/{rule} "
            f"--event-start-time {moment(since - SOURCE_EVENT)} "
            f"--event-end-time {moment(since + timedelta(seconds=1))}",
        )
    )
    return found


def _change(letters: Sequence[Letter]) -> Step:
    """What to change where no retry helps."""
    reasons = [reason for letter in letters for reason in letter.said]
    helps = [change for known, change in CHANGES.items() if any(known in r for r in reasons)]
    return Step(
        " ".join(helps)
        + " A replay sends the old request: if you change the request or the task definition, "
        "start the job by hand instead."
    )
