"""Lambda's entry: read, decide, act, and report what came of it."""

import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from retry_run_task import forward as forwarding
from retry_run_task import launch as launching
from retry_run_task import recover as recovering
from retry_run_task import wait as waiting
from retry_run_task.caller import Caller, caller_of, job_of, started_by_of
from retry_run_task.chain import Chain, pool_of
from retry_run_task.decision import Decision, Launch, Stop, Wait, decide, give_up
from retry_run_task.failed_call import FailedCall, read_failed_call, write_time
from retry_run_task.follow import Token, follow, later, unseen
from retry_run_task.forward import pull_forward
from retry_run_task.launch import Failed, Launched, Spent, Unknown, Unseen, launch
from retry_run_task.outcome import Outcome
from retry_run_task.progress import Progress, unwrap
from retry_run_task.recover import Unread, recover
from retry_run_task.request import NotExact
from retry_run_task.settings import Settings
from retry_run_task.wait import schedule

if TYPE_CHECKING:
    from botocore.model import StructureShape
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient

logger = Logger(service="retry-run-task")
metrics = Metrics(namespace="RetryRunTask", service="retry-run-task")
# With the JSON log format, Lambda's own logger also writes what botocore says at level INFO.
logging.getLogger("botocore").setLevel(logging.WARNING)

# A replay goes on at once past the tokens of earlier replays, while so much time is left. It is for
# one schedule, which usually takes less than a second, and 21 s with all its tries (wait.py).
LEAST_MILLISECONDS = 20_000


class NotContinued(Exception):
    """The attempt came to nothing, and nothing will continue the chain: Lambda must try again."""


@dataclass(frozen=True, slots=True)
class End:
    """What one invocation came to; `tasks` are the ARNs of what runs because of it."""

    chain: Chain
    outcome: Outcome
    tasks: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """An attempt failed, as `detail` says, and no event will say so: decide on this instead.

    `tasks` are the ARNs of those that run because of it all the same.
    """

    call: FailedCall
    progress: Progress
    detail: str
    tasks: tuple[str, ...] = ()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A failed call, a due attempt or a replayed dead letter in, its outcome out.

    Raises NotAFailedCall for all else. What AWS rejects escapes as botocore's ClientError: Lambda
    tries the same payload twice more, and then sends it to the failure destination.
    """
    settings = Settings.read(os.environ, context.invoked_function_arn)
    unwrapped, progress = unwrap(event)
    call = read_failed_call(unwrapped, settings.account, settings.region)
    end = retry(call, progress, settings, context.get_remaining_time_in_millis)
    outcome = describe(call, caller_of(call, settings), end, datetime.now(UTC))
    report(outcome, end, context.function_name)
    if settings.pull_forward and progress.due is not None and end.outcome is Outcome.LAUNCHED:
        pull_others_forward(call, end.chain, settings, context)
    return outcome


def retry(
    call: FailedCall, progress: Progress, settings: Settings, time_left: Callable[[], int]
) -> End:
    """Decide and act, until an event, a schedule or a person has the job from here on.

    `time_left` gives the milliseconds that Lambda still lets this invocation run. Raises
    NotContinued where none of them would have it.
    """
    tasks: tuple[str, ...] = ()
    failure = ""
    while True:
        if failure and time_left() < LEAST_MILLISECONDS:
            progress = later(call, progress)
        caller, now = caller_of(call, settings), datetime.now(UTC)
        decision = decide(call, caller, progress, settings, now, run_task_shape())
        if failure and isinstance(decision, Launch) and progress.due is None:
            # The request is too large for a schedule: Lambda tries the event again later.
            raise NotContinued(failure)
        result = act(decision, call, progress, settings)
        if isinstance(result, End):
            tasks = result.tasks or tasks
            return replace(result, tasks=tasks, detail=sentences(failure, result.detail))
        call, progress = result.call, result.progress
        tasks, failure = result.tasks, result.detail


def act(
    decision: Decision, call: FailedCall, progress: Progress, settings: Settings
) -> End | Again:
    """At most one write to AWS."""
    match decision:
        case Stop(chain, outcome, detail):
            return End(chain, outcome, (), detail)
        case Wait():
            outcome, until = schedule(scheduler_client(), decision, settings)
            return End(decision.chain, outcome, (), sentences(until, decision.detail))
        case Launch():  # pragma: no branch - mypy sees that no other is left
            return start(decision, call, progress, settings)


def start(
    decision: Launch, call: FailedCall, progress: Progress, settings: Settings
) -> End | Again:
    """One RunTask, with the hidden values that it needs: nothing else ever holds them."""
    chain, request, note = decision.chain, decision.request, ""
    secret: dict[str, Any] = {}
    if decision.source is not None:
        clients = (events_client, scheduler_client)
        try:
            proof = recover(decision.asked, decision.source, settings, run_task_shape(), *clients)
        except NotExact as problem:
            stop = give_up(decision, problem)
            return End(stop.chain, stop.outcome, (), stop.detail)
        if isinstance(proof, Unread):
            followed = follow(call, progress, request, Token.UNSENT)
            return Again(*followed, f"The environment's look-up ended in {proof.error}.")
        request = {**request, "tags": [*request["tags"], proof.tag]}
        secret = {"overrides": proof.overrides}
        note = proof.note
    match launch(ecs_client(), {**request, **secret}):
        case Launched(tasks):
            return End(chain, Outcome.LAUNCHED, tasks, sentences(note, decision.detail))
        case Failed(tasks, reasons):
            said = f"ECS answered: {'; '.join(reasons)}."
            return End(chain, Outcome.FAILED_AGAIN, tasks, sentences(note, said, decision.detail))
        case Unseen(tasks, reasons):
            # What its event would have said is decided on here.
            own = unseen(call, progress, request, tasks, reasons, settings)
            said = (
                f"ECS placed {len(tasks)} of {request.get('count', 1)} tasks, and answered: "
                f"{'; '.join(reasons)}. The answer is too large for CloudTrail."
            )
            return Again(own, Progress(), said, tasks)
        case Spent(tasks) if len(tasks) >= request.get("count", 1):
            said = "This attempt was made before."
            return End(
                chain, Outcome.ALREADY_LAUNCHED, tasks, sentences(note, said, decision.detail)
            )
        case Spent(tasks):
            followed = follow(call, progress, request, Token.TAKEN, tasks)
            said = "The attempt's client token was used before, and placed too little."
            return Again(*followed, said, tasks)
        case Unknown(error):  # pragma: no branch - mypy sees that no other is left
            followed = follow(call, progress, request, Token.SENT)
            return Again(*followed, f"RunTask ended in {error}.")


def sentences(*parts: str) -> str:
    """The parts that are there, as one text."""
    return " ".join(filter(None, parts))


def describe(call: FailedCall, caller: Caller, end: End, now: datetime) -> dict[str, Any]:
    """The outcome as the function returns it: names and counts, no value of the user's request."""
    outcome = {
        "outcome": end.outcome,
        "time": write_time(now),
        "job": job_of(call),
        "startedBy": started_by_of(call) or None,
        "caller": {"kind": caller.kind, "role": caller.role},
        "event": call.event_id,
        "origin": end.chain.origin,
        "attempt": end.chain.counter,
        "since": write_time(end.chain.since),
        "cluster": call.parameters.get("cluster") or "default",
        "taskDefinition": call.parameters.get("taskDefinition"),
        "reasons": list(call.reasons),
        "tasks": list(end.tasks),
    }
    detail = sentences(end.detail, missing(call)) if end.outcome.is_dead_letter else end.detail
    return outcome | ({"detail": detail} if detail else {})


