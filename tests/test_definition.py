"""The request that a target makes: of rules, of schedules, and of Scheduler's universal target."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import botocore.session
import pytest
from botocore.model import StructureShape

from conftest import NOW
from rehearsal import EVENTS, load_definitions, load_event
from rehearsal.callers import parameters_of, rule, schedule
from rehearsal.cloudtrail import hide_environment
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task.definition import (
    UNIVERSAL,
    Definition,
    checksum_of,
    due_of,
    request_of,
    task_of,
    title_of,
)
from retry_run_task.request import AnyText, NotExact

ARN = "arn:aws:events:eu-west-1:123456789012:rule/nightly"
SCHEDULE_ARN = "arn:aws:scheduler:eu-west-1:123456789012:schedule/default/nightly"
CLUSTER = "arn:aws:ecs:eu-west-1:123456789012:cluster/jobs"
TASK = "arn:aws:ecs:eu-west-1:123456789012:task-definition/nightly:7"
ENVIRONMENT = [{"name": "A", "value": "1"}]


def shape(service: str) -> StructureShape:
    model = botocore.session.get_session().get_service_model(service)
    return cast("StructureShape", model.shape_for("Target"))


def by_rule(parameters: Any = None, **target: Any) -> Definition:
    ecs = {"TaskDefinitionArn": TASK, **(parameters or {})}
    return Definition(
        ARN, {"Id": "1", "Arn": CLUSTER, "EcsParameters": ecs, **target}, shape("events")
    )


def by_schedule(parameters: Any = None, **target: Any) -> Definition:
    ecs = {"TaskDefinitionArn": TASK, **(parameters or {})}
    whole = {"Arn": CLUSTER, "RoleArn": "arn:aws:iam::1:role/r", "EcsParameters": ecs, **target}
    return Definition(SCHEDULE_ARN, whole, shape("scheduler"), {"State": "ENABLED"})


def universal(request: Any) -> Definition:
    text = request if isinstance(request, str) else json.dumps(request)
    target = {"Arn": f"arn:aws{UNIVERSAL}", "RoleArn": "arn:aws:iam::1:role/r", "Input": text}
    return Definition(SCHEDULE_ARN, target, shape("scheduler"), {"State": "ENABLED"})


@pytest.mark.parametrize(
    "path", sorted((EVENTS / "definitions").glob("*.json")), ids=lambda p: p.stem
)
def test_each_file_of_definitions_holds_the_one_that_made_the_call(
    path: Any, run_task: StructureShape
) -> None:
    definitions = load_definitions(path.stem)
    shown = load_event(path.stem)["detail"]["requestParameters"]
    with World(Stack(), NOW, definitions=definitions):
        found = [rule(r["Name"], r["EventBusName"]) for r in definitions["Rules"]]
        found += [schedule(s["Name"], s["GroupName"]) for s in definitions["Schedules"]]
    if path.stem == "not-replayable.environment-is-text":
        with pytest.raises(
            NotExact, match=r"^Input.containerOverrides\[0\].environment is not a list"
        ):
            request_of(found[0], run_task)
        return
    made = [hide_environment(parameters_of(definition, run_task)) for definition in found]
    assert shown in made


# Each member of the two services, by its name in RunTask.

VPC = {"Subnets": ["subnet-1"], "SecurityGroups": ["sg-1"], "AssignPublicIp": "ENABLED"}
COMMON: dict[str, tuple[Any, dict[str, Any]]] = {
    "TaskCount": (3, {"count": 3}),
    "LaunchType": ("FARGATE", {"launchType": "FARGATE"}),
    "NetworkConfiguration": (
        {"awsvpcConfiguration": VPC},
        {
            "networkConfiguration": {
                "awsvpcConfiguration": {
                    "subnets": ["subnet-1"],
                    "securityGroups": ["sg-1"],
                    "assignPublicIp": "ENABLED",
                }
            }
        },
    ),
    "PlatformVersion": ("LATEST", {"platformVersion": "LATEST"}),
    "Group": ("nightly", {"group": "nightly"}),
    "CapacityProviderStrategy": (
        [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}],
        {
            "capacityProviderStrategy": [
                {"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}
            ]
        },
    ),
    "EnableECSManagedTags": (True, {"enableECSManagedTags": True}),
    "EnableExecuteCommand": (False, {"enableExecuteCommand": False}),
    "PlacementConstraints": (
        [{"type": "distinctInstance"}],
        {"placementConstraints": [{"type": "distinctInstance"}]},
    ),
    "PlacementStrategy": (
        [{"type": "spread", "field": "host"}],
        {"placementStrategy": [{"type": "spread", "field": "host"}]},
    ),
    "PropagateTags": ("TASK_DEFINITION", {"propagateTags": "TASK_DEFINITION"}),
    "ReferenceId": ("r", {"referenceId": "r"}),
}
TAGS = {"tags": [{"key": "team", "value": "finance"}, {"key": "Key", "value": "Value"}]}
LEAST = {"cluster": CLUSTER, "taskDefinition": TASK, "count": 1}


@pytest.mark.parametrize("member", COMMON)
@pytest.mark.parametrize("definition", [by_rule, by_schedule])
def test_each_member_of_an_ecs_target_is_one_of_the_request(
    member: str, definition: Any, run_task: StructureShape
) -> None:
    value, expected = COMMON[member]
    assert request_of(definition({member: value}), run_task) == LEAST | expected


@pytest.mark.parametrize("service", ["events", "scheduler"])
def test_no_member_of_the_services_is_forgotten(service: str) -> None:
    parameters = shape(service).members["EcsParameters"]
    assert isinstance(parameters, StructureShape)
    assert parameters.members.keys() == COMMON.keys() | {"TaskDefinitionArn", "Tags"}


def test_tags_of_a_rule_are_keys_and_values_and_those_of_a_schedule_are_maps(
    run_task: StructureShape,
) -> None:
    listed = [{"Key": "team", "Value": "finance"}, {"Key": "Key", "Value": "Value"}]
    assert request_of(by_rule({"Tags": listed}), run_task) == LEAST | TAGS
    for maps in ([{"team": "finance"}, {"Key": "Value"}], [{"team": "finance", "Key": "Value"}]):
        assert request_of(by_schedule({"Tags": maps}), run_task) == LEAST | TAGS


def test_a_universal_target_s_names_are_those_of_botocore_s_model(run_task: StructureShape) -> None:
    request = load_event("launched.every-parameter")["detail"]["requestParameters"]
    sent = {k: v for k, v in request.items() if v is not None}

    def capital(value: Any) -> Any:
        if isinstance(value, list):
            return [capital(item) for item in value]
        if isinstance(value, dict):
            return {k[:1].upper() + k[1:]: capital(v) for k, v in value.items()}
        return value

    assert request_of(universal(capital(sent)), run_task) == sent
    assert "ManagedEBSVolume" in json.dumps(capital(sent))
    # What is no name of AWS's stays as it is: the keys of tags.
    made = request_of(
        universal({"TaskDefinition": "n", "Tags": [{"Key": "Team", "Value": "Key"}]}), run_task
    )
    assert made["tags"] == [{"key": "Team", "value": "Key"}]


def test_defaults_are_those_of_aws(run_task: StructureShape) -> None:
    assert request_of(by_rule(), run_task) == LEAST
    assert request_of(universal({"TaskDefinition": "n"}), run_task) == {
        "cluster": "default",
        "taskDefinition": "n",
        "count": 1,
    }


@pytest.mark.parametrize("beside", ["cpu", "memory", "taskRoleArn", "executionRoleArn"])
def test_an_input_overrides_containers_and_what_stands_beside_them(
    beside: str, run_task: StructureShape
) -> None:
    overrides = {"containerOverrides": [{"name": "app", "environment": ENVIRONMENT}], beside: "512"}
    for definition in (by_rule, by_schedule):
        made = request_of(definition(Input=json.dumps(overrides)), run_task)
        assert made["overrides"] == overrides


# What is filled in when it fires.


def template(text: str) -> Definition:
    paths = {"k": "$.detail.key", "n-1": "$.detail.n"}
    return by_rule(InputTransformer={"InputPathsMap": paths, "InputTemplate": text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"cpu": "<k>"}', AnyText(("", ""))),
        ('{"cpu": <k>}', AnyText()),
        ('{"cpu": "a <k> b <n-1>"}', AnyText(("a ", " b ", ""))),
        ('{"cpu": "\\"<k>\\""}', AnyText(('"', '"'))),
        ('{"cpu": "<aws.events.event.ingestion-time>"}', AnyText(("", ""))),
        ('{"cpu": "a < b"}', "a < b"),
        ('{"cpu": "256"}', "256"),
    ],
)
def test_a_variable_of_a_template_is_any_text(
    text: str, expected: object, run_task: StructureShape
) -> None:
    assert request_of(template(text), run_task)["overrides"] == {"cpu": expected}


def test_a_variable_may_stand_for_whatever_the_model_takes(run_task: StructureShape) -> None:
    text = '{"containerOverrides": [{"name": "app", "command": <k>, "cpu": <n-1>}]}'
    (container,) = request_of(template(text), run_task)["overrides"]["containerOverrides"]
    assert container == {"name": "app", "command": AnyText(), "cpu": AnyText()}
    assert request_of(by_rule(InputPath="$.detail"), run_task)["overrides"] == AnyText()


@pytest.mark.parametrize(
    "word", ["schedule-arn", "scheduled-time", "execution-id", "attempt-number"]
)
def test_each_keyword_is_one(word: str, run_task: StructureShape) -> None:
    text = f'{{"cpu": "<aws.scheduler.{word}>", "memory": <aws.scheduler.{word}>}}'
    expected = {"cpu": AnyText(("", "")), "memory": AnyText()}
    assert request_of(by_schedule(Input=text), run_task)["overrides"] == expected


def test_keywords_of_scheduler_are_any_text_to_scheduler_alone(run_task: StructureShape) -> None:
    text = '{"cpu": "at <aws.scheduler.scheduled-time>"}'
    assert request_of(by_schedule(Input=text), run_task)["overrides"] == {
        "cpu": AnyText(("at ", ""))
    }
    constant = {"cpu": "at <aws.scheduler.scheduled-time>"}
    assert request_of(by_rule(Input=text), run_task)["overrides"] == constant
    assert request_of(by_schedule(Input='{"cpu": "<k>"}'), run_task)["overrides"] == {"cpu": "<k>"}
    made = request_of(
        universal('{"TaskDefinition": "n", "Group": "<aws.scheduler.execution-id>"}'), run_task
    )
    assert made["group"] == AnyText(("", ""))


@pytest.mark.parametrize(
    ("parts", "value", "matches"),
    [
        ((), ["anything"], True),
        (("", ""), "", True),
        (("", ""), ["text"], False),
        (("", ""), None, False),
        (("a-", "-z"), "a-b\nc-z", True),
        (("a-", "-z"), "a-z", False),
        (("a", "a"), "a", False),
        (("[a]*", ""), "[a]*b", True),
        (("[a]*", ""), "ab", False),
        (("?", ""), "ab", False),
        (("A", ""), "ab", False),
        (("", "b", ""), "abc", True),
        (("", *["a"] * 60, ""), "a" * 59 + "b" * 5000, False),  # in no time
    ],
)
def test_any_text_is_text_between_its_parts(
    parts: tuple[str, ...], value: object, matches: bool
) -> None:
    assert AnyText(parts).matches(value) is matches


# What cannot be used names the member.


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        (by_rule({"VolumeConfigurations": []}), "EcsParameters.VolumeConfigurations is unknown"),
        (by_rule({"TaskCount": "3"}), "EcsParameters.TaskCount is not of type integer"),
        (by_rule({"TaskCount": 0}), "EcsParameters.TaskCount is below the least"),
        (by_rule({"Tags": [{"Key": "a"}]}), r"EcsParameters.Tags\[0\].Value is missing"),
        (by_schedule({"Tags": [{"a": 1}]}), r"EcsParameters.Tags\[0\] is not of type string"),
        (by_schedule({"Tags": ["a"]}), r"EcsParameters.Tags\[0\] is not of type map"),
        (by_rule(Retries=3), "Retries is unknown"),
        (by_rule(Input="{"), "Input is not JSON"),
        (by_rule(Input="[" * 100_000), "Input is not JSON"),
        (by_rule(Input='"text"'), "Input is not an object"),
        (by_rule(Input='{"containerOverrides": {}}'), "Input.containerOverrides is not a list"),
        (by_rule(Input='{"comment": "x"}'), "Input.comment is unknown to botocore's model"),
        (by_rule(Input=f'{{"{"x" * 64}": 1}}'), f"Input.{'x' * 64} is unknown"),
        (by_rule(Input=f'{{"{"x" * 65}": 1}}'), "Input.a member with an odd name is unknown"),
        (by_rule(Input='{"a b": "x"}'), "Input.a member with an odd name is unknown"),
        (by_rule(Input='{"cpu": "1", "cpu": "2"}'), "Input gives a member twice"),
        (
            by_rule(Input='{"containerOverrides": [{"environment": [{"name": "A", "value": 1}]}]}'),
            r"Input.containerOverrides\[0\].environment\[0\].value is not of type string",
        ),
        (template("<k>, <k>"), "InputTransformer.InputTemplate is not JSON"),
        # Whatever the text's checksum begins with: it is never shown.
        *[
            (
                template(f'{{"<k>": {n}}}'),
                "InputTransformer.InputTemplate.a member with an odd name is",
            )
            for n in range(5)
        ],
        (by_rule(Input='{"\ud800": 1}'), "Input.a member with an odd name is unknown"),
        (Definition(ARN, {"Id": "1", "Arn": CLUSTER}, shape("events")), "EcsParameters is missing"),
        (universal({}), "Input.taskDefinition is missing"),
        (universal("[]"), "Input is not an object"),
        (universal({"TaskDefinition": "n", "Service": "x"}), "Input.Service is unknown"),
        (universal({"taskDefinition": "n"}), "Input.taskDefinition is unknown"),
        (
            universal(
                {"TaskDefinition": "n", "Overrides": {"ContainerOverrides": [{"name": "x"}]}}
            ),
            r"Input.Overrides.ContainerOverrides\[0\].name is unknown",
        ),
    ],
)
def test_a_definition_that_is_no_request_names_the_member(
    definition: Definition, problem: str, run_task: StructureShape
) -> None:
    with pytest.raises(NotExact, match=f"^{problem}"):
        request_of(definition, run_task)


def test_the_task_is_known_where_the_rest_cannot_be_used() -> None:
    assert task_of(by_rule(Input="{")) == (CLUSTER, TASK)
    assert task_of(universal({"TaskDefinition": "n", "x": 1})) == ("default", "n")
    assert task_of(universal({"Cluster": "c"})) == ("c", None)
    assert task_of(universal({"Cluster": None})) == ("default", None)
    with pytest.raises(NotExact, match=r"^EcsParameters is missing"):
        task_of(Definition(ARN, {"Id": "1", "Arn": CLUSTER}, shape("events")))
    with pytest.raises(NotExact):
        task_of(universal("{"))


def test_titles_say_where_to_look() -> None:
    assert title_of(ARN) == "the rule nightly on the bus default"
    assert title_of(ARN.replace("rule/", "rule/a/b/")) == "the rule nightly on the bus a/b"
    assert title_of(SCHEDULE_ARN) == "the schedule nightly in the group default"


# The checksum is over what the target defines, and over nothing else.


def test_a_checksum_changes_with_the_request_and_with_nothing_else(
    run_task: StructureShape,
) -> None:
    def checksum(definition: Definition) -> str:
        return checksum_of(request_of(definition, run_task))

    first = by_rule(Input=json.dumps({"containerOverrides": [{"environment": ENVIRONMENT}]}))
    assert len(checksum(first)) == 4
    same = Definition(f"{ARN}-2", {**first.target, "Id": "2", "RoleArn": "r"}, first.shape)
    assert checksum(same) == checksum(first)
    others = [
        by_rule(Input=json.dumps({"containerOverrides": [{"environment": [{"name": "A"}]}]})),
        by_rule({"TaskCount": 2}, Input=first.target["Input"]),
        by_rule({"EnableExecuteCommand": True}, Input=first.target["Input"]),
        template('{"cpu": "<k>"}'),
        template('{"cpu": "1<k>"}'),
        template('{"cpu": <k>}'),
    ]
    assert len({checksum(definition) for definition in [first, *others]}) == 1 + len(others)


# When a schedule could call.


MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)
DAY = timedelta(days=1)
MADE = datetime(2026, 1, 1, tzinfo=UTC)


def described(**members: Any) -> Definition:
    schedule = {
        "CreationDate": MADE,
        "LastModificationDate": MADE + DAY,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ScheduleExpression": "at(2026-11-23T00:00:00)",
    }
    return Definition(SCHEDULE_ARN, by_schedule().target, shape("scheduler"), schedule | members)


WINDOW = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 30}
HOURLY = {"ScheduleExpression": "rate(1 hour)"}


@pytest.mark.parametrize(
    ("members", "first", "last"),
    [
        ({}, MIDNIGHT, MIDNIGHT + DAY),
        ({"FlexibleTimeWindow": WINDOW}, MIDNIGHT, MIDNIGHT + DAY + timedelta(minutes=30)),
        (
            {"ScheduleExpressionTimezone": "Asia/Tokyo"},
            MIDNIGHT - timedelta(hours=9),
            MIDNIGHT + DAY - timedelta(hours=9),
        ),
        # A day is a day where the clocks are changed.
        (
            {
                "ScheduleExpression": "at(2026-03-28T23:00:00)",
                "ScheduleExpressionTimezone": "Europe/Berlin",
            },
            datetime(2026, 3, 28, 22, tzinfo=UTC),
            datetime(2026, 3, 29, 22, tzinfo=UTC),
        ),
        ({"StartDate": MADE, "EndDate": MADE}, MIDNIGHT, MIDNIGHT + DAY),
        (HOURLY, None, None),
        (HOURLY | {"StartDate": MIDNIGHT}, MIDNIGHT, None),
        (HOURLY | {"EndDate": MIDNIGHT}, None, MIDNIGHT + DAY),
        (
            HOURLY | {"EndDate": MIDNIGHT, "FlexibleTimeWindow": WINDOW},
            None,
            MIDNIGHT + DAY + timedelta(minutes=30),
        ),
        (HOURLY | {"State": "DISABLED"}, None, MADE + 2 * DAY),
        (HOURLY | {"State": "DISABLED", "EndDate": MIDNIGHT}, None, MADE + 2 * DAY),
        (HOURLY | {"State": "ENABLED", "StartDate": None, "EndDate": None}, None, None),
    ],
)
def test_a_schedule_is_due_from_its_start_to_a_day_of_retries_after_its_end(
    members: dict[str, Any], first: datetime | None, last: datetime | None
) -> None:
    assert due_of(described(**members)) == (first, last)
    assert due_of(by_rule()) == (None, None)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"ScheduleExpressionTimezone": "Mars/Base"}, "ScheduleExpressionTimezone is unknown"),
        ({"ScheduleExpression": "at(9999-12-31T23:59:59)"}, "ScheduleExpression is no time"),
        ({"ScheduleExpression": "at(soon)"}, "ScheduleExpression is no time"),
    ],
)
def test_a_time_that_cannot_be_read_is_named(members: dict[str, Any], problem: str) -> None:
    with pytest.raises(NotExact, match=f"^{problem}"):
        due_of(described(**members))


@pytest.mark.parametrize(
    ("members", "ends"),
    [
        ({}, True),
        ({"ScheduleExpression": "at(soon)"}, True),
        (HOURLY, False),
        (HOURLY | {"EndDate": MIDNIGHT}, False),
        (HOURLY | {"ActionAfterCompletion": "DELETE"}, False),
        (HOURLY | {"EndDate": MIDNIGHT, "ActionAfterCompletion": "NONE"}, False),
        (HOURLY | {"EndDate": MIDNIGHT, "ActionAfterCompletion": "DELETE"}, True),
    ],
)
def test_a_schedule_that_makes_a_last_call_may_delete_itself(
    members: dict[str, Any], ends: bool
) -> None:
    assert described(**members).ends_itself is ends
    assert not by_rule().ends_itself


def test_an_input_that_never_closes_a_quote_takes_no_time(run_task: StructureShape) -> None:
    for end in ("", "\\"):
        text = '{"cpu": "' + '\\"' * 120_000 + end
        with pytest.raises(NotExact, match=r"^Input is not JSON"):
            request_of(by_schedule(Input=text), run_task)
