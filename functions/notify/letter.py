"""A letter: what one message of the queue says of a job that did not start, or may not have."""

import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

# The `startedBy` of EventBridge rules and of EventBridge Scheduler. It is cut to this length, and
# then says only how the name begins (seen in records).
RULE_PREFIX = "events-rule/"
PREFIXES = (RULE_PREFIX, "chronos-schedule/")
LONGEST_STARTED_BY = 36
# Kinds of callers behind such a call: a rule, and the retrying function on its behalf.
RULES = ("events-rule", "retry-run-task")

# What the template passes of a failed call, and from where in a letter that was replayed.
CALL = ("event", "called", "startedBy", "group", "taskDefinition", "cluster")
LEVELS = ("", "inner_", "innermost_")

# For a phone: what is longer is shortened. No ARN or name of ECS is.
LONGEST_TEXT = 600
# On EC2 there can be one reason for each container instance.
MOST_REASONS = 5

UNKNOWN = "attempts unknown"

# How the retrying function says that an attempt may have started the job.
MAY_RUN = "see whether it runs or has run"

# AWS's usual words about a value that it refuses, which may be one of the job's request.
_VALUE = re.compile("Value '.*' at '", re.DOTALL)


class Kind(StrEnum):
    """What became of the job: the dead letters among the outcomes, and what came to no outcome."""

    EXHAUSTED = "EXHAUSTED"
    EXPIRED = "EXPIRED"
    NOT_RETRYABLE = "NOT_RETRYABLE"
    NOT_REPLAYABLE = "NOT_REPLAYABLE"
    FAILED = "FAILED"
    UNREADABLE = "UNREADABLE"

    @property
    def is_failure(self) -> bool:
        """Is it one of this stack itself, of which the retrying function has no outcome?"""
        return self not in DEAD_LETTERS


DEAD_LETTERS = (Kind.EXHAUSTED, Kind.EXPIRED, Kind.NOT_RETRYABLE, Kind.NOT_REPLAYABLE)


@dataclass(frozen=True, slots=True)
class Letter:
    """One job. All text is a single line that can be printed, and empty where nothing is known.

    `time` is when the job was given up, `since` when its first call failed, and `called` when the
    one did of which nothing else is known. `said` is what ECS or Lambda said, and `cause` by what
    jobs are grouped. `rule` is the name of the EventBridge rule behind it, or only how that begins,
    if it `is_cut`. `may_run` says that an attempt may have started the job. Letters with one
    `identity` are about one job.
    """

    kind: Kind
    time: datetime
    identity: Hashable
    job: str = ""
    task_definition: str = ""
    cluster: str = ""
    since: datetime | None = None
    called: datetime | None = None
    attempts: str = ""
    cause: Hashable = None
    said: tuple[str, ...] = ()
    detail: str = ""
    event: str = ""
    rule: str = ""
    may_run: bool = False

    @property
    def is_cut(self) -> bool:
        return len(RULE_PREFIX + self.rule) >= LONGEST_STARTED_BY