def missing(call: FailedCall) -> str:
    """That some tasks of a lost job may run all the same, as far as its last failed call tells."""
    if not call.tasks and call.missing < 2:
        return ""
    return f"Tasks missing: {call.missing}. Others may run; a replay starts the missing ones only."


def report(outcome: dict[str, Any], end: End, function_name: str) -> None:
    """One log line and one metric per invocation."""
    logger.set_correlation_id(end.chain.origin)
    logger.info("outcome", extra=outcome)
    metrics.add_dimension("FunctionName", function_name)
    metrics.add_metric(end.outcome, MetricUnit.Count, 1)
    metrics.add_metric("DeadLetters", MetricUnit.Count, int(end.outcome.is_dead_letter))
    if end.outcome is Outcome.LAUNCHED:
        waited = (datetime.now(UTC) - end.chain.since).total_seconds()
        metrics.add_metric("SecondsToLaunch", MetricUnit.Seconds, waited)
        metrics.add_metric("AttemptsToLaunch", MetricUnit.Count, end.chain.made)
    metrics.flush_metrics()


def pull_others_forward(
    call: FailedCall, launched: Chain, settings: Settings, context: LambdaContext
) -> None:
    """Capacity is back: other pending attempts are made sooner. The launch stands in any case."""
    forwarded, time_left = 0, context.get_remaining_time_in_millis
    metrics.add_dimension("FunctionName", context.function_name)
    try:
        pool = pool_of(call.parameters, settings)
        for _ in pull_forward(forward_client(), launched, pool, settings, time_left):
            forwarded += 1
    except Exception as error:  # noqa: BLE001 - counted: it must not undo the launch
        # Without the error's own words, which may quote a job's request.
        where = traceback.format_tb(error.__traceback__)
        logger.warning("pull forward", extra={"error": name_of(error), "where": where})
        metrics.add_metric("PullForwardErrors", MetricUnit.Count, 1)
    metrics.add_metric("PulledForward", MetricUnit.Count, forwarded)
    metrics.flush_metrics()


def name_of(error: Exception) -> str:
    """The error's code at AWS, or its type."""
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {error.response['Error'].get('Code')}"
    return type(error).__name__


def run_task_shape() -> "StructureShape":
    """RunTask's input in the model of the botocore that sends it."""
    model = ecs_client().meta.service_model.operation_model("RunTask")
    return cast("StructureShape", model.input_shape)


@cache
def ecs_client() -> "ECSClient":
    return boto3.client("ecs", config=launching.CLIENT_CONFIG)


@cache
def events_client() -> "EventBridgeClient":
    return boto3.client("events", config=recovering.CLIENT_CONFIG)


@cache
def forward_client() -> "EventBridgeSchedulerClient":
    return boto3.client("scheduler", config=forwarding.CLIENT_CONFIG)


@cache
def scheduler_client() -> "EventBridgeSchedulerClient":
    return boto3.client("scheduler", config=waiting.CLIENT_CONFIG)
