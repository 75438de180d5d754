"""The function under the template's IAM policy: what it does is allowed, and nothing else is."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from conftest import NOW, enforcing
from rehearsal import ROOT, iam, load_event
from rehearsal.iam import as_list
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task.settings import Settings

HOME = "arn:aws:ecs:eu-west-1:123456789012"
ROLE = "arn:aws:iam::123456789012:role"
NIGHTLY = f"{HOME}:task-definition/nightly:3"
JOBS = f"{HOME}:cluster/jobs"
NARROW = {
    "ClusterArns": f"{JOBS},{HOME}:cluster/default",
    "TaskDefinitionArns": f"{HOME}:task-definition/nightly*:*",
    "PassRoleArns": f"{ROLE}/nightly-*",
}


def allowed(
    stack: Stack, action: str, resource: str, context: Mapping[str, str] | None = None
) -> bool:
    return iam.allowed(stack.policy, action, resource, context)


def can_run(stack: Stack, task_definition: str = NIGHTLY, cluster: str = JOBS) -> bool:
    return allowed(stack, "ecs:RunTask", task_definition, {"ecs:cluster": cluster})


def can_pass(stack: Stack, role: str, service: str = "ecs-tasks.amazonaws.com") -> bool:
    return allowed(stack, "iam:PassRole", role, {"iam:PassedToService": service})


def test_it_may_run_the_tasks_of_its_account_and_region_only(stack: Stack) -> None:
    assert can_run(stack)
    assert not can_run(stack, NIGHTLY.replace("eu-west-1", "eu-west-2"))
    assert not can_run(stack, NIGHTLY.replace("123456789012", "999999999999"))


@pytest.mark.parametrize("task_definition", [NIGHTLY, f"{HOME}:task-definition/nightly"])
@pytest.mark.parametrize(
    "narrowed", ["", "ClusterArns", "PassRoleArns"], ids=["default", "clusters", "roles"]
)
def test_it_may_run_a_task_definition_with_a_revision_and_one_without(
    narrowed: str, task_definition: str
) -> None:
    stack = Stack({narrowed: NARROW[narrowed]} if narrowed else {})
    assert can_run(stack, task_definition)
    (resource,) = (s["Resource"] for s in stack.policy if s["Action"] == "ecs:RunTask")
    # The function takes for its business what the policy allows.
    assert stack.environment["TASK_DEFINITION_ARNS"] == resource
    assert not can_run(stack, task_definition.replace("eu-west-1", "eu-west-2"))
    assert not can_run(stack, task_definition.replace("123456789012", "999999999999"))


def test_it_may_tag_what_a_run_task_call_creates_and_nothing_else(stack: Stack) -> None:
    task, tag = f"{HOME}:task/jobs/0123", "ecs:TagResource"
    assert allowed(stack, tag, task, {"ecs:CreateAction": "RunTask"})
    assert not allowed(stack, tag, task)
    assert not allowed(stack, tag, task, {"ecs:CreateAction": "StartTask"})
    assert not allowed(stack, tag, f"{HOME}:service/jobs/web", {"ecs:CreateAction": "RunTask"})


def test_it_may_pass_the_accounts_roles_to_ecs_only(stack: Stack) -> None:
    assert can_pass(stack, f"{ROLE}/nightly-task")
    assert can_pass(stack, f"{ROLE}/ebs", "ecs.amazonaws.com")
    assert not can_pass(stack, f"{ROLE}/nightly-task", "lambda.amazonaws.com")
    assert not can_pass(stack, "arn:aws:iam::999999999999:role/nightly-task")
    assert not allowed(stack, "iam:PassRole", f"{ROLE}/nightly-task")


def test_it_may_create_schedules_of_its_group_that_can_only_invoke_it(stack: Stack) -> None:
    schedules = "arn:aws:scheduler:eu-west-1:123456789012:schedule"
    group = stack.environment["SCHEDULE_GROUP"]
    assert allowed(stack, "scheduler:CreateSchedule", f"{schedules}/{group}/origin-2")
    assert not allowed(stack, "scheduler:CreateSchedule", f"{schedules}/default/origin-2")
    role = stack.environment["SCHEDULER_ROLE_ARN"]
    assert can_pass(stack, role, "scheduler.amazonaws.com")
    assert not can_pass(stack, f"{ROLE}/nightly-task", "scheduler.amazonaws.com")
    policy = stack.resources["SchedulerPolicy"]["Properties"]
    assert policy["Roles"] == [role.rpartition("/")[2]]
    assert [(s["Action"], s["Resource"]) for s in policy["PolicyDocument"]["Statement"]] == [
        ("lambda:InvokeFunction", stack.function_arn),
        ("sqs:SendMessage", stack.environment["DEAD_LETTER_QUEUE_ARN"]),
    ]
    trust = stack.resources["SchedulerRole"]["Properties"]["AssumeRolePolicyDocument"]
    assert trust["Statement"][0]["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Statement"][0]["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "ArnEquals": {
            "aws:SourceArn": f"arn:aws:scheduler:eu-west-1:123456789012:schedule-group/{group}"
        },
    }


def test_a_narrowed_stack_may_do_no_more_than_it_was_narrowed_to() -> None:
    narrow = Stack(NARROW)
    assert can_run(narrow)
    assert not can_run(narrow, cluster=f"{HOME}:cluster/other")
    assert not can_run(narrow, task_definition=f"{HOME}:task-definition/other:3")
    assert can_pass(narrow, f"{ROLE}/nightly-task")
    assert not can_pass(narrow, f"{ROLE}/admin")


# A list that has * among its elements means all.
LISTS = ["*", "*,{}", "{},*", "{},*,{}", "*,*", "{},*,*,{}", "{}, * , {}", " * "]


@pytest.mark.parametrize("elements", LISTS)
@pytest.mark.parametrize("parameter", NARROW)
def test_a_list_with_a_star_narrows_nothing(parameter: str, elements: str, stack: Stack) -> None:
    given = elements.replace("{}", NARROW[parameter].partition(",")[0])
    all_in_all = Stack({parameter: given})
    # The policy and the environment alike; and still this account and Region only.
    assert all_in_all.resources == stack.resources


@pytest.mark.parametrize("elements", ["{}", "{},{}", " {} ,{}", "{}*", "{}*,{}"])
@pytest.mark.parametrize("parameter", NARROW)
def test_a_star_inside_of_an_element_is_no_star_of_its_own(parameter: str, elements: str) -> None:
    arn = NARROW[parameter].partition(",")[0]
    given = elements.replace("{}", arn)
    narrow, expected = Stack({parameter: given}), given.replace(" ", "").split(",")
    granted = [value for s in narrow.policy for value in (s["Resource"], s.get("Condition"))]
    assert expected in granted or {"ArnLike": {"ecs:cluster": expected}} in granted
    variable = {"ClusterArns": "CLUSTER_ARNS", "TaskDefinitionArns": "TASK_DEFINITION_ARNS"}
    if parameter in variable:
        assert narrow.environment[variable[parameter]] == ",".join(expected)


@pytest.mark.parametrize("parameters", [{}, NARROW], ids=["default", "narrow"])
@pytest.mark.parametrize("cluster", [None, "default", "jobs", JOBS, "other", f"{HOME}:cluster/o"])
@pytest.mark.parametrize("task_definition", ["nightly:3", "nightly", NIGHTLY, "other:1", "other"])
@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_what_the_function_takes_for_its_business_the_policy_allows(
    parameters: dict[str, str], cluster: str | None, task_definition: str, partition: str
) -> None:
    def here(text: str) -> str:
        return text.replace("arn:aws:", f"arn:{partition}:")

    stack = Stack({k: here(v) for k, v in parameters.items()}, partition=partition)
    settings = Settings.read(stack.environment, stack.function_arn)
    cluster = cluster and here(cluster)
    covered = settings.covers(cluster, here(task_definition))
    # The revision that ECS takes for a family without one could be any.
    family = task_definition.rpartition("/")[2]
    revision = family if ":" in family else f"{family}:123"
    name = (cluster or "default").rpartition("/")[2]
    assert covered is can_run(
        stack, here(f"{HOME}:task-definition/{revision}"), here(f"{HOME}:cluster/{name}")
    )


@pytest.mark.parametrize(
    "action",
    [
        "ecs:StopTask",
        "ecs:StartTask",
        "ecs:RegisterTaskDefinition",
        "ecs:UpdateService",
        "ecs:ExecuteCommand",
        "iam:CreateRole",
        "iam:AttachRolePolicy",
        "sts:AssumeRole",
        "s3:GetObject",
        "events:PutRule",
        "events:StartReplay",
        "sns:Publish",
        "sqs:SendMessage",
        "lambda:InvokeFunction",
        "scheduler:DeleteSchedule",
        "logs:DeleteLogGroup",
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
    ],
)
def test_it_may_do_nothing_else(action: str, stack: Stack) -> None:
    context = {
        "ecs:cluster": JOBS,
        "ecs:CreateAction": "RunTask",
        "iam:PassedToService": "ecs-tasks.amazonaws.com",
    }
    resources = [r for statement in stack.policy for r in as_list(statement["Resource"])]
    assert not any(allowed(stack, action, resource, context) for resource in resources)


# IAM knows no resources for these (Service Authorization Reference: EventBridge, Scheduler).
FOR_ALL_RESOURCES = {
    "events:ListEventBuses",
    "events:ListRuleNamesByTarget",
    "scheduler:ListSchedules",
}


def test_no_action_and_no_whole_resource_is_a_wildcard(stack: Stack) -> None:
    for statement in stack.policy:
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in as_list(statement["Action"]))
        if "*" in as_list(statement["Resource"]):
            assert set(as_list(statement["Action"])) <= FOR_ALL_RESOURCES
    assert "ManagedPolicyArns" not in stack.resources["RetryRunTaskRole"]["Properties"]


def test_every_call_that_the_code_makes_is_allowed(stack: Stack) -> None:
    clients = {"ecs", "events", "scheduler"}
    calls = {
        f"{node.func.value.id}:{operation_of(node, node.func.attr)}"
        for path in (ROOT / "functions").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in clients
    }
    assert len(calls) == 8
    actions = {action for s in stack.policy for action in as_list(s["Action"])}
    # Beside them: what AWS does with the function's role.
    assert actions - calls == {
        "ecs:TagResource",
        "events:PutEvents",
        "iam:PassRole",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }
    assert calls <= actions


def operation_of(call: ast.Call, method: str) -> str:
    """The operation that a client's method stands for, or the one that a paginator is for."""
    if method == "get_paginator":
        method = ast.literal_eval(call.args[0])
    return "".join(word.title() for word in method.split("_"))


