"""What the stack's owner chose, read once from the function's environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Self


class Callers(StrEnum):
    """Whose failed calls are retried, where the job's own tag does not say otherwise."""

    SCHEDULED = "SCHEDULED"
    UNATTENDED = "UNATTENDED"
    ALL = "ALL"


class BadSetting(ValueError):
    """The stack was deployed with a value that the function cannot use."""

    def __init__(self, variable: str, value: str | None, rule: str) -> None:
        super().__init__(
            f"{variable} is {value!r}, but {rule}. Nothing was launched. "
            "The template sets this variable from the stack's parameters: deploy it again."
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """The function's own identity, and the parameters of its stack.

    `cluster_arns` and `task_definition_arns` are ARN patterns with the wildcards of IAM (`*`, `?`):
    the same values that the function's policy is narrowed to. `max_age` is None for no limit.
    """

    partition: str
    region: str
    account: str
    function_name: str
    role_name: str
    callers: Callers
    max_attempts: int
    max_age: timedelta | None
    backoff_base: timedelta
    backoff_cap: timedelta
    retry_partial_failures: bool
    recover_hidden_environment: bool
    pull_forward: bool
    cluster_arns: tuple[str, ...]
    task_definition_arns: tuple[str, ...]
    schedule_group: str
    scheduler_role_arn: str
    dead_letter_queue_arn: str

    @property
    def function_arn(self) -> str:
        """The function itself, without an alias."""
        return (
            f"arn:{self.partition}:lambda:{self.region}:{self.account}"
            f":function:{self.function_name}"
        )

    @property
    def session_arn(self) -> str:
        """The identity of this function's own calls, as CloudTrail's `userIdentity.arn` has it.

        Lambda names a role's session after the function (seen in every record of such a call).
        """
        session = f"assumed-role/{self.role_name}/{self.function_name}"
        return f"arn:{self.partition}:sts::{self.account}:{session}"

    @classmethod
    def read(cls, environ: Mapping[str, str], function_arn: str) -> Self:
        """Settings from the variables that the template sets, and from the ARN that was invoked.

        Raises BadSetting, naming the variable, where one is missing or out of bounds.
        """
        _, partition, _, region, account, _, function_name = function_arn.split(":")[:7]
        return cls(
            partition=partition,
            region=region,
            account=account,
            function_name=function_name,
            role_name=_text(environ, "FUNCTION_ROLE_NAME"),
            callers=_callers(environ),
            max_attempts=_number(environ, "MAX_ATTEMPTS", 1, 100),
            max_age=timedelta(minutes=_number(environ, "MAX_AGE_MINUTES", 0, 525600)) or None,
            backoff_base=timedelta(seconds=_number(environ, "BACKOFF_BASE_SECONDS", 60, 86400)),
            backoff_cap=timedelta(seconds=_number(environ, "BACKOFF_CAP_SECONDS", 60, 86400)),
            retry_partial_failures=_flag(environ, "RETRY_PARTIAL_FAILURES"),
            recover_hidden_environment=_flag(environ, "RECOVER_HIDDEN_ENVIRONMENT"),
            pull_forward=_flag(environ, "PULL_FORWARD"),
            cluster_arns=_patterns(environ, "CLUSTER_ARNS"),
            task_definition_arns=_patterns(environ, "TASK_DEFINITION_ARNS"),
            schedule_group=_text(environ, "SCHEDULE_GROUP"),
            scheduler_role_arn=_text(environ, "SCHEDULER_ROLE_ARN"),
            dead_letter_queue_arn=_text(environ, "DEAD_LETTER_QUEUE_ARN"),
        )

    def covers(self, cluster: object, task_definition: object) -> bool:
        """Is a call to this cluster and task definition the stack's business?

        Both may be an ARN or a short name, and the cluster may be absent (`default`), as RunTask
        takes them. A family without a revision is covered by patterns for all its revisions only:
        which one ECS takes is known to ECS alone. What names nothing is not judged here: the
        request's own check reports it.
        """
        if not isinstance(task_definition, str):
            return True
        if ":" not in task_definition.rpartition("/")[2]:
            task_definition += ":*"
        if not _matches(self.arn("task-definition", task_definition), self.task_definition_arns):
            return False
        if not isinstance(cluster, str | None):
            return True
        return _matches(self.arn("cluster", cluster or "default"), self.cluster_arns)

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a `cluster` or `task-definition`: RunTask takes short names as well."""
        if name.startswith("arn:"):
            return name
        return f"arn:{self.partition}:ecs:{self.region}:{self.account}:{kind}/{name}"


def _matches(arn: str, patterns: tuple[str, ...]) -> bool:
    """Does one of the patterns match the whole ARN? `*` is any text and `?` any one character."""
    for pattern in patterns:
        regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(regex, arn, re.DOTALL):
            return True
    return False


def _number(environ: Mapping[str, str], variable: str, low: int, high: int) -> int:
    text = environ.get(variable)
    if text is None or not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise BadSetting(variable, text, f"must be a whole number from {low} to {high}")
    return int(text)


def _text(environ: Mapping[str, str], variable: str) -> str:
    text = environ.get(variable)
    if not text:
        raise BadSetting(variable, text, "must not be empty")
    return text


def _callers(environ: Mapping[str, str]) -> Callers:
    text = environ.get("CALLERS")
    if text not in list(Callers):
        raise BadSetting("CALLERS", text, f"must be one of {', '.join(Callers)}")
    return Callers(text)


def _flag(environ: Mapping[str, str], variable: str) -> bool:
    text = environ.get(variable)
    if text not in ("true", "false"):
        raise BadSetting(variable, text, "must be true or false")
    return text == "true"


def _patterns(environ: Mapping[str, str], variable: str) -> tuple[str, ...]:
    text = environ.get(variable)
    patterns = tuple((text or "").split(","))
    if not all(pattern.startswith("arn:") for pattern in patterns):
        raise BadSetting(variable, text, "must be a comma-separated list of ARN patterns")
    return patterns
