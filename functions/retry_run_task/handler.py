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

from retry_run_task.decision import Chain, Outcome, Stop, decide
from retry_run_task.failed_call import FailedCall, read_failed_call, write_time
from retry_run_task.launch import CLIENT_CONFIG, Answer, TokenSpent, launch
from retry_run_task.settings import Settings

if TYPE_CHECKING:
    from botocore.model import StructureShape
    from mypy_boto3_ecs import ECSClient

logger = Logger(service="retry-run-task")
metrics = Metrics(namespace="RetryRunTask", service="retry-run-task")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """One failed call in, its outcome out. Raises NotAFailedCall for any other payload.

    What ECS rejects escapes as botocore's ClientError: Lambda tries the same event twice more.
    """
    settings = Settings.read(os.environ, context.invoked_function_arn)
    call = read_failed_call(event, settings.account, settings.region)
    chain, answer = retry(call, settings, ecs_client())
    outcome = describe(call, chain, answer)
    report(outcome, chain, context.function_name)
    return outcome


def retry(call: FailedCall, settings: Settings, ecs: "ECSClient") -> tuple[Chain, Answer]:
    """Decide and act."""
    model = ecs.meta.service_model.operation_model("RunTask")
    run_task = cast("StructureShape", model.input_shape)
    while True:
        decision = decide(call, settings, datetime.now(UTC), run_task)
        if isinstance(decision, Stop):
            return decision.chain, Answer(decision.outcome, (), decision.detail)
        try:
            answer = launch(ecs, decision.request)
        except TokenSpent:
            # The attempt has failed before, and its own event may have come and gone: go on as
            # that event would. Every turn counts the attempt up, so the budget ends this.
            call = replace(call, parameters=decision.request, placed=0, replay_name=None)
        else:
            details = " ".join(filter(None, (answer.detail, decision.detail)))
            return decision.chain, replace(answer, detail=details)


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


@cache
def ecs_client() -> "ECSClient":
    return boto3.client("ecs", config=CLIENT_CONFIG)