@pytest.fixture
def enforced() -> Iterator[World]:
    """An account in which moto enforces IAM on a caller with the template's actions.

    moto knows neither the resources nor the conditions of a statement on ECS (`access_control.py`:
    "TODO add support for the Resource and Condition parts"): they are checked directly, above.
    """
    with World(Stack(), NOW) as world, enforcing(world.stack.policy):
        yield world


def test_it_may_read_who_made_a_call_in_its_account_and_region_only(stack: Stack) -> None:
    for service, resource in (("events", "rule/bus/nightly"), ("scheduler", "schedule/g/nightly")):
        action = {"events": "events:ListTargetsByRule", "scheduler": "scheduler:GetSchedule"}[
            service
        ]
        assert allowed(stack, action, f"arn:aws:{service}:eu-west-1:123456789012:{resource}")
        assert not allowed(stack, action, f"arn:aws:{service}:eu-west-2:123456789012:{resource}")
        assert not allowed(stack, action, f"arn:aws:{service}:eu-west-1:999999999999:{resource}")


def test_it_may_change_its_own_pending_attempts_and_no_other_schedule(stack: Stack) -> None:
    own = f"arn:aws:scheduler:eu-west-1:123456789012:schedule/{stack.environment['SCHEDULE_GROUP']}"
    off = Stack({"PullForward": "false", "RecoverHiddenEnvironment": "false"})
    only_looks_up = Stack({"PullForward": "false"})
    for action in ("scheduler:GetSchedule", "scheduler:UpdateSchedule"):
        assert allowed(stack, action, f"{own}/attempt")
        assert not allowed(off, action, f"{own}/attempt")
    assert allowed(Stack({"RecoverHiddenEnvironment": "false"}), "scheduler:ListSchedules", "*")
    assert not allowed(off, "scheduler:ListSchedules", "*")
    theirs = "arn:aws:scheduler:eu-west-1:123456789012:schedule/default/nightly"
    assert not allowed(stack, "scheduler:UpdateSchedule", theirs)
    assert not allowed(only_looks_up, "scheduler:UpdateSchedule", f"{own}/attempt")


def test_the_function_works_under_its_policy(enforced: World) -> None:
    outcome = enforced.call_handler(load_event("launched.fargate-capacity-rule"))
    assert outcome["outcome"] == "LAUNCHED"
    outcome = enforced.call_handler(load_event("launched.second-attempt"))
    assert outcome["outcome"] == "SCHEDULED"


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("stop_task", {"task": "0123"}),
        ("list_tasks", {}),
        ("register_task_definition", {"family": "x", "containerDefinitions": []}),
    ],
)
def test_nothing_else_works_under_its_policy(
    operation: str, arguments: dict[str, Any], enforced: World
) -> None:
    del enforced
    with pytest.raises(ClientError, match="AccessDenied"):
        getattr(boto3.client("ecs"), operation)(**arguments)
