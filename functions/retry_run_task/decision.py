"""Decide: what is to be done about a failed call. Pure: no client, no environment, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from botocore.model import StructureShape

from retry_run_task.backoff import (
    MOST_GAIN,
    SHARED_CAP,
    SHORTEST,
    TOKEN_LIFE,
    delay,
    replay_delay,
)
from retry_run_task.caller import OURS, Caller
from retry_run_task.chain import (
    ATTEMPT_TAG,
    MAX_ATTEMPTS_TAG,
    ORIGIN_TAG,
    Chain,
    Tags,
    budget_in,
    chain_in,
    client_token,
    origin_of,
    pool_of,
    schedule_name,
    token_in,
    token_tags,
    without_ours,
)
from retry_run_task.failed_call import FailedCall, write_failed_call, write_time
from retry_run_task.outcome import Outcome
from retry_run_task.progress import Progress, wrap
from retry_run_task.request import HIDDEN, NotExact, exact_request, tags_in
from retry_run_task.settings import Settings
from retry_run_task.source import Source, hidden_environments, source_of

# RunTask takes up to 50 tags; those of AWS (`aws:`) do not count (RunTask `tags`, API reference).
MAX_TAGS = 50

# A schedule's input takes 256 KB (Scheduler quotas), be they of 1000 or of 1024. CloudTrail omits a
# request above 100 KB, so that hardly one comes near; one that does is retried at once.
MAX_PAYLOAD = 256_000

# Only a changed request, cluster or quota helps against these (ECS: API failure reasons); and so
# with "The requested CPU|MEMORY configuration is above your limit" of Fargate.
PERMANENT = ("ATTRIBUTE", "LOCATION", "MISSING", "INACTIVE")

# Said wherever a chain ends after an attempt of which nobody knows what came of it.
MAY_RUN = (
    "An attempt may have started the job: see whether it runs or has run, and replay it if not."
)


@dataclass(frozen=True, slots=True)
class Launch:
    """Retry now: `request` is RunTask's whole input, tags and client token included.

    `asked` is the request of the failed call. Where it hides environments, so does `request`, and
    `source` says who still has their values.
    """

    chain: Chain
    request: Mapping[str, Any]
    asked: Mapping[str, Any]
    detail: str = ""
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Retry later: a schedule of this name invokes the function with `payload` (JSON) then."""

    chain: Chain
    name: str
    until: datetime
    payload: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not retry: the outcome, and a sentence that says why to a person."""

    chain: Chain
    outcome: Outcome
    detail: str


Decision = Launch | Wait | Stop


def decide(
    call: FailedCall,
    caller: Caller,
    progress: Progress,
    settings: Settings,
    now: datetime,
    run_task: StructureShape,
) -> Decision:
    """What to do about this failed call; `run_task` is RunTask's input shape in botocore's model.

    Of the guards, the first that applies decides: what the stack is for, what the job chose, whose
    call it is, and then how far its chain is.
    """
    # A job that the stack has dealt with before is not left alone any more.
    is_ours = caller.kind == OURS or progress.taken_on
    origin = origin_of(call.event_id, call.parameters.get("clientToken"))
    is_counted = caller.kind == OURS or progress.begun
    chain = Chain(origin, call.event_time, None if is_counted else 0, settings.max_attempts)
    if not (is_ours or _is_in_reach(call, settings)):
        return Stop(chain, Outcome.LEFT_ALONE, "The stack is narrowed to other clusters or jobs.")
    is_covered = is_ours or caller.is_covered(settings.callers)
    try:
        tags = tags_in(call.parameters, run_task)
    except NotExact as problem:
        if not is_covered:  # tags that cannot be read opt no job in
            return _left_alone(chain, caller, settings, f"Its tags cannot be read: {problem}.")
        return _not_replayable(chain, problem)
    own_budget, note = budget_in(tags)
    budget = settings.max_attempts if own_budget is None else own_budget
    chain = replace(chain, end=budget)
    if budget == 0:
        return Stop(chain, Outcome.OPTED_OUT, f"The job's tag {MAX_ATTEMPTS_TAG} is 0.")
    if own_budget is None and not is_covered:
        return _not_covered(call, caller, tags, chain, settings, note)
    decision = _next_attempt(call, caller, progress, tags, chain, settings, now, run_task)
    return replace(decision, detail=f"{decision.detail} {note}".strip())


def _next_attempt(
    call: FailedCall,
    caller: Caller,
    progress: Progress,
    tags: Tags,
    chain: Chain,
    settings: Settings,
    now: datetime,
    run_task: StructureShape,
) -> Decision:
    """The next attempt at a job that is ours to retry, now or later; or why there is none."""
    budget = chain.end
    try:
        chain = _chain_of(call, caller, tags, chain)
        due = _due(progress, chain, settings, now)
        if progress.replay_name is not None:
            # A person asked for it: the whole budget again, from where the counter stands. All
            # that is sent twice has to be equal: the time is that of the schedule, not the clock's.
            chain = replace(chain, replayed=progress.due or due, end=chain.made + budget)
        further = chain.one_further()
        if progress.planned is not None:
            further = chain.pulled_forward(progress.planned)
        end = _end(call, caller, progress, chain, settings, due)
        if end is not None:
            return end
        if due > now:
            # What cannot be repeated is found when the wait is over: two letters of it in one
            # replay are one letter then.
            # A copy of this event that came later would wait as long: it is the same attempt. Of a
            # replay's letters, one alone makes the schedule.
            is_replay = progress.replay_name is not None
            earliest = due if is_replay else min(due, call.event_time + (due - now))
            if settings.pull_forward and not is_replay:
                # And that copy may be pulled forward.
                earliest = max(earliest - MOST_GAIN, min(earliest, call.event_time + SHORTEST))
            event = write_failed_call(call, settings.account, settings.region)
            payload = wrap(event, progress, earliest)
            if len(payload.encode(errors="surrogatepass")) <= MAX_PAYLOAD:
                pool = pool_of(call.parameters, settings)
                name = schedule_name(further, pool, progress.replay_name)
                return Wait(further, name, due, payload)
        hidden = settings.recover_hidden_environment
        asked = exact_request(call.parameters, run_task, hidden=hidden)
        request = _next_request(call, progress, further, asked, tags)
        source = None
        if hidden_environments(asked):
            source = source_of(call, caller, progress.begun, asked, tags)
        return Launch(further, request, asked, source=source)
    except NotExact as problem:
        return _not_replayable(chain, problem)


def give_up(launch: Launch, problem: NotExact) -> Stop:
    """What becomes of a launch whose hidden environments cannot be recovered: it is not made."""
    return _not_replayable(launch.chain.one_back(), problem)


def _is_in_reach(call: FailedCall, settings: Settings) -> bool:
    """Is it a call to what the stack is narrowed to?"""
    return settings.covers(call.parameters.get("cluster"), call.parameters.get("taskDefinition"))


def _not_replayable(chain: Chain, problem: NotExact) -> Stop:
    return Stop(chain, Outcome.NOT_REPLAYABLE, f"The request cannot be repeated: {problem}.")


def _left_alone(chain: Chain, caller: Caller, settings: Settings, note: str) -> Stop:
    """A first failed call, whose caller sees the failure, or is none that the stack is for."""
    detail = (
        f"The stack leaves calls of {caller.kind} callers alone (Callers is {settings.callers}); "
        f"the tag {MAX_ATTEMPTS_TAG} on the job opts it in."
    )
    return Stop(chain, Outcome.LEFT_ALONE, f"{detail} {note}".strip())


def _not_covered(
    call: FailedCall, caller: Caller, tags: Tags, chain: Chain, settings: Settings, note: str
) -> Stop:
    """A call of a caller that the stack is not for; where it is an attempt, a person is alerted."""
    try:
        begun = chain_in(tags, call.parameters.get("clientToken"))
    except NotExact:
        begun = None
    if begun is None:
        return _left_alone(chain, caller, settings, note)
    detail = (
        "The call is an attempt of another stack, or of this one under an earlier name, and "
        f"Callers ({settings.callers}) does not cover it. Another stack may still retry it: see "
        "whether the job runs, and start it by hand if not."
    )
    return Stop(begun, Outcome.NOT_REPLAYABLE, f"{detail} {note}".strip())


def _chain_of(call: FailedCall, caller: Caller, tags: Tags, first: Chain) -> Chain:
    """The chain that the call belongs to, or `first`, which begins with it."""
    token = call.parameters.get("clientToken")
    chain = chain_in(tags, token)
    if chain is not None:
        if caller.kind != OURS and token in (None, HIDDEN):
            # Tags can be copied to another task, and then nothing shows whose they are: attempts
            # at either one would meet the tokens of the other.
            raise NotExact(
                f"tags[{ORIGIN_TAG}]", "cannot be verified: the call shows no client token of it"
            )
        return chain
    if caller.kind == OURS:
        # Nothing but the counter stops the loop (Lambda's own loop detection does not see
        # EventBridge), so a call of ours without one is where it must end.
        raise NotExact(f"tags[{ATTEMPT_TAG}]", "is missing from a call of this function's own")
    return replace(first, attempt=0)


def _due(progress: Progress, chain: Chain, settings: Settings, now: datetime) -> datetime:
    """When to make the next attempt: now, or in whole seconds, as a schedule takes it."""
    if progress.due is not None:
        return now
    if progress.replay_name is not None:
        wait = replay_delay(chain.origin, progress.replay_name)
    elif chain.made == 0:
        return now  # CloudTrail's latency has passed
    else:
        is_shared = progress.first_use is not None
        cap = min(settings.backoff_cap, SHARED_CAP) if is_shared else settings.backoff_cap
        name = f"{chain.origin}-{chain.made + 1}"
        wait = delay(name, chain.step, settings.backoff_base, cap)
        if chain.planned is not None and settings.max_age is not None:
            # The last attempt was made sooner, in vain. Lest the next one is too late by that, it
            # is made when that one was planned; or soon, where that is over.
            soonest = delay(name, 2, settings.backoff_base, SHORTEST)
            wait = min(wait, max(chain.planned - now, soonest))
    return (now + wait + timedelta(seconds=1, microseconds=-1)).replace(microsecond=0)


def _end(
    call: FailedCall,
    caller: Caller,
    progress: Progress,
    chain: Chain,
    settings: Settings,
    due: datetime,
) -> Stop | None:
    """Why there is no next attempt, if there is none."""
    if not _is_in_reach(call, settings):
        detail = (
            "The stack was narrowed (ClusterArns, TaskDefinitionArns) and no longer covers this "
            "job: widen it to retry the job."
        )
        return Stop(chain, Outcome.NOT_REPLAYABLE, detail)
    if call.missing < 1:
        return Stop(chain, Outcome.ALREADY_LAUNCHED, "ECS placed every task that was asked for.")
    # Only a caller that may count what it got is left alone with it.
    may_count = not caller.is_scheduled and not settings.retry_partial_failures
    if call.tasks and chain.made == 0 and may_count and not progress.taken_on:
        detail = "ECS placed some of the tasks, and the stack's RetryPartialFailures is false."
        return Stop(chain, Outcome.LEFT_ALONE, detail)
    is_judged = progress.taken_on or progress.replay_name is not None
    if not is_judged and all(map(_is_permanent, call.reasons)):
        return Stop(chain, Outcome.NOT_RETRYABLE, "A retry does not help against the reasons.")
    unknown = "" if progress.first_use is None else f" {MAY_RUN}"
    if chain.made >= chain.end:
        budget = chain.end - chain.forwarded
        attempts = "1 attempt" if budget == 1 else f"{budget} attempts"
        free = f" {chain.forwarded} more were pulled forward." if chain.forwarded else ""
        detail = f"The budget of {attempts} is used up.{free}{unknown}"
        return Stop(chain, Outcome.EXHAUSTED, detail)
    if progress.first_use is not None and due - progress.first_use > TOKEN_LIFE:
        detail = (
            "The next attempt would use a client token that may be in use since "
            f"{write_time(progress.first_use)}, and may have died by then.{unknown}"
        )
        return Stop(chain, Outcome.EXPIRED, detail)
    if settings.max_age is not None and due - chain.aged_from > settings.max_age:
        detail = (
            f"The next attempt would be later than the maximum age of {settings.max_age}.{unknown}"
        )
        return Stop(chain, Outcome.EXPIRED, detail)
    return None


def _next_request(
    call: FailedCall, progress: Progress, chain: Chain, asked: Mapping[str, Any], tags: Tags
) -> dict[str, Any]:
    """The request `asked` again: what is still missing of it, with our tags and our token."""
    request = dict(asked)
    if call.tasks:
        request["count"] = call.missing
    last = token_in(tags, call.parameters.get("clientToken"))
    request["clientToken"] = client_token(chain, last, unspent=progress.unspent)
    theirs, ours = without_ours(tags), chain.tags
    # What is recovered needs one tag more (see definition_tag).
    number = len(ours) + bool(hidden_environments(asked))
    room = MAX_TAGS - len(theirs) - number
    if room < 0:
        problem = f"has no room for {number} more beside {len(theirs)}: ECS takes {MAX_TAGS}"
        raise NotExact("tags", problem)
    request["tags"] = theirs + ours + token_tags(chain, request["clientToken"])[:room]
    return request


def _is_permanent(reason: str) -> bool:
    return reason in PERMANENT or "above your limit" in reason
