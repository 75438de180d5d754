"""Act: one RunTask call, and what ECS made of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from retry_run_task.failed_call import reasons_of
from retry_run_task.transient import transient

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient

# One try of 3 + 12 s: RunTask answers within a few seconds. In a storm, the SDK's own tries would
# multiply the calls that ECS throttles; the next attempt, a minute or more later, is spread.
CLIENT_CONFIG = Config(
    connect_timeout=3, read_timeout=12, retries={"mode": "standard", "total_max_attempts": 1}
)

# CloudTrail omits an answer above 100 KB from its record (CloudTrail user guide, "Record contents",
# `responseElements`), in a form of its own, which may take more bytes than this one (a guess).
MOST_SHOWN = 90_000


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
class Unseen:
    """As Failed, but the rule cannot see it: the answer is too large for CloudTrail."""

    tasks: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spent:
    """The client token was used before, by another request, which placed these tasks or none."""

    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """An error that passes: ECS may have acted on the call or not, and no event says so."""

    error: str


Result = Launched | Failed | Unseen | Spent | Unknown


def launch(ecs: "ECSClient", request: Mapping[str, Any]) -> Result:
    """Send the request to ECS.

    Raises NoReason for an answer that leads nowhere, NotSent where botocore refuses the request,
    and what ECS rejects, as botocore's ClientError, where that does not pass by itself.
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
    except (ClientError, BotoCoreError) as error:
        name = transient(error)
        if name is None:
            raise
        return Unknown(name)
    tasks = tuple(task["taskArn"] for task in response["tasks"])
    if len(tasks) >= request.get("count", 1):
        return Launched(tasks)
    if not any(failure.get("reason") for failure in response["failures"]):
        raise NoReason(f"ECS placed {len(tasks)} tasks of the attempt and gave no reason.")
    answer = {key: value for key, value in response.items() if key != "ResponseMetadata"}
    is_shown = len(json.dumps(answer, default=str).encode()) <= MOST_SHOWN
    return (Failed if is_shown else Unseen)(tasks, reasons_of(response["failures"]))
