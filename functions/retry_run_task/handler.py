"""Lambda's entry: read, decide, act, and tell what came of it."""

import logging
import os
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from retry_run_task import launch as launching
from retry_run_task import recover as recovering
from retry_run_task import schedule as scheduling
from retry_run_task.decision import (
    MAX_BUDGET,
    Chain,
    Decision,
    Launch,
    Outcome,
    Stop,
    decide,
    follow,
    give_up,
)
from retry_run_task.failed_call import FailedCall, read_failed_call, write_time
from retry_run_task.launch import Answer, NoEvent, launch
from retry_run_task.recover import recover
from retry_run_task.request import NotExact
from retry_run_task.schedule import schedule
from retry_run_task.settings import Settings

if TYPE_CHECKING:
    from botocore.model import StructureShape
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient

logger = Logger(service="retry-run-task")
metrics = Metrics(namespace="RetryRunTask", service="retry-run-task")
# With the JSON log format, Lambda's own logger also writes what botocore says at level INFO.
logging.getLogger("botocore").setLevel(logging.WARNING)

# How many spent tokens one invocation passes: those of two full budgets, or 40 s of ECS's answers.
# Only the replay of an old dead letter, whose later attempts had failed as well, meets so many.
MOST_ATTEMPTS = 2 * MAX_BUDGET


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A failed call, a due attempt or a replayed dead letter in, its outcome out.

    Raises NotAFailedCall for all else. What AWS rejects escapes as botocore's ClientError: Lambda
    tries the same payload twice more, and then sends it to the failure destination.
    """
    settings = Settings.read(os.environ, context.invoked_function_arn)
    call = read_failed_call(event, settings.account, settings.region)
    chain, answer = retry(call, settings)
    outcome = describe(call, chain, answer)
    report(outcome, chain, context.function_name)
    return outcome


def retry(call: FailedCall, settings: Settings) -> tuple[Chain, Answer]:
    """Decide and act; and again, where the attempt came to nothing that an event would tell."""
    failure: NoEvent | None = None
    for _ in range(MOST_ATTEMPTS):
        decision = decide(call, settings, datetime.now(UTC), run_task_shape())
        if isinstance(decision, Launch) and failure is not None and not failure.spent:
            break  # it is too large to wait in a schedule: Lambda tries the event again
        try:
            answer = act(decision, settings)
        except NotExact as problem:
            stop = give_up(cast("Launch", decision), problem)
            return stop.chain, act(stop, settings)
        except NoEvent as error:
            sent = cast("Launch", decision).request
            call, failure = follow(call, sent, spent=error.spent, tasks=error.tasks), error
        else:
            detail = f"{failure} {answer.detail}".strip() if failure else answer.detail
            return decision.chain, replace(answer, detail=detail)
    raise cast("NoEvent", failure)


def act(decision: Decision, settings: Settings) -> Answer:
    """At most one write to AWS."""
    if isinstance(decision, Stop):
        return Answer(decision.outcome, (), decision.detail)
    if isinstance(decision, Launch):
        return ask(decision, settings)
    answer = schedule(scheduler_client(), decision, settings)
    return replace(answer, detail=" ".join(filter(None, (answer.detail, decision.detail))))


def ask(attempt: Launch, settings: Settings) -> Answer:
    """One RunTask, with the hidden values that it needs: nothing else ever holds them.

    Raises NotExact where they can not be recovered.
    """
    request, note = attempt.request, ""
    if attempt.source is not None:
        request, note = recover(
            request, attempt.source, settings, run_task_shape(), events_client, scheduler_client
        )
    answer = launch(ecs_client(), request)
    return replace(answer, detail=" ".join(filter(None, (note, answer.detail, attempt.detail))))


def describe(call: FailedCall, chain: Chain, answer: Answer) -> dict[str, Any]:
    """The outcome as the function returns it: names and counts, no value of the user's request."""
    outcome = {
        "outcome": answer.outcome,
        "origin": chain.origin,
        "attempt": chain.counter,
        "since": write_time(chain.since),
        "cluster": call.parameters.get("cluster") or "default",
        "taskDefinition": call.parameters.get("taskDefinition"),
        "reasons": list(call.reasons),
        "tasks": list(answer.tasks),
    }
    return outcome | ({"detail": answer.detail} if answer.detail else {})


def report(outcome: dict[str, Any], chain: Chain, function_name: str) -> None:
    """One log line and one metric per invocation."""
    logger.set_correlation_id(chain.origin)
    logger.info("outcome", extra=outcome)
    metrics.add_dimension("FunctionName", function_name)
    metrics.add_metric(outcome["outcome"], MetricUnit.Count, 1)
    metrics.add_metric("DeadLetters", MetricUnit.Count, int(outcome["outcome"].is_dead_letter))
    if outcome["outcome"] is Outcome.LAUNCHED:
        waited = (datetime.now(UTC) - chain.since).total_seconds()
        metrics.add_metric("SecondsToLaunch", MetricUnit.Seconds, waited)
        metrics.add_metric("AttemptsToLaunch", MetricUnit.Count, chain.made)
    metrics.flush_metrics()


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
def scheduler_client() -> "EventBridgeSchedulerClient":
    return boto3.client("scheduler", config=scheduling.CLIENT_CONFIG)
