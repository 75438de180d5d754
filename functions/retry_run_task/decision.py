"""Decide: what is to be done about a failed call. Pure: no client, no environment, no clock."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from botocore.model import Shape

from retry_run_task.failed_call import EVENT_ID, FailedCall, read_time, write_time
from retry_run_task.request import NotExact, exact, exact_request
from retry_run_task.settings import Settings

ATTEMPT_TAG = "retry-run-task:attempt"
ORIGIN_TAG = "retry-run-task:origin"
SINCE_TAG = "retry-run-task:since"
MAX_ATTEMPTS_TAG = "retry-run-task:max-attempts"
CHAIN_TAGS = (ATTEMPT_TAG, ORIGIN_TAG, SINCE_TAG)

# RunTask takes up to 50 tags; those of AWS (`aws:`) do not count (RunTask `tags`, API reference).
MAX_TAGS = 50


class Outcome(StrEnum):
    """What one invocation decided and did."""

    LAUNCHED = "LAUNCHED"
    FAILED_AGAIN = "FAILED_AGAIN"
    ALREADY_LAUNCHED = "ALREADY_LAUNCHED"
    OPTED_OUT = "OPTED_OUT"
    EXHAUSTED = "EXHAUSTED"
    NOT_RETRYABLE = "NOT_RETRYABLE"
    NOT_REPLAYABLE = "NOT_REPLAYABLE"


@dataclass(frozen=True, slots=True)
class Chain:
    """Where a job stands: attempt `attempt` of at most `end`. The origin itself is attempt 0.

    `attempt` is None where the counter can not be read.
    """

    origin: str
    since: datetime
    attempt: int | None
    end: int

    @property
    def counter(self) -> str:
        return f"{'unknown' if self.attempt is None else self.attempt}/{self.end}"

    def next(self) -> Self:
        return replace(self, attempt=(self.attempt or 0) + 1)


@dataclass(frozen=True, slots=True)
class Launch:
    """Ask ECS again: `request` is RunTask's whole input, tags and client token included."""

    chain: Chain
    request: Mapping[str, Any]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask nothing: the outcome, and a sentence that tells a person why."""

    chain: Chain
    outcome: Outcome
    detail: str


Decision = Launch | Stop


def decide(call: FailedCall, settings: Settings, now: datetime, run_task: Shape) -> Decision:
    """What to do about this failed call; `run_task` is RunTask's input shape in botocore's model.

    The guards stand in the order of the README's safeguards; the first that applies decides.
    """
    first = Chain(call.event_id, call.event_time, 0, settings.max_attempts)
    if not settings.covers(call.parameters.get("cluster"), call.parameters.get("taskDefinition")):
        return Stop(first, Outcome.OPTED_OUT, "The stack is narrowed to other clusters or tasks.")

    try:
        tags = _user_and_chain_tags(call.parameters, run_task)
    except NotExact as problem:
        return _not_replayable(first, problem)
    budget, note = _budget(tags, settings.max_attempts)
    first = replace(first, end=budget)
    if budget == 0:
        return Stop(first, Outcome.OPTED_OUT, f"The job's tag {MAX_ATTEMPTS_TAG} is 0.")

    try:
        chain = _chain_in(tags)
    except NotExact as problem:
        return _not_replayable(replace(first, attempt=None), problem)
    if chain is None:
        if _made_by_us(call.caller_arn, settings):
            # Nothing but the counter stops the loop (Lambda's own loop detection does not see
            # EventBridge), so a call of ours without one is where it must end.
            problem = NotExact(f"tags[{ATTEMPT_TAG}]", "is missing from a call of our own")
            return _not_replayable(replace(first, attempt=None), problem)
        if call.placed and not settings.retry_partial_failures:
            return Stop(first, Outcome.OPTED_OUT, "Some tasks were placed: RetryPartialFailures.")
        chain = first
    if call.replay_name is not None:
        # A person asked for it: the whole budget again from where the counter stands.
        chain = replace(chain, since=now, end=(chain.attempt or 0) + budget)

    if call.missing < 1:
        return Stop(chain, Outcome.ALREADY_LAUNCHED, "ECS placed every task that was asked for.")
    if all(_is_permanent(reason) for reason in call.reasons):
        return Stop(chain, Outcome.NOT_RETRYABLE, "Waiting does not change any of the reasons.")
    if (chain.attempt or 0) >= chain.end:
        return Stop(chain, Outcome.EXHAUSTED, f"All {chain.end} attempts failed.")

    attempt = chain.next()
    try:
        request = _next_request(call, attempt, tags, run_task)
    except NotExact as problem:
        return _not_replayable(chain, problem)
    return Launch(attempt, request, note)


def _not_replayable(chain: Chain, problem: NotExact) -> Stop:
    return Stop(chain, Outcome.NOT_REPLAYABLE, f"The request can not be repeated: {problem}.")


def _user_and_chain_tags(
    parameters: Mapping[str, Any], run_task: Shape
) -> list[dict[str, str]]:
    """The request's tags without those of AWS, which no caller may send (RunTask `tags`)."""
    given = parameters.get("tags")
    tags: list[dict[str, str]] = exact([] if given is None else given, run_task.members["tags"], "tags")
    return [tag for tag in tags if not tag.get("key", "").lower().startswith("aws:")]


