"""Decide: what is to be done about a failed call. Pure: no client, no environment, no clock."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from botocore.model import StructureShape

from retry_run_task.backoff import UNSPENT_CAP, delay, replay_delay
from retry_run_task.definition import Source, hidden_environments, source_of
from retry_run_task.failed_call import (
    EVENT_ID,
    FailedCall,
    read_time,
    write_due_attempt,
    write_time,
)
from retry_run_task.request import HIDDEN, NotExact, exact, exact_request
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

    @property
    def is_dead_letter(self) -> bool:
        """Did the job end without a launch? The template archives and announces the same ones."""
        return self in (self.EXHAUSTED, self.EXPIRED, self.NOT_RETRYABLE, self.NOT_REPLAYABLE)


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
    """Ask ECS again: `request` is RunTask's whole input, tags and client token included.

    Where it holds hidden environments, `source` still has their values.
    """

    chain: Chain
    request: Mapping[str, Any]
    detail: str = ""
    source: Source | None = None


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
        chain = _chain_in(tags, call) or _new_chain(call, settings, budget)
        due = _due(call, chain, settings, now)
        if call.replay_name is not None:
            # A person asked for it: the whole budget again, from where the counter stands.
            chain = replace(chain, since=due, end=chain.made + budget)
        end = _end(call, chain, settings, due)
        if end is not None:
            return end
        attempt = replace(chain, attempt=chain.made + 1)
        if due > now:
            # What can not be repeated is found when the wait is over: two letters of it in one
            # replay are one letter then.
            payload = _payload(call, settings)
            if len(payload.encode(errors="surrogatepass")) <= MAX_PAYLOAD:
                return Wait(attempt, _schedule_name(call, attempt), due, payload, note)
        request = _next_request(call, attempt, tags, settings, run_task)
        return Launch(attempt, request, note, _source(call, request, settings))
    except NotExact as problem:
        return _not_replayable(chain, problem)


def give_up(attempt: Launch, problem: NotExact) -> Stop:
    """What becomes of an attempt whose hidden environments can not be recovered: it is not made."""
    return _not_replayable(replace(attempt.chain, attempt=attempt.chain.made - 1), problem)


def follow(
    call: FailedCall, request: Mapping[str, Any], *, spent: bool, tasks: tuple[str, ...] = ()
) -> FailedCall:
    """What to decide on after an attempt that failed without an event of its own.

    `request` is what the attempt sent; `spent`, whether ECS has bound its token to a failure, in
    which it placed no more than `tasks`. A token that is not bound is used again by the next
    attempt: none may be passed over, because a twin of this chain, or a server error that was none,
    could have started the job under it.

    A replay goes on at once where the token is spent: it has waited already, and what it met is an
    attempt of an earlier replay.
    """
    replay_name = call.replay_name if spent else None
    return replace(
        call,
        parameters=request,
        tasks=tasks,
        replay_name=replay_name,
        due=replay_name is not None,
        unspent=not spent,
    )


def _not_replayable(chain: Chain, problem: NotExact) -> Stop:
    return Stop(chain, Outcome.NOT_REPLAYABLE, f"The request can not be repeated: {problem}.")


def _new_chain(call: FailedCall, settings: Settings, budget: int) -> Chain:
    if _made_by_us(call.caller_arn, settings):
        # Nothing but the counter stops the loop (Lambda's own loop detection does not see
        # EventBridge), so a call of ours without one is where it must end.
        raise NotExact(f"tags[{ATTEMPT_TAG}]", "is missing from a call of this function's own")
    return Chain(call.event_id, call.event_time, 0, budget)


def _due(call: FailedCall, chain: Chain, settings: Settings, now: datetime) -> datetime:
    """When to make the next attempt: now, or in whole seconds, as a schedule takes it."""
    if call.due:
        return now
    if call.replay_name is not None:
        wait = replay_delay(chain.origin, call.replay_name)
    elif chain.made == 0:
        return now  # CloudTrail's latency has passed
    else:
        cap = min(settings.backoff_cap, UNSPENT_CAP) if call.unspent else settings.backoff_cap
        wait = delay(chain.origin, chain.made + 1, settings.backoff_base, cap)
    return (now + wait + timedelta(seconds=1, microseconds=-1)).replace(microsecond=0)


def _schedule_name(call: FailedCall, attempt: Chain) -> str:
    """The same for twins: for two letters of one chain in one replay as well."""
    if call.replay_name is None:
        return f"{attempt.origin}-{attempt.attempt}"
    return f"{attempt.origin}-{hashlib.sha256(call.replay_name.encode()).hexdigest()[:8]}"


def _payload(call: FailedCall, settings: Settings) -> str:
    event = write_due_attempt(call, settings.account, settings.region)
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    # Scheduler fills in <aws.scheduler.scheduled-time> and the like wherever it finds them in an
    # input (Scheduler user guide, "Context attributes"): a request must come back as it was.
    return text.replace("<", "\\u003c")


def _end(call: FailedCall, chain: Chain, settings: Settings, due: datetime) -> Stop | None:
    """Why there is no next attempt, if there is none."""
    if call.missing < 1:
        return Stop(chain, Outcome.ALREADY_LAUNCHED, "ECS placed every task that was asked for.")
    if call.tasks and chain.made == 0 and not settings.retry_partial_failures:
        detail = "ECS placed some of the tasks, and the stack's RetryPartialFailures is false."
        return Stop(chain, Outcome.OPTED_OUT, detail)
    if call.replay_name is None and all(map(_is_permanent, call.reasons)):
        return Stop(chain, Outcome.NOT_RETRYABLE, "Asking again does not help against the reasons.")
    if chain.made >= chain.end:
        return Stop(chain, Outcome.EXHAUSTED, f"All {chain.end} attempts failed.")
    if settings.max_age is not None and due - chain.since > settings.max_age:
        detail = f"The next attempt would be later than the maximum age of {settings.max_age}."
        return Stop(chain, Outcome.EXPIRED, detail)
    return None


def _source(call: FailedCall, request: Mapping[str, Any], settings: Settings) -> Source | None:
    """Who holds what CloudTrail hides of this call; None where it hides nothing."""
    if not hidden_environments(request):
        return None
    ours = _made_by_us(call.caller_arn, settings)
    return source_of(request, call.invoked_by, call.event_time, ours=ours)


def _next_request(
    call: FailedCall,
    attempt: Chain,
    tags: list[dict[str, str]],
    settings: Settings,
    run_task: StructureShape,
) -> dict[str, Any]:
    """The caller's request again: what is still missing of it, with our tags and our token."""
    hidden = settings.recover_hidden_environment
    request = exact_request(call.parameters, run_task, hidden=hidden)
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
    request["clientToken"] = _token(call, attempt)
    return request


