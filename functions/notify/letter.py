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

# What the template passes of a failed call.
CALL = ("event", "since", "startedBy", "group", "taskDefinition", "cluster")

# For a phone: what is longer is shortened. ECS's own names have at most 255 characters.
LONGEST_NAME = 255
LONGEST_TEXT = 600
# On EC2 there can be one reason for each container instance.
MOST_REASONS = 3


class Kind(StrEnum):
    """What became of the job: the dead letters among the outcomes, and what came to no outcome."""

    EXHAUSTED = "EXHAUSTED"
    EXPIRED = "EXPIRED"
    NOT_RETRYABLE = "NOT_RETRYABLE"
    NOT_REPLAYABLE = "NOT_REPLAYABLE"
    FAILED = "FAILED"
    UNREADABLE = "UNREADABLE"

    @property
    def may_have_started(self) -> bool:
        """Does nobody know whether an attempt has started the job?"""
        return self not in DEAD_LETTERS


DEAD_LETTERS = (Kind.EXHAUSTED, Kind.EXPIRED, Kind.NOT_RETRYABLE, Kind.NOT_REPLAYABLE)


@dataclass(frozen=True, slots=True)
class Letter:
    """One job. All text is a single line that can be printed, and empty where nothing is known.

    `time` is when the job was given up, `since` when its first call failed, `said` what ECS or
    Lambda said of it, and `rule` the name of the EventBridge rule behind it, or only how that
    begins, if it `is_cut`. Letters with one `identity` are about one job.
    """

    kind: Kind
    time: datetime
    identity: Hashable
    job: str = ""
    task_definition: str = ""
    cluster: str = ""
    since: datetime | None = None
    attempts: str = ""
    said: tuple[str, ...] = ()
    detail: str = ""
    event: str = ""
    rule: str = ""

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
        return _lost_job(members, sent)
    if "condition" in members:
        return _failed_invocation(members, sent)
    detail = f"Message {message_id} of the queue LostJobs, {len(body):,} characters."
    return Letter(Kind.UNREADABLE, sent, body, detail=detail)


def _lost_job(outcome: Mapping[str, Any], sent: datetime) -> Letter:
    """An outcome, as the README shows one."""
    event, origin = line(outcome.get("event")), line(outcome.get("origin"))
    cluster = line(outcome.get("cluster"))
    reasons = outcome.get("reasons")
    return Letter(
        kind=Kind(outcome["outcome"]),
        time=time_in(outcome.get("time")) or sent,
        # A client token is a cluster's own, and so is a chain that is named for one.
        identity=(origin or event, cluster) if origin or event else json.dumps(outcome),
        job=line(outcome.get("job"), LONGEST_NAME),
        task_definition=name_in(outcome.get("taskDefinition")),
        cluster=name_in(cluster),
        since=time_in(outcome.get("since")),
        attempts=_attempts(line(outcome.get("attempt"))),
        said=_first(reasons if isinstance(reasons, list) else []),
        detail=line(outcome.get("detail"), LONGEST_TEXT),
        event=event,
        rule=_rule_in(outcome.get("startedBy")),
    )


def _failed_invocation(members: Mapping[str, Any], sent: datetime) -> Letter:
    """What EventBridge passes of an invocation that failed: each value is in a list of its own.

    A list is empty where the event has no such value: Lambda's record holds no error of a function
    that never ran, and a replayed letter holds the failed call one level further in.
    """

    def value(*names: str) -> Any:
        lists = (members.get(name) for name in names)
        values = (v for found in lists if isinstance(found, list) for v in found)
        return next(filter(None, values), None)

    letter = value("letter")
    if isinstance(letter, dict) and _is_lost_job(letter):
        known = _lost_job(letter, sent)
    else:
        known = _failed_call({name: value(name, f"inner_{name}") for name in CALL}, sent)
    condition, request = line(value("condition")), line(value("request"))
    error = f"{line(value('errorType'))}: {line(value('errorMessage'))}".strip(" :")
    return replace(
        known,
        kind=Kind.FAILED,
        time=time_in(value("time")) or sent,
        identity=(Kind.FAILED, known.event, known.cluster) if known.event else request,
        said=(error or "none: Lambda did not run the function",),
        detail=f"Request {request} ({condition}).",
    )


def _failed_call(call: Mapping[str, Any], sent: datetime) -> Letter:
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
        identity=None,
        job=job,
        task_definition=task_definition,
        cluster=name_in(call["cluster"]) or ("default" if task_definition else ""),
        since=time_in(call["since"]),
        event=line(call["event"]),
        rule=_rule_in(started_by),
    )


def line(value: object, most: int = LONGEST_TEXT) -> str:
    """Text as one line that can be printed; empty for what is no text.

    Line breaks, control characters and lone surrogates become spaces: SNS takes none in a subject,
    and in a message they would pretend to be lines of ours.
    """
    if not isinstance(value, str):
        return ""
    text = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def name_in(value: object) -> str:
    """The name in an ARN of ECS, which may as well be the name alone: `nightly-report:42`."""
    text = line(value, LONGEST_NAME * 2)
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
        return "attempts unknown"
    return {"0": "no attempt", "1": "1 attempt"}.get(made, f"{made} attempts")


def _first(reasons: list[Any]) -> tuple[str, ...]:
    """The first reasons, and how many more there are."""
    shown = [line(reason) for reason in reasons[:MOST_REASONS]]
    more = len(reasons) - len(shown)
    return (*filter(None, shown), *([f"and {more:,} more reasons"] if more else []))


def _rule_in(started_by: object) -> str:
    """The name of the rule that made a call, or its beginning.

    It goes into a command that people paste: nothing but EventBridge's own characters (PutRule
    `Name`, API reference).
    """
    found = re.fullmatch(rf"{RULE_PREFIX}([.\-_A-Za-z0-9]+)", line(started_by))
    return found[1] if found else ""
