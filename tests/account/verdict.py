"""Verdicts: what a stack with the template's defaults would have done about a failed call."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from account.look_ups import LookUps, NotLookedUp
from account.runs import STACK, run_task_shape, stack_in
from rehearsal.pattern import matches
from retry_run_task.caller import caller_of
from retry_run_task.decision import Stop, Wait, decide, give_up
from retry_run_task.failed_call import NotAFailedCall, read_failed_call
from retry_run_task.progress import Progress
from retry_run_task.settings import Settings

# Beside the outcomes: it would have been retried; and, as the rehearsal calls them, a call that
# the rule does not match, and one that the function cannot read.
RETRY = "RETRY"
UNMATCHED = "UNMATCHED"
FAILED = "FAILED"

# A retry, or a repeated call, has started the run.
LAUNCHED = "LAUNCHED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """RETRY or an outcome, and `why` it is not retried.

    It is not known where a look-up was not made that the function would make.
    """

    name: str
    why: str = ""
    is_known: bool = True


def verdict_on(event: Mapping[str, Any], look_ups: LookUps) -> Verdict:
    """What the stack decides when the event of a failed call arrives."""
    stack, settings = stack_in(event["account"], event["region"])
    if not matches(stack.pattern, event):
        return Verdict(UNMATCHED, "The rule does not match the event.")
    return decided(event, settings, look_ups)


def decided(event: Mapping[str, Any], settings: Settings, look_ups: LookUps) -> Verdict:
    """What the function decides on an event that its rule matches."""
    try:
        call = read_failed_call(event, settings.account, settings.region)
    except NotAFailedCall as refusal:
        return Verdict(FAILED, str(refusal))
    if attempt := STACK.fullmatch(call.caller_arn):
        settings = replace(settings, role_name=attempt[1], function_name=attempt[2])
    caller = caller_of(call, settings)
    # CloudTrail's latency changes nothing about an event that comes alone.
    decision = decide(call, caller, Progress(), settings, call.event_time, run_task_shape())
    if isinstance(decision, Wait):
        return Verdict(RETRY)
    if not isinstance(decision, Stop):
        problem = decision.source and look_ups.problem_with(decision, settings)
        if not problem:
            return Verdict(RETRY)
        stop = give_up(decision, problem)
        return Verdict(stop.outcome, stop.detail, is_known=not isinstance(problem, NotLookedUp))
    return Verdict(decision.outcome, decision.detail)