def _token(call: FailedCall, attempt: Chain) -> str:
    """`<origin>-<attempt>`, or the last one's own where that is not spent.

    Tokens are used up one after the other. ECS binds a token to what the first call with it came to
    (ECS_Idempotency), so that of twins with one token only one can start the job.
    """
    number = attempt.made
    used = str(call.parameters.get("clientToken")).removeprefix(f"{attempt.origin}-")
    if re.fullmatch("[1-9][0-9]{0,5}", used) and int(used) < number:
        number = int(used) + (not call.unspent)
    return f"{attempt.origin}-{number}"


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


def _chain_in(tags: list[dict[str, str]], call: FailedCall) -> Chain | None:
    """The chain that the tags tell of; None where they tell of none.

    Raises NotExact where they tell of half a one: a counter that can not be read stops the chain.
    And where they were copied from one of our tasks to another, as the client token shows: that
    task is another job, whose attempts would meet the tokens of the first.
    """
    attempt, origin, since = (_value(tags, key) for key in CHAIN_TAGS)
    if attempt is None and origin is None and since is None:
        return None
    counter = re.fullmatch("([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", attempt or "")
    if counter is None or int(counter[2]) - int(counter[1]) >= MAX_BUDGET:
        raise NotExact(f"tags[{ATTEMPT_TAG}]", "is not a counter like 3/10")
    if not EVENT_ID.fullmatch(origin or ""):
        raise NotExact(f"tags[{ORIGIN_TAG}]", "is not an event's identifier")
    token = call.parameters.get("clientToken")
    if isinstance(token, str) and token != HIDDEN and not token.startswith(f"{origin}-"):
        raise NotExact(f"tags[{ORIGIN_TAG}]", "was copied from another task")
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