def read_letter(message_id: str, body: str, sent: datetime) -> Letter:
    """The letter in a message of the queue, which was sent there at `sent`.

    The body is an outcome of the retrying function (template: DeadLetters), or what is known of an
    invocation that failed (template: FailedInvocations). Anything else makes a letter that says
    so: a message is never in the way of the others.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    members = found if isinstance(found, dict) else {}
    if _is_lost_job(members):
        return _lost_job(members, body, sent)
    if "condition" in members:
        return _failed_invocation(members, body, sent)
    detail = f"Message {message_id} of the queue LostJobs, {len(body):,} characters."
    return Letter(Kind.UNREADABLE, sent, body, detail=detail, may_run=True)


def _lost_job(outcome: Mapping[str, Any], body: str, sent: datetime) -> Letter:
    """An outcome, as the README shows one."""
    event, origin = line(outcome.get("event")), line(outcome.get("origin"))
    cluster, detail = line(outcome.get("cluster")), outcome.get("detail")
    reasons = outcome.get("reasons")
    said = _first(reasons if isinstance(reasons, list) else [])
    kind, attempts = Kind(outcome["outcome"]), _attempts(line(outcome.get("attempt")))
    return Letter(
        kind=kind,
        time=time_in(outcome.get("time")) or sent,
        # A client token is a cluster's own, and so is a chain that is named for one.
        identity=(origin or event, cluster) if origin or event else body,
        job=line(outcome.get("job")),
        task_definition=name_in(outcome.get("taskDefinition")),
        cluster=name_in(cluster),
        # Without its counter, the time is that of the last attempt.
        since=None if attempts == UNKNOWN else time_in(outcome.get("since")),
        attempts=attempts,
        cause=(said, line(detail)) if kind is Kind.NOT_REPLAYABLE else said,
        said=said,
        detail=line(detail),
        event=event,
        rule=_rule_in(outcome),
        may_run=isinstance(detail, str) and MAY_RUN in detail,
    )


def _failed_invocation(members: Mapping[str, Any], body: str, sent: datetime) -> Letter:
    """What EventBridge passes of an invocation that failed: each value is in a list of its own.

    A list is empty where the event has no such value: Lambda's record holds no error of a function
    that never ran, and a replayed letter holds the failed call further in.
    """

    def value(*names: str) -> Any:
        lists = (members.get(name) for name in names)
        values = (v for found in lists if isinstance(found, list) for v in found)
        return next(filter(None, values), None)

    letters = (value(f"{where}letter") for where in LEVELS)
    outcomes = [one for one in letters if isinstance(one, dict) and _is_lost_job(one)]
    if outcomes:
        known = _lost_job(outcomes[0], body, sent)
    else:
        names = {name: [f"{where}{name}" for where in LEVELS] for name in CALL}
        known = _failed_call({name: value(*names[name]) for name in CALL}, body, sent)
    condition, request = line(value("condition")), line(value("request"))
    error_type, message = line(value("errorType")), value("errorMessage")
    shown = line(_VALUE.sub("Value at '", message)) if isinstance(message, str) else ""
    return replace(
        known,
        kind=Kind.FAILED,
        time=time_in(value("time")) or sent,
        identity=(Kind.FAILED, known.event or request or body),
        cause=error_type,
        said=(f"{error_type}: {shown}".strip(" :") or "none: Lambda did not run the function",),
        detail=f"Request {request} ({condition}).",
        may_run=True,
    )


def _failed_call(call: Mapping[str, Any], body: str, sent: datetime) -> Letter:
    """What a failed call shows of its job, which is named as the retrying function names it."""
    task_definition = name_in(call["taskDefinition"])
    started_by, group = line(call["startedBy"]), line(call["group"])
    job = group.removeprefix("family:") or task_definition.partition(":")[0]
    for prefix in PREFIXES:
        if started_by.startswith(prefix):
            job = started_by.removeprefix(prefix)
    return Letter(
        kind=Kind.FAILED,
        time=sent,
        identity=body,
        job=job,
        task_definition=task_definition,
        cluster=name_in(call["cluster"]) or ("default" if task_definition else ""),
        called=time_in(call["called"]),
        event=line(call["event"]),
    )


def line(value: object) -> str:
    """Text as one line that can be printed; empty for what is no text.

    Line breaks, control characters and lone surrogates become spaces: SNS takes none in a subject,
    and in a message they would pretend to be lines of ours.
    """
    if not isinstance(value, str):
        return ""
    text = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def name_in(value: object) -> str:
    """The name in an ARN of ECS, which may as well be the name alone: `nightly-report:42`."""
    text = line(value)
    return text.partition("/")[2] if text.startswith("arn:") else text


def time_in(value: object) -> datetime | None:
    """A moment of this century as the outcomes and events have it (UTC, whole seconds), or None."""
    if not isinstance(value, str) or not re.fullmatch(r"20[0-9-]{8}T[0-9:]{8}Z", value):
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        return None


def _is_lost_job(members: Mapping[str, Any]) -> bool:
    return members.get("outcome") in DEAD_LETTERS


def _attempts(counter: str) -> str:
    """The counter `3/10` in words."""
    made = counter.partition("/")[0]
    if not re.fullmatch("[0-9]{1,9}", made):
        return UNKNOWN
    return {"0": "not retried", "1": "1 attempt"}.get(made, f"{made} attempts")


def _first(reasons: list[Any]) -> tuple[str, ...]:
    """The first reasons, and how many more there are."""
    shown = [line(reason) for reason in reasons[:MOST_REASONS]]
    more = len(reasons) - len(shown)
    return (*filter(None, shown), *([f"and {more:,} more reasons"] if more else []))


def _rule_in(outcome: Mapping[str, Any]) -> str:
    """The name of the rule that made a call, or its beginning; not if somebody else called.

    It goes into a command that people paste: nothing but EventBridge's own characters (PutRule
    `Name`, API reference).
    """
    caller = outcome.get("caller")
    kind = caller.get("kind") if isinstance(caller, dict) else None
    found = re.fullmatch(rf"{RULE_PREFIX}([.\-_A-Za-z0-9]+)", line(outcome.get("startedBy")))
    return found[1] if found and kind in RULES else ""
