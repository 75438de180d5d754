"""Act: one RunTask call, and what ECS made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from botocore.config import Config
from botocore.exceptions import ClientError

from retry_run_task.decision import Outcome
from retry_run_task.failed_call import reasons_of

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient

# Three tries of 3 + 12 s and the waits between them (at most 1 + 2 s): RunTask answers within a few
# seconds. A try that timed out after it took effect is safe to repeat, by its client token.
CLIENT_CONFIG = Config(
    connect_timeout=3, read_timeout=12, retries={"mode": "standard", "total_max_attempts": 3}
)


# Errors that pass: server errors; throttles of ECS, and of EC2 behind it, in which only the message
# tells (dagster#33439, dask-cloudprovider#56); the limit of tasks in provisioning.
TRANSIENT = ("ServerException", "ThrottlingException", "Throttling", "RequestLimitExceeded")
TRANSIENT_MESSAGES = (
    "Tasks provisioning capacity limit exceeded",
    "Rate exceeded",
    "RequestLimitExceeded",
)


class NoEvent(Exception):
    """The attempt came to nothing, and no failure event of its own will continue the chain.

    `spent` says whether its client token is known to be bound to a failure, and `tasks` which tasks
    that call did place.
    """

    def __init__(self, why: str, *, spent: bool, tasks: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.spent = spent
        self.tasks = tasks


class NoReason(Exception):
    """ECS neither placed every task nor said why: the rule would not see that call's event."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt; `tasks` are the ARNs of what runs because of it."""

    outcome: Outcome
    tasks: tuple[str, ...] = ()
    detail: str = ""


def launch(ecs: "ECSClient", request: Mapping[str, Any]) -> Answer:
    """Send the request to ECS.

    Raises NoEvent for errors that pass, NoReason for an answer that leads nowhere, and botocore's
    ClientError for whatever else ECS rejects.
    """
    try:
        response = ecs.run_task(**request)
    except ecs.exceptions.ConflictException as conflict:
        # The token was used with other parameters, tags included; `resourceIds` are the tasks that
        # it is bound to (ConflictException in the ECS API reference).
        bound = tuple(cast("list[str]", conflict.response.get("resourceIds") or []))
        if len(bound) < request.get("count", 1):
            problem = "The attempt's token was spent on a failure."
            raise NoEvent(problem, spent=True, tasks=bound) from conflict
        return Answer(Outcome.ALREADY_LAUNCHED, bound, "This attempt was made before.")
    except ClientError as error:
        if _is_transient(error):
            code = error.response["Error"]["Code"]
            raise NoEvent(f"ECS answered with {code}.", spent=False) from error
        raise
    tasks = tuple(task["taskArn"] for task in response["tasks"])
    if len(tasks) >= request.get("count", 1):
        return Answer(Outcome.LAUNCHED, tasks)
    if not any(failure.get("reason") for failure in response["failures"]):
        raise NoReason(f"ECS placed {len(tasks)} tasks of the attempt and gave no reason.")
    reasons = reasons_of(response["failures"])  # type: ignore[arg-type]
    return Answer(Outcome.FAILED_AGAIN, tasks, f"ECS answered: {'; '.join(reasons)}.")


def _is_transient(error: ClientError) -> bool:
    details = error.response["Error"]
    if details["Code"] in TRANSIENT:
        return True
    kinds = ("ClientException", "InvalidParameterException")
    return details["Code"] in kinds and any(m in details["Message"] for m in TRANSIENT_MESSAGES)