def _value(tags: Iterable[Mapping[str, str]], key: str) -> str | None:
    """The tag's value, None without such a tag; two of them are as good as an unreadable one."""
    values = [tag.get("value", "") for tag in tags if tag.get("key") == key]
    return values[0] if len(values) == 1 else ("" if values else None)


def _budget(tags: list[dict[str, str]], default: int) -> tuple[int, str]:
    """The job's budget, its own or the stack's, and a note where its own can not be read."""
    text = _value(tags, MAX_ATTEMPTS_TAG)
    if text is None:
        return default, ""
    if re.fullmatch("[0-9]{1,3}", text) and int(text) <= 100:
        return int(text), ""
    return default, f"The job's tag {MAX_ATTEMPTS_TAG} is not a whole number from 0 to 100."


def _chain_in(tags: list[dict[str, str]]) -> Chain | None:
    """The chain that the tags tell of; None where they tell of none; NotExact where of half a one."""
    attempt, origin, since = (_value(tags, key) for key in CHAIN_TAGS)
    if attempt is None and origin is None and since is None:
        return None
    counter = re.fullmatch("([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", attempt or "")
    if counter is None:
        raise NotExact(f"tags[{ATTEMPT_TAG}]", "is not a counter like 3/10")
    if not EVENT_ID.fullmatch(origin or ""):
        raise NotExact(f"tags[{ORIGIN_TAG}]", "is not an event's identifier")
    moment = read_time(since)
    if moment is None:
        raise NotExact(f"tags[{SINCE_TAG}]", "is not a time like 2026-11-23T00:00:04Z")
    return Chain(origin or "", moment, int(counter[1]), int(counter[2]))


def _made_by_us(caller_arn: str, settings: Settings) -> bool:
    """Lambda names a role's session after the function (aws-facts: userIdentity of its calls)."""
    prefix = f"arn:{settings.partition}:sts::{settings.account}:assumed-role/"
    return caller_arn.startswith(prefix) and caller_arn.endswith(f"/{settings.function_name}")


def _is_permanent(reason: str) -> bool:
    """Reasons that only a changed request, cluster or quota mends (ECS: API failure reasons)."""
    kind = reason.partition(":")[0].strip()
    return kind in ("ATTRIBUTE", "LOCATION", "MISSING", "INACTIVE") or "above your limit" in reason


def _next_request(
    call: FailedCall, attempt: Chain, tags: list[dict[str, str]], run_task: Shape
) -> dict[str, Any]:
    request = exact_request(call.parameters, run_task)
    if call.placed:
        request["count"] = call.missing
    ours = {
        ATTEMPT_TAG: attempt.counter,
        ORIGIN_TAG: attempt.origin,
        SINCE_TAG: write_time(attempt.since),
    }
    theirs = [tag for tag in tags if tag.get("key") not in CHAIN_TAGS]
    if len(theirs) + len(ours) > MAX_TAGS:
        raise NotExact("tags", f"has no room for {len(ours)} more: ECS takes {MAX_TAGS}")
    request["tags"] = theirs + [{"key": key, "value": value} for key, value in ours.items()]
    request["clientToken"] = f"{attempt.origin}-{attempt.attempt}"
    return request
