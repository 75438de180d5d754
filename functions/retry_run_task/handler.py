"""Lambda's entry: read, decide, act, and tell what came of it."""

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
from retry_run_task import schedule as scheduling
from retry_run_task.decision import Chain, Decision, Launch, Outcome, Stop, Wait, decide, follow
from retry_run_task.failed_call import FailedCall, read_failed_call, write_time
from retry_run_task.launch import Answer, NoEvent, launch
from retry_run_task.schedule import schedule
from retry_run_task.settings import Settings

if TYPE_CHECKING:
    from botocore.model import StructureShape
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient

logger = Logger(service="retry-run-task")
metrics = Metrics(namespace="RetryRunTask", service="retry-run-task")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A failed call or a due attempt in, its outcome out. Raises NotAFailedCall for all else.

    What AWS rejects escapes as botocore's ClientError: Lambda tries the same payload twice more.
    """
    settings = Settings.read(os.environ, context.invoked_function_arn)
    call = read_failed_call(event, settings.account, settings.region)
    chain, answer = retry(call, settings)
    outcome = describe(call, chain, answer)
    report(outcome, chain, context.function_name)
    return outcome


def retry(call: FailedCall, settings: Settings) -> tuple[Chain, Answer]:
    """Decide and act; and once more, where the attempt came to nothing that an event would tell."""
    decision = decide(call, settings, datetime.now(UTC), run_task_shape())
    try:
        return decision.chain, act(decision, settings)
    except NoEvent as failure:
        follow_up = follow(call, cast("Launch", decision).request, answered=failure.answered)
        decision = decide(follow_up, settings, datetime.now(UTC), run_task_shape())
        if isinstance(decision, Launch):
            raise  # it is too large to wait in a schedule: Lambda tries the event again
        answer = act(decision, settings)
        return decision.chain, replace(answer, detail=f"{failure} {answer.detail}")


def act(decision: Decision, settings: Settings) -> Answer:
    """At most one write to AWS."""
    match decision:
        case Stop(_, outcome, detail):
            return Answer(outcome, (), detail)
        case Launch():
            answer = launch(ecs_client(), decision.request)
        case Wait():
            answer = schedule(scheduler_client(), decision, settings)
    return replace(answer, detail=" ".join(filter(None, (answer.detail, decision.detail))))


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
    if outcome["outcome"] == Outcome.LAUNCHED:
        waited = (datetime.now(UTC) - chain.since).total_seconds()
        metrics.add_metric("SecondsToLaunch", MetricUnit.Seconds, waited)
    metrics.flush_metrics()


def run_task_shape() -> "StructureShape":
    """RunTask's input in the model of the botocore that sends it."""
    model = ecs_client().meta.service_model.operation_model("RunTask")
    return cast("StructureShape", model.input_shape)


@cache
def ecs_client() -> "ECSClient":
    return boto3.client("ecs", config=launching.CLIENT_CONFIG)


@cache
def scheduler_client() -> "EventBridgeSchedulerClient":
    return boto3.client("scheduler", config=scheduling.CLIENT_CONFIG)
