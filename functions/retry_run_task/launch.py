"""Act: one RunTask call, and what ECS made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

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


class NoReason(Exception):
    """ECS neither placed every task nor said why: the rule would not see that call's event."""


class NotSent(Exception):
    """botocore refuses to send the request. Its own exception would show values of it."""


@dataclass(frozen=True, slots=True)
class Launched:
    """ECS placed every task asked for: their ARNs."""

    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """ECS placed fewer tasks than asked for; the event of this call continues the chain."""

    tasks: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spent:
    """The client token was used before, by another request, which placed these tasks or none."""

    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """An error that passes: ECS may have acted on the call or not, and no event says so."""

    code: str


Result = Launched | Failed | Spent | Unknown


def launch(ecs: "ECSClient", request: Mapping[str, Any]) -> Result:
    """Send the request to ECS.

    Raises NoReason for an answer that leads nowhere, NotSent where botocore refuses the request,
    and botocore's ClientError for whatever else ECS rejects.
    """
    try:
        response = ecs.run_task(**request)
    except ecs.exceptions.ConflictException as conflict:
        # `resourceIds` are the tasks that the token is bound to (ConflictException in the ECS API
        # reference). What it holds for a call that placed nothing is a guess: nothing.
        bound: Any = conflict.response.get("resourceIds") or []
        return Spent(tuple(bound))
    except ParamValidationError:
        # The request was checked against the same model: this is a bug, and not the job's.
        raise NotSent("botocore refuses the request of this attempt; nothing was sent.") from None
    except ClientError as error:
        if _is_transient(error):
            return Unknown(error.response["Error"]["Code"])
        raise
    tasks = tuple(task["taskArn"] for task in response["tasks"])
    if len(tasks) >= request.get("count", 1):
        return Launched(tasks)
    if not any(failure.get("reason") for failure in response["failures"]):
        raise NoReason(f"ECS placed {len(tasks)} tasks of the attempt and gave no reason.")
    return Failed(tasks, reasons_of(response["failures"]))


def _is_transient(error: ClientError) -> bool:
    details = error.response["Error"]
    if details["Code"] in TRANSIENT:
        return True
    kinds = ("ClientException", "InvalidParameterException")
    return details["Code"] in kinds and any(m in details["Message"] for m in TRANSIENT_MESSAGES)
