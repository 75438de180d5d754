"""Act: one RunTask call, and what ECS made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.config import Config

from retry_run_task.decision import Outcome
from retry_run_task.failed_call import reasons_of

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient

# Three tries of 3 + 12 s and the waits between them (at most 1 + 2 s) end before the function's
# timeout of 60 s. RunTask answers within a few seconds; a try that timed out after it took effect
# is safe to repeat, because it carries the same client token.
CLIENT_CONFIG = Config(
    connect_timeout=3, read_timeout=12, retries={"mode": "standard", "total_max_attempts": 3}
)


class TokenSpent(Exception):
    """The attempt's client token belongs to an earlier call that launched nothing."""


class NoReason(Exception):
    """ECS neither placed every task nor said why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt; `tasks` are the ARNs of what runs because of it."""

    outcome: Outcome
    tasks: tuple[str, ...] = ()
    detail: str = ""


def launch(ecs: "ECSClient", request: Mapping[str, Any]) -> Answer:
    """Send the request to ECS.

    Raises TokenSpent where the token was used up by a failure, and botocore's ClientError for
    whatever else ECS rejects. Raises NoReason for an answer that leads nowhere.
    """
    try:
        response = ecs.run_task(**request)
    except ecs.exceptions.ConflictException as conflict:
        # The token was used with other parameters, tags included; `resourceIds` are the tasks that
        # it is bound to (ConflictException in the ECS API reference).
        bound: list[str] = conflict.response.get("resourceIds") or []  # type: ignore[assignment]
        if not bound:
            raise TokenSpent from conflict
        return Answer(Outcome.ALREADY_LAUNCHED, tuple(bound), "This attempt was made before.")
    tasks = tuple(task["taskArn"] for task in response["tasks"])
    if len(tasks) >= request.get("count", 1):
        return Answer(Outcome.LAUNCHED, tasks)
    if not response["failures"]:
        # The rule sees failures only: unless this invocation fails, the chain ends here unseen.
        raise NoReason(f"ECS placed {len(tasks)} tasks of the attempt and gave no reason.")
    reasons = reasons_of(response["failures"])  # type: ignore[arg-type]
    return Answer(Outcome.FAILED_AGAIN, tasks, f"ECS answered: {'; '.join(reasons)}.")
