"""Decide: what is to be done about a failed call. Pure: no client, no environment, no clock."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from botocore.model import StructureShape

from retry_run_task.backoff import delay
from retry_run_task.failed_call import (
    EVENT_ID,
    FailedCall,
    read_time,
    write_due_attempt,
    write_time,
)
from retry_run_task.request import NotExact, exact, exact_request
from retry_run_task.settings import Settings

ATTEMPT_TAG = "retry-run-task:attempt"
ORIGIN_TAG = "retry-run-task:origin"
SINCE_TAG = "retry-run-task:since"
MAX_ATTEMPTS_TAG = "retry-run-task:max-attempts"
CHAIN_TAGS = (ATTEMPT_TAG, ORIGIN_TAG, SINCE_TAG)

# RunTask takes up to 50 tags; those of AWS (`aws:`) do not count (RunTask `tags`, API reference).
MAX_TAGS = 50


# The longest budget that a stack (MaxAttempts) or a job (its tag) can have.
MAX_BUDGET = 100

# A schedule's input takes 256 KB (Scheduler quotas), be they of 1000 or of 1024. CloudTrail omits a
# request above 100 KB, so that hardly one comes near; one that does is asked for at once.
MAX_PAYLOAD = 256_000

# Only a changed request, cluster or quota mends these (ECS: API failure reasons); and so with
# "The requested CPU|MEMORY configuration is above your limit" of Fargate.
PERMANENT = ("ATTRIBUTE", "LOCATION", "MISSING", "INACTIVE")


class Outcome(StrEnum):
    """What one invocation decided and did."""

    LAUNCHED = "LAUNCHED"
    FAILED_AGAIN = "FAILED_AGAIN"
    SCHEDULED = "SCHEDULED"
    ALREADY_SCHEDULED = "ALREADY_SCHEDULED"
    ALREADY_LAUNCHED = "ALREADY_LAUNCHED"
    OPTED_OUT = "OPTED_OUT"
    EXHAUSTED = "EXHAUSTED"
    EXPIRED = "EXPIRED"
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
        """As the tag holds it: `3/10`."""
        return f"{'unknown' if self.attempt is None else self.attempt}/{self.end}"

    @property
    def made(self) -> int:
        """How many attempts were made."""
        return self.attempt or 0


@dataclass(frozen=True, slots=True)
class Launch:
    """Ask ECS again: `request` is RunTask's whole input, tags and client token included."""

    chain: Chain
    request: Mapping[str, Any]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask ECS later: a schedule of this name invokes the function with `payload` (JSON) then."""

    chain: Chain
    name: str
    until: datetime
    payload: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask nothing: the outcome, and a sentence that tells a person why."""

    chain: Chain
    outcome: Outcome
    detail: str


Decision = Launch | Wait | Stop


def decide(
    call: FailedCall, settings: Settings, now: datetime, run_task: StructureShape
) -> Decision:
    """What to do about this failed call; `run_task` is RunTask's input shape in botocore's model.

    The guards stand in the order of the README's safeguards; the first that applies decides.
    """
    chain = Chain(call.event_id, call.event_time, None, settings.max_attempts)
    if not settings.covers(call.parameters.get("cluster"), call.parameters.get("taskDefinition")):
        return Stop(chain, Outcome.OPTED_OUT, "The stack is narrowed to other clusters or jobs.")
    try:
        tags = _tags(call.parameters, run_task)
        budget, note = _budget(tags, settings.max_attempts)
        chain = replace(chain, end=budget)
        if budget == 0:
            return Stop(chain, Outcome.OPTED_OUT, f"The job's tag {MAX_ATTEMPTS_TAG} is 0.")
        chain = _chain_in(tags) or _new_chain(call, settings, budget)
        if call.replay_name is not None:
            # A person asked for it: the whole budget again, from where the counter stands.
            chain = replace(chain, since=now, end=chain.made + budget)
        attempt = replace(chain, attempt=chain.made + 1)
        due = now if _is_due(call, attempt) else _due(call, attempt, settings, now)
        end = _end(call, chain, settings, due)
        if end is not None:
            return end
        request = _next_request(call, attempt, tags, run_task)
        if due > now:
            payload = _payload(call, settings)
            if len(payload.encode(errors="surrogatepass")) <= MAX_PAYLOAD:
                return Wait(attempt, _schedule_name(call, attempt), due, payload, note)
        return Launch(attempt, request, note)
    except NotExact as problem:
        detail = f"The request can not be repeated: {problem}."
        return Stop(chain, Outcome.NOT_REPLAYABLE, detail)


