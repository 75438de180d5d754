"""Settings: read once from the environment, and what they are narrowed to."""

from datetime import timedelta
from typing import Any

import pytest

from rehearsal.template import Stack
from retry_run_task.settings import BadSetting, Callers, Settings

HOME = "arn:aws:ecs:eu-west-1:123456789012"


def settings(**parameters: str) -> Settings:
    stack = Stack(parameters)
    return Settings.read(stack.environment, stack.function_arn)


def test_the_templates_defaults_are_read() -> None:
    assert settings() == Settings(
        partition="aws",
        region="eu-west-1",
        account="123456789012",
        function_name="retry-run-task-RetryRunTask",
        role_name="retry-run-task-RetryRunTaskRole",
        callers=Callers.UNATTENDED,
        max_attempts=10,
        max_age=None,
        backoff_base=timedelta(seconds=60),
        backoff_cap=timedelta(seconds=900),
        retry_partial_failures=False,
        recover_hidden_environment=True,
        pull_forward=True,
        cluster_arns=(f"{HOME}:cluster/*",),
        task_definition_arns=(f"{HOME}:task-definition/*",),
        schedule_group="retry-run-task-0dab496a1766592fb391cd9200b71b74",
        scheduler_role_arn="arn:aws:iam::123456789012:role/retry-run-task-SchedulerRole",
        dead_letter_queue_arn="arn:aws:sqs:eu-west-1:123456789012:retry-run-task-DeadLetterQueue",
    )


def test_an_alias_does_not_change_who_the_function_is() -> None:
    stack = Stack()
    aliased = Settings.read(stack.environment, f"{stack.function_arn}:live")
    assert aliased.function_name == "retry-run-task-RetryRunTask"
    assert aliased.function_arn == stack.function_arn


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FUNCTION_ROLE_NAME", ""),
        ("CALLERS", None),
        ("CALLERS", "scheduled"),
        ("MAX_ATTEMPTS", None),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_ATTEMPTS", "101"),
        ("MAX_ATTEMPTS", "ten"),
        ("MAX_ATTEMPTS", "1" * 5000),
        ("BACKOFF_BASE_SECONDS", "59"),
        ("BACKOFF_CAP_SECONDS", "59"),
        ("MAX_AGE_MINUTES", "-1"),
        ("SCHEDULE_GROUP", ""),
        ("SCHEDULER_ROLE_ARN", None),
        ("RETRY_PARTIAL_FAILURES", "yes"),
        ("RECOVER_HIDDEN_ENVIRONMENT", ""),
        ("CLUSTER_ARNS", ""),
        ("CLUSTER_ARNS", "jobs"),
        ("TASK_DEFINITION_ARNS", None),
    ],
)
def test_a_bad_setting_is_named(variable: str, value: str | None) -> None:
    stack = Stack()
    environment = {key: v for key, v in stack.environment.items() if key != variable}
    if value is not None:
        environment[variable] = value
    with pytest.raises(BadSetting, match=f"^{variable} is "):
        Settings.read(environment, stack.function_arn)


@pytest.mark.parametrize(
    ("parameters", "cluster", "task_definition", "covered"),
    [
        ({}, None, "nightly", True),
        ({}, "jobs", "nightly:3", True),
        ({}, f"{HOME}:cluster/jobs", f"{HOME}:task-definition/nightly:3", True),
        ({}, "arn:aws:ecs:eu-west-2:123456789012:cluster/jobs", "nightly", False),
        ({}, "jobs", "arn:aws:ecs:eu-west-1:999999999999:task-definition/nightly:3", False),
        ({"ClusterArns": f"{HOME}:cluster/default"}, None, "nightly", True),
        ({"ClusterArns": f"{HOME}:cluster/jobs"}, None, "nightly", False),
        ({"ClusterArns": f"{HOME}:cluster/jobs"}, "jobs", "nightly", True),
        ({"ClusterArns": f"{HOME}:cluster/jobs"}, "jobs2", "nightly", False),
        ({"ClusterArns": f"{HOME}:cluster/job?"}, f"{HOME}:cluster/jobs", "nightly", True),
        ({"ClusterArns": f"{HOME}:cluster/a,{HOME}:cluster/b"}, "b", "nightly", True),
        ({"TaskDefinitionArns": f"{HOME}:task-definition/night*:*"}, None, "nightly", True),
        ({"TaskDefinitionArns": f"{HOME}:task-definition/night*:*"}, None, "nightly:3", True),
        ({"TaskDefinitionArns": f"{HOME}:task-definition/night*"}, None, "nightly:3", True),
        ({"TaskDefinitionArns": f"{HOME}:task-definition/other:*"}, None, "nightly:3", False),
        ({"TaskDefinitionArns": f"{HOME}:task-definition/nightly:3"}, None, "nightly:3", True),
        ({"TaskDefinitionArns": f"{HOME}:task-definition/nightly:3"}, None, "nightly:33", False),
        # Which revision is the latest is known to ECS alone.
        ({"TaskDefinitionArns": f"{HOME}:task-definition/nightly:3"}, None, "nightly", False),
        (
            {"TaskDefinitionArns": f"{HOME}:task-definition/nightly:*"},
            None,
            f"{HOME}:task-definition/nightly",
            True,
        ),
        # Not names at all: the request's own check reports them.
        ({"ClusterArns": f"{HOME}:cluster/jobs"}, ["jobs"], "nightly", True),
        ({"ClusterArns": f"{HOME}:cluster/jobs"}, "other", None, True),
    ],
)
def test_a_stack_covers_what_it_was_narrowed_to(
    parameters: dict[str, str], cluster: Any, task_definition: Any, covered: bool
) -> None:
    assert settings(**parameters).covers(cluster, task_definition) is covered


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov"])
def test_the_defaults_work_in_every_partition(partition: str) -> None:
    stack = Stack(partition=partition, region="x-north-1")
    here = Settings.read(stack.environment, stack.function_arn)
    assert here.covers(f"arn:{partition}:ecs:x-north-1:123456789012:cluster/jobs", "nightly")
    assert not here.covers("arn:aws:ecs:x-north-1:123456789012:cluster/jobs", "nightly")