def follow(call: FailedCall, request: Mapping[str, Any], *, answered: bool) -> FailedCall:
    """What to decide on after an attempt that failed without an event of its own.

    `request` is what the attempt sent. Where ECS did not say whether it started anything, the same
    attempt is due again, under the same token: another one could start the job a second time.
    """
    if answered:
        return replace(
            call, parameters=request, tasks=(), replay_name=None, due=False, unanswered=0
        )
    return replace(call, due=False, unanswered=call.unanswered + 1)


def _new_chain(call: FailedCall, settings: Settings, budget: int) -> Chain:
    if _made_by_us(call.caller_arn, settings):
        # Nothing but the counter stops the loop (Lambda's own loop detection does not see
        # EventBridge), so a call of ours without one is where it must end.
        raise NotExact(f"tags[{ATTEMPT_TAG}]", "is missing from a call of this function's own")
    return Chain(call.event_id, call.event_time, 0, budget)


def _is_due(call: FailedCall, attempt: Chain) -> bool:
    """Attempt 1 is made at once: CloudTrail's latency has passed. The others have to wait."""
    return call.due or (attempt.made == 1 and not call.unanswered)


def _due(call: FailedCall, attempt: Chain, settings: Settings, now: datetime) -> datetime:
    """When to make the attempt: in whole seconds, as a schedule takes it."""
    number = attempt.made + call.unanswered
    wait = delay(attempt.origin, number, settings.backoff_base, settings.backoff_cap)
    return (now + wait + timedelta(seconds=1, microseconds=-1)).replace(microsecond=0)


def _schedule_name(call: FailedCall, attempt: Chain) -> str:
    name = f"{attempt.origin}-{attempt.attempt}"
    return f"{name}.{call.unanswered}" if call.unanswered else name


def _payload(call: FailedCall, settings: Settings) -> str:
    event = write_due_attempt(call, settings.account, settings.region)
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _end(call: FailedCall, chain: Chain, settings: Settings, due: datetime) -> Stop | None:
    """Why there is no next attempt, if there is none."""
    if call.missing < 1:
        return Stop(chain, Outcome.ALREADY_LAUNCHED, "ECS placed every task that was asked for.")
    if call.tasks and chain.made == 0 and not settings.retry_partial_failures:
        detail = "ECS placed some of the tasks, and the stack's RetryPartialFailures is false."
        return Stop(chain, Outcome.OPTED_OUT, detail)
    if all(_is_permanent(reason) for reason in call.reasons):
        return Stop(chain, Outcome.NOT_RETRYABLE, "Asking again does not help against the reasons.")
    if chain.made + call.unanswered >= chain.end:
        return Stop(chain, Outcome.EXHAUSTED, f"All {chain.end} attempts failed.")
    if settings.max_age is not None and due - chain.since > settings.max_age:
        detail = f"The next attempt would be later than the maximum age of {settings.max_age}."
        return Stop(chain, Outcome.EXPIRED, detail)
    return None


def _next_request(
    call: FailedCall, attempt: Chain, tags: list[dict[str, str]], run_task: StructureShape
) -> dict[str, Any]:
    """The caller's request again: what is still missing of it, with our tags and our token."""
    request = exact_request(call.parameters, run_task)
    if call.tasks:
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


def _tags(parameters: Mapping[str, Any], run_task: StructureShape) -> list[dict[str, str]]:
    """The request's tags without those of AWS, which no caller may send (RunTask `tags`)."""
    given = parameters.get("tags") or []
    tags: list[dict[str, str]] = exact(given, run_task.members["tags"], "tags")
    return [tag for tag in tags if not tag.get("key", "").lower().startswith("aws:")]


def _value(tags: list[dict[str, str]], key: str) -> str | None:
    """The tag's value, None without such a tag; two of them are as good as an unreadable one."""
    values = [tag.get("value", "") for tag in tags if tag.get("key") == key]
    return values[0] if len(values) == 1 else ("" if values else None)


def _budget(tags: list[dict[str, str]], default: int) -> tuple[int, str]:
    """The job's budget, its own or the stack's, and a note where its own can not be read."""
    text = _value(tags, MAX_ATTEMPTS_TAG)
    if text is None:
        return default, ""
    if re.fullmatch("[0-9]{1,3}", text) and int(text) <= MAX_BUDGET:
        return int(text), ""
    return (
        default,
        f"The job's tag {MAX_ATTEMPTS_TAG} is not a whole number from 0 to {MAX_BUDGET}.",
    )


def _chain_in(tags: list[dict[str, str]]) -> Chain | None:
    """The chain that the tags tell of; None where they tell of none.

    Raises NotExact where they tell of half a one: a counter that can not be read stops the chain.
    """
    attempt, origin, since = (_value(tags, key) for key in CHAIN_TAGS)
    if attempt is None and origin is None and since is None:
        return None
    counter = re.fullmatch("([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", attempt or "")
    if counter is None or int(counter[2]) - int(counter[1]) > MAX_BUDGET:
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
    return reason in PERMANENT or "above your limit" in reason
