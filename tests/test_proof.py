"""The right environment, or none: what proves a definition, and what is tried to get past it."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto.ecs.exceptions import ECSException
from moto.scheduler.models import scheduler_backends

from conftest import DUE_NOW
from rehearsal.callers import rule, schedule
from rehearsal.ecs import ConflictException
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task import caller, comparison, decision, definition, handler, proof, recover, source
from retry_run_task.caller import OURS, Caller
from retry_run_task.chain import DEFINITION_TAG
from retry_run_task.definition import UNIVERSAL, Definition
from retry_run_task.failed_call import FailedCall
from retry_run_task.proof import Unfit
from retry_run_task.request import HIDDEN, NotExact
from retry_run_task.settings import Settings
from retry_run_task.source import Search, Source

# The victim's definition was made the day before; it is midnight.
NOW = datetime(2026, 11, 23, tzinfo=UTC)
ACCOUNT = "123456789012"
CLUSTER = f"arn:aws:ecs:eu-west-1:{ACCOUNT}:cluster/jobs"
TASK = f"arn:aws:ecs:eu-west-1:{ACCOUNT}:task-definition/order:7"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/orders"
ANOTHER_ROLE = f"arn:aws:iam::{ACCOUNT}:role/another"
NETWORK = {"awsvpcConfiguration": {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroups": ["sg-1"]}}
SECRET = "secret-of-1042"  # noqa: S105
OTHER = "secret-of-1043"

Attack = Callable[[World], None]


def input_of(value: str | None, **members: Any) -> str:
    """A constant input, with the value in its environment."""
    environment = [] if value is None else [{"name": "ORDER", "value": value}]
    container = {"name": "app", "command": ["run"], "environment": environment}
    return json.dumps({"containerOverrides": [container | members]})


def target(value: str | None = SECRET, role: str = ROLE, **ecs: Any) -> dict[str, Any]:
    """An ECS target, of a rule or a schedule."""
    parameters = {
        "TaskDefinitionArn": TASK,
        "LaunchType": "FARGATE",
        "NetworkConfiguration": NETWORK,
        **ecs,
    }
    return {
        "Arn": CLUSTER,
        "RoleArn": role,
        "EcsParameters": {k: v for k, v in parameters.items() if v is not None},
        "Input": input_of(value),
    }


def a_rule(name: str = "nightly", *targets: dict[str, Any], bus: str = "default") -> dict[str, Any]:
    numbered = [{"Id": str(i)} | each for i, each in enumerate(targets or (target(),))]
    return {"Rules": [{"Name": name, "EventBusName": bus, "Targets": numbered}]}


def a_schedule(
    name: str = "nightly",
    made: dict[str, Any] | None = None,
    group: str = "default",
    **members: Any,
) -> dict[str, Any]:
    """A schedule with the ECS target, recurring unless `members` say otherwise."""
    whole = {
        "Name": name,
        "GroupName": group,
        "ScheduleExpression": "cron(0 0 * * ? *)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": made or target(),
    }
    return {"Schedules": [whole | members]}


def universal(value: str = SECRET, role: str = ROLE, **members: Any) -> dict[str, Any]:
    """A universal target that makes the call of `target`."""
    container = {
        "Name": "app",
        "Command": ["run"],
        "Environment": [{"Name": "ORDER", "Value": value}],
    }
    request = {
        "Cluster": CLUSTER,
        "TaskDefinition": TASK,
        "LaunchType": "FARGATE",
        "NetworkConfiguration": {
            "AwsvpcConfiguration": NETWORK["awsvpcConfiguration"],
        },
        "Overrides": {"ContainerOverrides": [container]},
    }
    return {
        "Arn": f"arn:aws{UNIVERSAL}",
        "RoleArn": role,
        "Input": json.dumps(request | members),
    }


ONCE = {"ScheduleExpression": "at(2026-11-22T23:59:30)", "ActionAfterCompletion": "NONE"}
LONG = "nightly-report-of-a-day"  # its name arrives as nightly-report-of-a


@contextmanager
def world(*definitions: dict[str, Any], failures: int = 0) -> Iterator[World]:
    # What pulls others forward looks for schedules as well.
    stack = Stack({"MaxAttempts": "4", "PullForward": "false"})
    with World(stack, NOW, failures=failures) as entered:
        for each in definitions:
            entered.define(each)
        yield entered


def sent(world: World) -> list[str | None]:
    """The value in the environment of each request that went to ECS; None where it has none."""
    values = []
    for call in world.calls:
        (container,) = call["overrides"]["containerOverrides"]
        values.append(next((e["value"] for e in container.get("environment", [])), None))
    return values


def refusal(world: World) -> str:
    """Why the last invocation did not repeat the request."""
    outcome = world.outcomes[-1]
    assert outcome["outcome"] == "NOT_REPLAYABLE", outcome
    detail: str = outcome["detail"]
    before = "environment is hidden by CloudTrail, and "
    assert before in detail
    assert SECRET not in detail
    assert OTHER not in detail
    return detail.partition(before)[2]


def by_its_rule(found: World, **changes: Any) -> World:
    found.fire(rule("nightly"), **changes)
    found.run()
    return found


def by_its_schedule(found: World, name: str = "nightly", group: str = "default") -> World:
    found.fire(schedule(name, group))
    found.run()
    return found


def delete_schedule(name: str, group: str = "default") -> None:
    boto3.client("scheduler").delete_schedule(Name=name, GroupName=group)


# What is verified.


@pytest.mark.parametrize(
    ("shown", "launched"),
    [("hidden", True), ([], True), (None, True), ("absent", True), ("value", False)],
)
def test_an_empty_environment_may_be_shown_in_any_way(shown: Any, launched: bool) -> None:
    both: list[dict[str, Any]] = [
        {"name": "app", "command": ["run"], "environment": [{"name": "ORDER", "value": SECRET}]},
        {"name": "agent", "environment": []},
    ]
    made = target() | {"Input": json.dumps({"containerOverrides": both})}
    agent: dict[str, Any] = {"name": "agent", "environment": shown}
    if shown in ("hidden", "absent"):
        agent = {"name": "agent"} | ({"environment": HIDDEN} if shown == "hidden" else {})
    elif shown == "value":
        agent = {"name": "agent", "environment": [{"name": "A", "value": "1"}]}
    with world(a_rule("nightly", made), failures=2) as found:
        event = found.fire(rule("nightly"))
        event["detail"]["requestParameters"]["overrides"]["containerOverrides"][1] = agent
        found.run()
        assert (found.outcomes[-1]["outcome"] == "LAUNCHED") is launched
        assert len(found.calls) == (3 if launched else 0)
        for call in found.calls:
            app, other = call["overrides"]["containerOverrides"]
            assert app["environment"] == both[0]["environment"]
            assert not other.get("environment")


def test_a_variable_in_the_command_leaves_a_constant_environment_verified() -> None:
    made = target()
    made.pop("Input")
    made["InputTransformer"] = {
        "InputPathsMap": {"key": "$.detail.key"},
        "InputTemplate": input_of(SECRET, command=["copy", "s3://in/<key>"]),
    }
    with world(a_rule("nightly", made), failures=1) as found:
        by_its_rule(found)
    assert sent(found) == [SECRET] * 2
    (container,) = found.calls[0]["overrides"]["containerOverrides"]
    assert container["command"] == ["copy", "s3://in/filled in"]


@pytest.mark.parametrize(
    "change",
    [
        {
            "networkConfiguration": {
                "awsvpcConfiguration": {
                    "subnets": ["subnet-2", "subnet-1"],
                    "securityGroups": ["sg-1"],
                    "assignPublicIp": "DISABLED",
                }
            }
        },
        {
            "platformVersion": "1.4.0",
            "group": "family:order",
            "tags": [{"key": "aws:x", "value": "y"}],
        },
        {"enableExecuteCommand": None, "enableECSManagedTags": None, "count": None},
        {"capacityProviderStrategy": []},
    ],
)
def test_what_only_the_call_has_is_aws_s_and_what_means_the_same_is_the_same(
    change: dict[str, Any],
) -> None:
    with world(a_rule()) as found:
        by_its_rule(found, **change)
    assert sent(found) == [SECRET]


def test_a_stated_zero_or_false_is_as_good_as_none() -> None:
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 0, "base": 0}]
    made = target(LaunchType=None, CapacityProviderStrategy=strategy, EnableECSManagedTags=False)
    shown = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
    with world(a_rule("nightly", made)) as found:
        by_its_rule(found, **shown, enableECSManagedTags=None)
    assert sent(found) == [SECRET]


def test_the_role_chooses_between_siblings_and_later_attempts_read_that_one_only() -> None:
    definitions = [
        a_schedule(LONG),
        a_schedule(f"{LONG}-2", target(OTHER, ANOTHER_ROLE)),
        a_schedule("nightly-report-of-a", target(OTHER, ANOTHER_ROLE), group="default"),
    ]
    with world(*definitions, failures=2) as found:
        found.fire(schedule(LONG))
        while not found.calls:
            found.step()
        assert "before ListSchedules" in found.points
        found.points.clear()
        found.run()
    assert sent(found) == [SECRET] * 3
    reads = [point for point in found.points if point.startswith("before") and "Task" not in point]
    assert [point for point in reads if "Create" not in point] == ["before GetSchedule"] * 2
    tags = [{t["key"]: t["value"] for t in call["tags"]} for call in found.calls]
    arn = f"arn:aws:scheduler:eu-west-1:{ACCOUNT}:schedule/default/{LONG}"
    (known,) = {tag[DEFINITION_TAG] for tag in tags}
    assert known.startswith(f"{arn}@")
    assert len(known) == len(arn) + 5


@pytest.mark.parametrize("made", ["rule", "other bus", "schedule", "other group", "universal"])
def test_the_tag_leads_back_to_each_kind_of_definition(made: str) -> None:
    definition = {
        "rule": a_rule(),
        "other bus": a_rule(bus="shop"),
        "schedule": a_schedule(),
        "other group": a_schedule(group="shop"),
        "universal": a_schedule("nightly", universal()),
    }[made]
    is_rule = made in ("rule", "other bus")
    place = {"other bus": "shop", "other group": "shop"}.get(made, "default")
    with world(definition, failures=2) as found:
        found.fire((rule if is_rule else schedule)("nightly", place))
        found.run()
    assert sent(found) == [SECRET] * 3
    lists = [p for p in found.points if p.startswith("before List")]
    assert lists.count("before ListTargetsByRule") == (3 if is_rule else 0)
    assert lists.count("before ListSchedules") == (0 if is_rule else 1)


def test_an_attempt_that_asks_for_what_is_missing_is_the_same_call() -> None:
    with world(a_rule("nightly", target(TaskCount=4)), failures=1) as found:
        found.ecs.at_most = 3
        by_its_rule(found)
    assert [call["count"] for call in found.calls] == [4, 4, 1]
    assert sent(found) == [SECRET] * 3


def test_an_attempt_without_an_event_keeps_its_definition() -> None:
    # It was throttled; meanwhile a sibling with the same role and another value appears.
    with world(a_schedule(LONG)) as found:
        found.ecs.errors = [ECSException("ThrottlingException", "Rate exceeded")]
        found.fire(schedule(LONG))
        while not found.outcomes:
            found.step()
        assert found.outcomes[-1]["outcome"] == "SCHEDULED"
        assert SECRET not in json.dumps(found.inputs)
        found.define(a_schedule(f"{LONG}-2", target(OTHER)))
        found.run()
    assert sent(found)[-1] == SECRET
    assert len(set(sent(found))) == 1


@pytest.mark.parametrize(("length", "fits"), [(200, True), (201, False)])
def test_a_tag_has_256_characters_and_a_checksum_in_any_case(length: int, fits: bool) -> None:
    # The role chooses, and later attempts know the right one by its checksum.
    bus, name = "b" * length, "nightly"
    sibling = a_rule(name, target(OTHER, ANOTHER_ROLE))
    with world(a_rule(name, bus=bus), sibling, failures=3) as found:
        found.fire(rule(name, bus))
        found.run()
    assert sent(found) == [SECRET] * 4
    tags = {t["value"] for call in found.calls for t in call["tags"] if t["key"] == DEFINITION_TAG}
    (tag,) = tags
    assert len(tag) == (256 if fits else 5)
    assert found.points.count("before ListEventBuses") == (1 if fits else 4)


def test_a_request_with_47_tags_has_no_room_for_what_was_recovered() -> None:
    tags = [{"Key": str(n), "Value": "x"} for n in range(47)]
    for number, launched in ((46, True), (47, False)):
        with world(a_rule("nightly", target(Tags=tags[:number]))) as found:
            by_its_rule(found)
        assert (sent(found) == [SECRET]) is launched
    assert "tags has no room for 4 more" in found.outcomes[-1]["detail"]


def attempt_of(world: World, name: str = "nightly", **tags: str) -> dict[str, Any]:
    """The event of the first attempt at the rule's job, which failed; `tags` are changed in it."""
    found: list[dict[str, Any]] = []
    real = world.publish
    world.publish = lambda event, *_: found.append(event)  # type: ignore[method-assign]
    world.fire(rule(name))
    world.deliver(found.pop())
    world.publish = real  # type: ignore[method-assign]
    (event,) = found
    for tag in event["detail"]["requestParameters"]["tags"]:
        tag["value"] = tags.get(tag["key"].partition(":")[2], tag["value"])
    return event


RULES, SCHEDULES = f"arn:aws:events:eu-west-1:{ACCOUNT}:", f"arn:aws:scheduler:eu-west-1:{ACCOUNT}:"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "nightly",
        "@12345",
        "@xyz0",
        "x@1234",
        "arn:x@1234",
        "arn:aws:events:e@1234",
        f"{RULES}rule@1234",
        f"{RULES}event-bus/nightly@1234",
        f"{SCHEDULES}schedule/nightly@1234",
        f"{SCHEDULES}schedule/a/b/c@1234",
        f"{RULES}rule/nightly@12345",
    ],
)
def test_an_unreadable_tag_of_an_own_attempt_stops_it(value: str | None) -> None:
    with world(a_rule(), failures=1) as found:
        event = attempt_of(found, definition=value or "")
        if value is None:
            tags = event["detail"]["requestParameters"]["tags"]
            tags[:] = [tag for tag in tags if tag["key"] != DEFINITION_TAG]
        found.wait(timedelta(hours=1))
        outcome = found.call_handler(DUE_NOW | event)
    assert (outcome["outcome"], sent(found)) == ("NOT_REPLAYABLE", [SECRET])
    assert (
        f"tags[{DEFINITION_TAG}] is not what an earlier attempt has sent; see" in outcome["detail"]
    )


# Why it is refused, and what helps.

BY_HAND = "; see whether the job runs, and start it by hand if not."
COMMAND = "put the value into the command, which CloudTrail does not hide."
NIGHTLY = "the rule nightly on the bus default "


def with_input(text: Any) -> dict[str, Any]:
    return target() | {"Input": text if isinstance(text, str) else json.dumps(text)}


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (
            {"InputPath": "$.detail"},
            f"{NIGHTLY}fills in the environment when it fires: {COMMAND}",
        ),
        (
            {"InputTransformer": {"InputTemplate": input_of("<k>")}},
            f"{NIGHTLY}fills in the environment when it fires: {COMMAND}",
        ),
        (
            {"InputTransformer": {"InputTemplate": input_of("1").replace('"1"', "<k>")}},
            f"{NIGHTLY}fills in the environment when it fires: {COMMAND}",
        ),
        (
            {"Input": input_of("1", environment="text")},
            "in the rule nightly on the bus default, Input.containerOverrides[0].environment is "
            "not a list: correct it.",
        ),
        (
            {"Input": input_of("1", environment=[{"value": SECRET}])},
            "in the rule nightly on the bus default, containerOverrides[0].environment[0].name is "
            "missing: correct it.",
        ),
        (
            {"EcsParameters": target(TaskDefinitionArn=TASK[:-1] + "8")["EcsParameters"]},
            f"{NIGHTLY}starts order:8 now, and the call asked for order:7{BY_HAND}",
        ),
        (
            {
                "EcsParameters": target(TaskDefinitionArn=TASK.replace("order", "x"))[
                    "EcsParameters"
                ]
            },
            f"{NIGHTLY}starts another task definition now{BY_HAND}",
        ),
        (
            {"EcsParameters": target(NetworkConfiguration=None)["EcsParameters"]},
            f"{NIGHTLY}has no networkConfiguration, which the call has{BY_HAND}",
        ),
        (
            {"Input": input_of(None, environment=None)},
            f"{NIGHTLY}differs from the call in overrides{BY_HAND}",
        ),
        (
            {"RoleArn": ANOTHER_ROLE},
            f"the role of its caller is not that of the rule nightly on the bus default{BY_HAND}",
        ),
        (
            {"Arn": f"{CLUSTER}-2"},
            "no rule of its caller's name starts a task in this cluster now: it was deleted or "
            f"changed since{BY_HAND}",
        ),
    ],
)
def test_a_refusal_names_the_cause_and_the_way_out(now: dict[str, Any], why: str) -> None:
    with world(a_rule()) as found:
        found.fire(rule("nightly"))
        constant = "InputPath" in now or "InputTransformer" in now
        kept = {k: v for k, v in target().items() if not (constant and k == "Input")}
        found.define(a_rule("nightly", kept | now))
        found.run()
        assert refusal(found) == why
    assert found.calls == []


def test_a_definition_that_was_deleted_since_is_named() -> None:
    with world(a_rule(), failures=1) as found:
        found.fire(rule("nightly"))
        while not found.outcomes:
            found.step()
        boto3.client("events").remove_targets(Rule="nightly", Ids=["0"])
        boto3.client("events").delete_rule(Name="nightly")
        found.run()
        assert refusal(found) == f"{NIGHTLY}was deleted after an earlier attempt{BY_HAND}"
    with world(a_schedule(), failures=1) as found:
        found.fire(schedule("nightly"))
        while not found.outcomes:
            found.step()
        delete_schedule("nightly")
        found.run()
        who = "the schedule nightly in the group default "
        assert refusal(found) == f"{who}was deleted after an earlier attempt{BY_HAND}"


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (
            {"startedBy": "chronos-schedule/nightly"},
            f"no schedule has its caller's name now: it was deleted or changed since{BY_HAND}",
        ),
        (
            {"startedBy": None},
            f"no schedule has the universal target now: it was deleted or changed since{BY_HAND}",
        ),
    ],
)
def test_a_schedule_that_was_deleted_before_attempt_1_is_not_there(
    call: dict[str, Any], why: str
) -> None:
    with world(a_schedule()) as found:
        found.fire(schedule("nightly"), **call)
        delete_schedule("nightly")
        found.run()
        assert refusal(found) == why


def test_a_schedule_changed_or_made_since_the_call_is_named() -> None:
    scheduler = boto3.client
    with world(a_schedule()) as found:
        found.fire(schedule("nightly"))
        found.wait(timedelta(seconds=1))
        (made,) = a_schedule()["Schedules"]
        scheduler("scheduler").update_schedule(**made)
        found.run()
        who = "the schedule nightly in the group default "
        assert refusal(found) == f"{who}was changed since the call{BY_HAND}"
    with world(a_schedule()) as found:
        found.fire(schedule("nightly"))
        delete_schedule("nightly")
        scheduler("scheduler").create_schedule(**made)
        found.run()
        assert refusal(found) == f"{who}was made since the call{BY_HAND}"


def test_a_one_time_schedule_calls_from_its_time_on_for_a_day() -> None:
    for at, launched in (
        ("2026-11-23T00:00:00", True),
        ("2026-11-22T00:00:00", True),
        ("2026-11-23T00:00:01", False),
        ("2026-11-21T23:59:59", False),
    ):
        once = ONCE | {"ScheduleExpression": f"at({at})"}
        with world(a_schedule("nightly", None, **once)) as found:
            by_its_schedule(found)
            assert sent(found) == ([SECRET] if launched else [])
            if not launched:
                assert "was not due when the call was made" in refusal(found)


def test_no_role_is_not_the_role_of_a_definition_without_one() -> None:
    made = target()
    made.pop("RoleArn")  # EventBridge wants one for ECS
    with world(a_rule("nightly", target())) as found:
        event = found.fire(rule("nightly"))
        event["detail"]["userIdentity"].pop("sessionContext")
        found.define(a_rule("nightly", made))
        found.run()
        assert refusal(found).startswith("the role of its caller is not that of ")


def test_an_sdk_s_call_is_held_by_nobody() -> None:
    with world(a_rule()) as found:
        event = found.fire(rule("nightly"))
        detail = event["detail"]
        detail["userIdentity"].pop("invokedBy")
        detail.update(sourceIPAddress="192.0.2.1", userAgent="Boto3/1.40.1")
        found.run()
        assert refusal(found) == (
            "no EventBridge rule or schedule made the call, in which it could be looked up: put it "
            "into `command`, an `environmentFiles` entry or the task definition, which are not "
            "hidden."
        )
        assert not [point for point in found.points if "List" in point]


def test_how_many_do_not_fit_is_said() -> None:
    targets = [target(NetworkConfiguration=None), target(LaunchType="EC2"), target(Group="x")]
    with world(a_rule("nightly", target())) as found:
        found.fire(rule("nightly"))
        found.define(a_rule("nightly", *targets))
        found.run()
        assert refusal(found).endswith(f"{BY_HAND[:-1]} (of 3 definitions, none fits).")


# What is tried to get past it. Each attack is repelled, and each has a mutant that lets it through.


def spoofed_session(found: World) -> None:
    """Anybody may name a session like the function, and copy the tags of an attempt of ours."""
    event = attempt_of(found)
    found.calls.clear()
    session = event["detail"]["userIdentity"]
    session["arn"] = session["arn"].replace("retry-run-task-RetryRunTaskRole", "attacker")
    session["sessionContext"]["sessionIssuer"]["arn"] = ANOTHER_ROLE
    found.publish(event)
    found.run()


def spoofed_session_elsewhere(found: World) -> None:
    """The same into networks of one's own, to look into the task there."""
    event = attempt_of(found)
    found.calls.clear()
    parameters = event["detail"]["requestParameters"]
    parameters["networkConfiguration"]["awsvpcConfiguration"]["subnets"] = ["subnet-of-attacker"]
    parameters["enableExecuteCommand"] = True
    found.publish(event)
    found.run()


def copied_tags(found: World) -> None:
    """A program sends the tags and the token of an attempt of ours with a request of its own."""
    event = attempt_of(found)
    found.calls.clear()
    event["detail"]["userIdentity"]["arn"] = f"arn:aws:sts::{ACCOUNT}:assumed-role/another/i-1"
    event["detail"]["requestParameters"]["startedBy"] = "by-hand"
    found.publish(event)
    found.run()


def victims_rule_named(found: World) -> None:
    """A program names the victim's rule in `startedBy`, with the rule's own role."""
    event = found.fire(rule("nightly"))
    event["detail"]["userIdentity"].pop("invokedBy")
    event["detail"].update(sourceIPAddress="192.0.2.1", userAgent="Boto3/1.40.1")
    found.run()


def victims_name_on_another_bus(found: World) -> None:
    """A rule of the attacker's has the victim's name, on a bus of its own, and is deleted."""
    found.define(a_rule("nightly", target(OTHER, ANOTHER_ROLE), bus="mine"))
    found.fire(rule("nightly", "mine"))
    boto3.client("events").remove_targets(Rule="nightly", EventBusName="mine", Ids=["0"])
    found.run()


def victims_schedule_named(found: World) -> None:
    """A program takes Scheduler's user agent, and names the victim's schedule."""
    event = found.fire(schedule("victim"))
    issuer = event["detail"]["userIdentity"]["sessionContext"]["sessionIssuer"]
    issuer.update(arn=ANOTHER_ROLE)
    found.run()


def no_role_shown(found: World) -> None:
    """A call that shows no role proves none."""
    event = found.fire(rule("nightly"))
    event["detail"]["userIdentity"].pop("sessionContext")
    found.run()


def one_time_sibling(found: World) -> None:
    """Order 1042 has called and deleted itself; order 1043, due the same minute, is still there."""
    found.define(a_schedule("order-of-the-night-1042", target(SECRET), **ONCE))
    found.define(a_schedule("order-of-the-night-1043", target(OTHER), **ONCE))
    found.fire(schedule("order-of-the-night-1042"))
    delete_schedule("order-of-the-night-1042")
    found.run()


def one_time_sibling_of_a_recurring_one(found: World) -> None:
    """A recurring schedule is all that is left that fits, but one-time ones share the cut name."""
    found.define(a_schedule("order-of-the-night-1042", target(SECRET), **ONCE))
    later = ONCE | {"ScheduleExpression": "at(2026-11-24T00:00:00)"}
    found.define(a_schedule("order-of-the-night-1043", target(OTHER), **later))
    found.define(a_schedule("order-of-the-night-all", target(OTHER)))
    found.fire(schedule("order-of-the-night-1042"))
    delete_schedule("order-of-the-night-1042")
    found.run()


def one_time_universal_sibling(found: World) -> None:
    """Calls of universal targets name no schedule at all."""
    found.define(a_schedule("order-1042", universal(SECRET), **ONCE))
    found.define(a_schedule("order-1043", universal(OTHER), **ONCE))
    found.fire(schedule("order-1042"))
    delete_schedule("order-1042")
    found.run()


def not_yet_due(found: World) -> None:
    """Its name is whole, but its time had not come when the call was made."""
    later = ONCE | {"ScheduleExpression": "at(2026-11-23T01:00:00)"}
    found.define(a_schedule("order", target(OTHER), group="shop", **later))
    found.define(a_schedule("order", target(SECRET), **ONCE))
    found.fire(schedule("order"))
    delete_schedule("order")
    found.run()


def siblings(first: dict[str, Any], second: dict[str, Any], name: str) -> Attack:
    def attack(found: World) -> None:
        """Two definitions fit the call, and differ in what is hidden."""
        found.define(first)
        found.define(second)
        if "Rules" in first:
            found.fire(rule(name))
        else:
            found.fire(schedule(name))
        found.run()

    return attack


retained_siblings = siblings(
    a_schedule("order", target(SECRET), **ONCE),
    a_schedule("order", target(OTHER), group="shop", **ONCE),
    "order",
)
recurring_siblings = siblings(a_schedule(LONG), a_schedule(f"{LONG}-2", target(OTHER)), LONG)
sibling_in_another_group = siblings(
    a_schedule("order"), a_schedule("order", target(OTHER), group="shop"), "order"
)
sibling_on_another_bus = siblings(
    a_rule("order"), a_rule("order", target(OTHER), bus="shop"), "order"
)
universal_siblings = siblings(
    a_schedule("a", universal(SECRET)), a_schedule("b", universal(OTHER)), "a"
)
sibling_that_cannot_be_used = siblings(
    a_rule("order"), a_rule("order", with_input(input_of(OTHER, x=1)), bus="shop"), "order"
)
filled_in_by_the_scheduler = siblings(
    a_schedule("order", target("<aws.scheduler.execution-id>")), {}, "order"
)


def edited_between_attempts(found: World) -> None:
    """The rule's environment is another one when attempt 2 is due."""
    found.fire(rule("nightly"))
    while not found.outcomes:
        found.step()
    found.calls.clear()
    found.define(a_rule("nightly", target(OTHER)))
    found.run()


def edited_before_attempt_1(found: World) -> None:
    """A schedule was changed between the call and the first attempt."""
    found.fire(schedule("victim"))
    found.wait(timedelta(seconds=1))
    (made,) = a_schedule("victim", target(OTHER))["Schedules"]
    boto3.client("scheduler").update_schedule(**made)
    found.run()


def edited_to(change: dict[str, Any], universally: bool = False) -> Attack:
    def attack(found: World) -> None:
        """The one that called was changed since, be it to what it may; its sibling still fits."""
        first, second = (universal(v) if universally else target(v) for v in (SECRET, OTHER))
        found.define(a_schedule(LONG, first))
        found.define(a_schedule(f"{LONG}-2", second))
        found.fire(schedule(LONG))
        found.wait(timedelta(seconds=1))
        (made,) = a_schedule(LONG, first | change)["Schedules"]
        boto3.client("scheduler").update_schedule(**made)
        found.run()

    return attack


edited_sibling = edited_to(target(Group="x"))
edited_to_another_family = edited_to(target(TaskDefinitionArn=f"{TASK[:-2]}s:7"))
edited_to_another_cluster = edited_to({"Arn": f"{CLUSTER}-2"})
edited_to_another_service = edited_to({"Arn": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f"})
edited_to_another_role = edited_to(target(role=ANOTHER_ROLE))
universal_edited_to_another_role = edited_to(universal(role=ANOTHER_ROLE), universally=True)
universal_edited_to_an_ecs_target = edited_to(target(), universally=True)
universal_edited_to_another_family = edited_to(universal(TaskDefinition="other"), universally=True)


def longer_name(found: World) -> None:
    """A name that was not cut is the whole name."""
    found.define(a_schedule("order"))
    found.define(a_schedule("order-2", target(OTHER)))
    found.fire(schedule("order"))
    delete_schedule("order")
    found.run()


def left_with(**members: Any) -> Attack:
    def attack(found: World) -> None:
        """The caller is gone; what is left could not have called, or may be gone like it."""
        found.define(a_schedule(LONG))
        found.define(a_schedule(f"{LONG}-2", target(OTHER), **members))
        found.wait(timedelta(days=2))  # a disabled one may still retry for a day
        found.fire(schedule(LONG))
        delete_schedule(LONG)
        found.run()

    return attack


def one_time_sibling_of_another_role(found: World) -> None:
    """Where one-time schedules share the cut name, the caller may be one that is gone."""
    found.define(a_schedule(f"{LONG}-1", target(SECRET), **ONCE))
    found.define(a_schedule(f"{LONG}-2", target(SECRET, ANOTHER_ROLE), **ONCE))
    found.define(a_schedule(f"{LONG}-all", target(OTHER)))
    found.fire(schedule(f"{LONG}-1"))
    delete_schedule(f"{LONG}-1")
    found.run()


BUS = "b" * 200  # its rules' ARNs are too long for a tag


def long_name_edited(found: World) -> None:
    """The ARN has no room in the tag; its checksum has."""
    found.define(a_rule("nightly-report", bus=BUS))
    found.fire(rule("nightly-report", BUS))
    while not found.outcomes:
        found.step()
    found.calls.clear()
    found.define(a_rule("nightly-report", target(OTHER), bus=BUS))
    found.run()


def differing(universally: dict[str, Any] | None = None, **members: Any) -> Attack:
    def attack(found: World) -> None:
        """The definition was another one when it called: what it holds now is of no such call."""
        if universally is None:
            found.fire(rule("nightly"))
            parameters = target(**members)["EcsParameters"]
            found.define(a_rule("nightly", target(OTHER) | {"EcsParameters": parameters}))
        else:
            found.define(a_schedule("order", universal()))
            found.fire(schedule("order"))
            delete_schedule("order")
            found.define(a_schedule("order-2", universal(OTHER, **universally)))
        found.run()

    return attack


def too_many_universal_schedules(found: World) -> None:
    """1,001 schedules may have made the call."""
    found.define(a_schedule("nightly-0", universal()))
    found.fire(schedule("nightly-0"))
    # At once, for moto takes some seconds otherwise.
    group = scheduler_backends[ACCOUNT]["eu-west-1"].schedule_groups["default"]
    first = group.schedules["nightly-0"]
    for n in range(1, 1001):
        group.schedules[f"nightly-{n}"] = another = copy.copy(first)
        another.name = f"nightly-{n}"
        another.arn = f"{first.arn[:-1]}{n}"
    found.run()


# The mutants: what the function would have to overlook.

Mutant = list[tuple[Any, str, Any]]
REAL_CALLER_OF, REAL_SOURCE_OF = caller.caller_of, source.source_of
REAL_ENVIRONMENTS, REAL_OTHER_CALLER = proof._environments, proof._other_caller
REAL_DIFFERENCE, REAL_JUDGE = comparison.difference, proof._judge


def by_session_alone(call: FailedCall, settings: Settings) -> Caller:
    if call.caller_arn.endswith(f"/{settings.function_name}"):
        return Caller(OURS, call.role)
    return REAL_CALLER_OF(call, settings)


def trusts_everybody_s_tags(
    call: Any, caller: Any, begun: bool, asked: Any, tags: list[dict[str, str]]
) -> Source:
    begun = begun or any(tag["key"] == DEFINITION_TAG for tag in tags)
    return REAL_SOURCE_OF(call, caller, begun, asked, tags)


def ignores_the_role(found: Definition, asked: Any, search: Any) -> Unfit | None:
    return REAL_OTHER_CALLER(found, asked, replace(search, role=found.role))


def ignores_changes(found: Definition, asked: Any, search: Any) -> Unfit | None:
    if found.schedule:
        schedule = {**found.schedule, "LastModificationDate": found.made}
        found = replace(found, schedule=schedule)
    return REAL_OTHER_CALLER(found, asked, search)


class Agreeing(list[Any]):
    """It equals whatever another definition has."""

    def __ne__(self, other: object) -> bool:
        return False


def passes_over_the_unusable(*arguments: Any) -> Any:
    try:
        return REAL_JUDGE(*arguments)
    except NotExact:
        return Unfit(0, "")


def ignoring(member: str) -> Mutant:
    def mutant(request: Any, asked: Any, settings: Any, *, begun: bool) -> str | None:
        found = REAL_DIFFERENCE(request, asked, settings, begun=begun)
        return None if found == member else found

    return [(proof, "difference", mutant)]


SESSION: Mutant = [(handler, "caller_of", by_session_alone)]
TAGS: Mutant = [(decision, "source_of", trusts_everybody_s_tags)]
SIGNS: Mutant = [(source, "is_shown_as", lambda *_: True)]
NO_ROLE: Mutant = [(proof, "_other_caller", ignores_the_role)]
SIBLING: Mutant = [(proof, "_is_sibling", lambda *_: False)]
DUE: Mutant = [(proof, "due_of", lambda _: (None, None))]
CHANGES: Mutant = [(proof, "_other_caller", ignores_changes)]
AGREE: Mutant = [(proof, "_environments", lambda *a: Agreeing(REAL_ENVIRONMENTS(*a)))]
UNUSABLE: Mutant = [(proof, "_judge", passes_over_the_unusable)]
NO_KEYWORDS: Mutant = [(definition, "KEYWORDS", "(?!)")]
CHECKSUM: Mutant = [(proof, "checksum_of", lambda _: "0000")]
ANY_NUMBER: Mutant = [(recover, "MOST_READ", 10_000)]
ANY_CLUSTER: Mutant = [(m, "is_cluster", lambda *_: True) for m in (comparison, proof)]
ANY_FAMILY: Mutant = [
    (comparison, "is_task_definition", lambda *_: True),
    (proof, "is_family", lambda *_: True),
]
OTHER_NETWORK = {"awsvpcConfiguration": {"Subnets": ["subnet-1"], "SecurityGroups": ["sg-1"]}}
OTHER_GROUPS = {"awsvpcConfiguration": {"Subnets": ["subnet-1", "subnet-2"]}}
PUBLIC = {"awsvpcConfiguration": NETWORK["awsvpcConfiguration"] | {"AssignPublicIp": "ENABLED"}}

ATTACKS: dict[str, tuple[Attack, Mutant]] = {
    "spoofed session": (spoofed_session, SESSION),
    "spoofed session elsewhere": (
        spoofed_session_elsewhere,
        [*SESSION, (proof, "difference", lambda *_, **__: None)],
    ),
    "copied tags": (copied_tags, TAGS),
    "victim's rule named": (victims_rule_named, SIGNS),
    "victim's name on another bus": (victims_name_on_another_bus, NO_ROLE),
    "victim's schedule named": (victims_schedule_named, NO_ROLE),
    "no role shown": (no_role_shown, NO_ROLE),
    "one-time sibling": (one_time_sibling, SIBLING),
    "one-time sibling of a recurring one": (one_time_sibling_of_a_recurring_one, SIBLING),
    "one-time universal sibling": (one_time_universal_sibling, SIBLING),
    "not yet due": (not_yet_due, DUE),
    "retained siblings": (retained_siblings, AGREE),
    "recurring siblings": (recurring_siblings, AGREE),
    "sibling in another group": (sibling_in_another_group, AGREE),
    "sibling on another bus": (sibling_on_another_bus, AGREE),
    "universal siblings": (universal_siblings, AGREE),
    "sibling that cannot be used": (sibling_that_cannot_be_used, UNUSABLE),
    "filled in by the scheduler": (filled_in_by_the_scheduler, NO_KEYWORDS),
    "edited between attempts": (edited_between_attempts, CHECKSUM),
    "edited before attempt 1": (edited_before_attempt_1, CHANGES),
    "edited sibling": (edited_sibling, CHANGES),
    "sibling edited to another family": (edited_to_another_family, CHANGES),
    "sibling edited to another cluster": (edited_to_another_cluster, CHANGES),
    "sibling edited to another service": (edited_to_another_service, CHANGES),
    "sibling edited to another role": (edited_to_another_role, CHANGES),
    "universal sibling edited to another role": (universal_edited_to_another_role, CHANGES),
    "universal sibling edited to an ECS target": (universal_edited_to_an_ecs_target, CHANGES),
    "longer name": (
        longer_name,
        [(Search, "may_be", lambda search, name: name.startswith(search.name))],
    ),
    "universal sibling edited to another family": (universal_edited_to_another_family, CHANGES),
    "sibling that is disabled": (left_with(State="DISABLED"), DUE),
    "sibling that has not started": (left_with(StartDate=datetime(2027, 1, 1, tzinfo=UTC)), DUE),
    "sibling that has ended": (left_with(EndDate=datetime(2026, 11, 1, tzinfo=UTC)), DUE),
    "sibling that ends itself": (
        left_with(EndDate=datetime(2027, 1, 1, tzinfo=UTC), ActionAfterCompletion="DELETE"),
        SIBLING,
    ),
    "one-time sibling of another role": (one_time_sibling_of_another_role, SIBLING),
    "rule with a long name edited between attempts": (long_name_edited, CHECKSUM),
    "too many universal schedules": (too_many_universal_schedules, ANY_NUMBER),
    "other subnets": (
        differing(NetworkConfiguration=OTHER_NETWORK),
        ignoring("networkConfiguration"),
    ),
    "other security groups": (
        differing(NetworkConfiguration=OTHER_GROUPS),
        ignoring("networkConfiguration"),
    ),
    "public address": (differing(NetworkConfiguration=PUBLIC), ignoring("networkConfiguration")),
    "no network": (differing(NetworkConfiguration=None), ignoring("networkConfiguration")),
    "ECS Exec": (differing(EnableExecuteCommand=True), ignoring("enableExecuteCommand")),
    "managed tags": (differing(EnableECSManagedTags=True), ignoring("enableECSManagedTags")),
    "group": (differing(Group="x"), ignoring("group")),
    "platform": (differing(PlatformVersion="1.3.0"), ignoring("platformVersion")),
    "tags": (differing(Tags=[{"Key": "team", "Value": "x"}]), ignoring("tags")),
    "count": (differing(TaskCount=2), ignoring("count")),
    "launch type": (differing(LaunchType="EC2"), ignoring("launchType")),
    "providers": (
        differing(CapacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT"}]),
        ignoring("capacityProviderStrategy"),
    ),
    "constraints": (
        differing(PlacementConstraints=[{"type": "distinctInstance"}]),
        ignoring("placementConstraints"),
    ),
    "strategy": (differing(PlacementStrategy=[{"type": "random"}]), ignoring("placementStrategy")),
    "propagated tags": (differing(PropagateTags="TASK_DEFINITION"), ignoring("propagateTags")),
    "revision": (differing(TaskDefinitionArn=f"{TASK}1"), ignoring("taskDefinition")),
    "family": (differing(TaskDefinitionArn=f"{TASK[:-2]}s:7"), ANY_FAMILY),
    "cluster": (differing({"Cluster": f"{CLUSTER}-2"}), ANY_CLUSTER),
    "universal count": (differing({"Count": 2}), ignoring("count")),
    "started by": (differing({"StartedBy": "x"}), ignoring("startedBy")),
    "cpu": (
        differing({"Overrides": json.loads(universal()["Input"])["Overrides"] | {"Cpu": "512"}}),
        ignoring("overrides"),
    ),
}


AFTER_AN_ATTEMPT = (
    "spoofed session",
    "spoofed session elsewhere",
    "copied tags",
    "edited between attempts",
    "rule with a long name edited between attempts",
)


def attacked(name: str) -> World:
    attack, _ = ATTACKS[name]
    failures = 1 if name in AFTER_AN_ATTEMPT else 0
    with world(a_rule(), a_schedule("victim"), failures=failures) as found:
        attack(found)
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_repelled(name: str) -> None:
    found = attacked(name)
    assert sent(found) == []
    assert refusal(found)


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_has_a_mutant_that_lets_it_through(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, mutant = ATTACKS[name]
    for module, attribute, value in mutant:
        monkeypatch.setattr(module, attribute, value)
    assert sent(attacked(name))


def test_too_many_universal_schedules_are_refused_with_the_number_and_none_is_read() -> None:
    found = attacked("too many universal schedules")
    assert refusal(found) == (
        "more than 1,000 schedules have the universal target, of which the call names none: use "
        "the ECS target, whose calls do."
    )
    assert "before GetSchedule" not in found.points


def test_a_thousand_universal_schedules_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    run = World.run

    def with_one_less(found: World) -> None:
        boto3.client("scheduler").delete_schedule(Name="nightly-1000", GroupName="default")
        run(found)

    monkeypatch.setattr(World, "run", with_one_less)
    assert sent(attacked("too many universal schedules")) == [SECRET]


def test_a_universal_schedule_that_cannot_call_is_no_candidate() -> None:
    broken = universal() | {"Input": "{"}
    with world(a_schedule("a", universal()), a_schedule("b", broken)) as found:
        by_its_schedule(found, "a")
        assert sent(found) == [SECRET]
        found.calls.clear()
        found.fire(schedule("a"))
        delete_schedule("a")
        found.run()
        assert refusal(found) == f"the schedule b in the group default cannot start a task{BY_HAND}"


def test_a_known_definition_that_cannot_be_used_any_more_was_changed() -> None:
    with world(a_rule(), failures=1) as found:
        found.fire(rule("nightly"))
        while not found.outcomes:
            found.step()
        found.define(a_rule("nightly", with_input("[]")))
        found.run()
        assert refusal(found) == f"{NIGHTLY}was changed after an earlier attempt{BY_HAND}"


def test_a_rule_with_the_same_checksum_has_to_fit_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "checksum_of", lambda _: "0000")
    with world(a_rule(), failures=1) as found:
        found.fire(rule("nightly"))
        while not found.outcomes:
            found.step()
        found.define(a_rule("nightly", target(OTHER, EnableExecuteCommand=True)))
        found.run()
        assert refusal(found) == f"{NIGHTLY}was changed after an earlier attempt{BY_HAND}"


def test_a_definition_that_fills_it_in_stands_in_the_way_of_one_that_fits() -> None:
    dynamic = target("<aws.scheduler.execution-id>")
    with world(a_schedule("order"), a_schedule("order", dynamic, group="shop")) as found:
        by_its_schedule(found, "order")
    assert refusal(found) == (
        f"the schedule order in the group shop fills in the environment when it fires: {COMMAND}"
    )


def test_siblings_that_differ_are_named_with_the_way_out() -> None:
    assert refusal(attacked("sibling on another bus")) == (
        "the rule order on the bus default and the rule order on the bus shop both fit the call, "
        "and their environments differ: give each a role, group or tag of its own, or "
        f"{COMMAND}"
    )
    assert refusal(attacked("one-time sibling")) == (
        "the schedule order-of-the-night-1043 in the group default is a schedule that ends, and "
        "the call does not show a whole name: the schedule that called may have deleted itself. "
        f"Give such schedules names of at most 19 characters and an ECS target, or {COMMAND}"
    )


# What later attempts do.


def test_an_attempt_of_which_nobody_knows_the_result_keeps_its_definition() -> None:
    with world(a_rule()) as found:
        found.ecs.errors = [ECSException("ServerException", "oops")]
        found.fire(rule("nightly"))
        while not found.outcomes:
            found.step()
        found.define(a_rule("nightly", target(OTHER)))
        found.run()
        assert refusal(found) == f"{NIGHTLY}was changed after an earlier attempt{BY_HAND}"
    assert sent(found) == [SECRET]


def test_each_attempt_asks_for_what_is_missing_still() -> None:
    with world(a_rule("nightly", target(TaskCount=4)), failures=1) as found:
        found.ecs.at_most = 3
        found.fire(rule("nightly"))
        while len(found.calls) < 2:
            found.step()
        found.ecs.failures = 1
        found.run()
    assert [call["count"] for call in found.calls] == [4, 4, 1, 1]
    assert sent(found) == [SECRET] * 4


def test_a_schedule_whose_target_is_no_task_any_more_was_changed() -> None:
    with world(a_schedule(), failures=1) as found:
        found.fire(schedule("nightly"))
        while not found.outcomes:
            found.step()
        (made,) = a_schedule()["Schedules"]
        function = {"Arn": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f", "RoleArn": ROLE}
        boto3.client("scheduler").update_schedule(**made | {"Target": function})
        found.run()
        who = "the schedule nightly in the group default "
        assert refusal(found) == f"{who}was changed after an earlier attempt{BY_HAND}"


# What is refused without need is a job lost without need.


def test_a_one_time_schedule_with_a_name_of_19_characters_is_verified() -> None:
    for name, launched in (("a" * 19, True), ("a" * 20, False)):
        with world(a_schedule(name, None, **ONCE)) as found:
            by_its_schedule(found, name)
        assert (sent(found) == [SECRET]) is launched


def test_schedules_that_could_not_have_called_do_not_stand_in_the_way() -> None:
    function = {"Arn": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f", "RoleArn": ROLE}
    others = [
        a_schedule(f"{LONG}-2", target(OTHER), State="DISABLED"),
        a_schedule(f"{LONG}-3", target(OTHER), StartDate=datetime(2027, 1, 1, tzinfo=UTC)),
        a_schedule(f"{LONG}-4", function),
        a_schedule(f"{LONG}-5", universal(OTHER)),
        a_schedule(f"{LONG}-6", target(OTHER, ANOTHER_ROLE)),
        a_schedule("nightly-report", target(OTHER)),
    ]
    with world(a_schedule(LONG), *others) as found:
        found.wait(timedelta(days=2))
        by_its_schedule(found, LONG)
    assert sent(found) == [SECRET]


def test_universal_targets_of_other_jobs_do_not_stand_in_the_way() -> None:
    others = [
        a_schedule("b", universal(OTHER, ANOTHER_ROLE), **ONCE),
        a_schedule("c", universal(OTHER, TaskDefinition="other"), **ONCE),
        a_schedule("d", universal(OTHER, Cluster=f"{CLUSTER}-2"), **ONCE),
        a_schedule("e", universal(OTHER, TaskDefinition=f"{TASK}1")),
    ]
    with world(a_schedule("a", universal()), *others) as found:
        by_its_schedule(found, "a")
        found.fire(schedule("a"))
        # One that is made since did not call, and neither did an attempt of ours that waits.
        found.wait(timedelta(seconds=1))
        group = found.stack.environment["SCHEDULE_GROUP"]
        (made,) = a_schedule("x", universal(OTHER), group=group)["Schedules"]
        scheduler = boto3.client("scheduler")
        scheduler.create_schedule(**made | {"GroupName": "default", "Name": "f"})
        found.run()
    assert sent(found) == [SECRET] * 2


def test_an_attempt_that_waits_is_no_schedule_that_may_have_called() -> None:
    with world(a_schedule("a", universal())) as found:
        group = found.stack.environment["SCHEDULE_GROUP"]
        (waits,) = a_schedule("w", universal(OTHER), group=group, **ONCE)["Schedules"]
        scheduler = boto3.client("scheduler")
        scheduler.create_schedule(**waits)
        found.wait(timedelta(seconds=1))
        event = found.fire(schedule("a"))
        found.wait(timedelta(seconds=1))
        scheduler.update_schedule(**waits)
        # One that was made since is not even read.
        (made,) = a_schedule("x")["Schedules"]
        scheduler.create_schedule(**made)
        outcome = found.call_handler(event)
    assert (outcome["outcome"], sent(found)) == ("LAUNCHED", [SECRET])
    assert found.points.count("before GetSchedule") == 1


def test_other_universal_targets_are_not_read() -> None:
    service = universal() | {"Arn": "arn:aws:scheduler:::aws-sdk:ecs:updateService"}
    with world(a_schedule("a", universal()), a_schedule("b", service)) as found:
        by_its_schedule(found, "a")
    assert sent(found) == [SECRET]
    assert found.points.count("before GetSchedule") == 1


def test_a_change_in_the_second_of_the_call_may_have_been_after_it() -> None:
    with world(a_schedule()) as found:
        found.fire(schedule("nightly"))
        (made,) = a_schedule()["Schedules"]
        boto3.client("scheduler").update_schedule(**made)
        found.run()
        assert "was changed since the call" in refusal(found)


def test_a_time_zone_that_is_unknown_here_is_named() -> None:
    once = ONCE | {"ScheduleExpressionTimezone": "America/Nowhere"}
    with world(a_schedule("nightly", None, **once)) as found:
        by_its_schedule(found)
        assert refusal(found) == (
            "in the schedule nightly in the group default, ScheduleExpressionTimezone is unknown "
            f"to this function{BY_HAND}"
        )


def test_more_than_a_thousand_schedules_of_one_cut_name_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recover, "MOST_READ", 2)
    with world(*(a_schedule(f"{LONG}-{n}") for n in range(3))) as found:
        by_its_schedule(found, f"{LONG}-0")
        assert refusal(found) == (
            "more than 2 schedules have a name that begins with what the call shows: give it a "
            "shorter one."
        )


@pytest.mark.parametrize("buses", [("a", "z"), ("z", "a")])
def test_the_reason_is_that_of_the_definition_that_came_nearest(buses: tuple[str, str]) -> None:
    near, far = target(NetworkConfiguration=None), target(role=ANOTHER_ROLE)
    with world(a_rule()) as found:
        found.fire(rule("nightly"))
        boto3.client("events").remove_targets(Rule="nightly", Ids=["0"])
        for bus, made in zip(buses, (near, far), strict=True):
            found.define(a_rule("nightly", made, bus=bus))
        found.run()
        assert refusal(found) == (
            f"the rule nightly on the bus {buses[0]} has no networkConfiguration, which the call "
            f"has{BY_HAND[:-1]} (of 2 definitions, none fits)."
        )


def test_the_first_of_several_that_agree_is_named_whatever_the_order() -> None:
    with world(a_rule(bus="z"), a_rule(bus="a"), failures=1) as found:
        found.fire(rule("nightly", "z"))
        found.run()
    details = [
        outcome["detail"] for outcome in found.outcomes if "Environment" in outcome["detail"]
    ]
    assert len(details) == 2
    for detail in details:
        assert detail.startswith("Environment recovered from the rule nightly on the bus a: ORDER.")


def test_two_targets_of_one_rule_that_differ_are_named_as_such() -> None:
    with world(a_rule("nightly", target(), target(OTHER))) as found:
        by_its_rule(found)
        assert refusal(found).startswith("two targets of the rule nightly on the bus default fit ")


def test_all_that_was_recovered_is_named_once() -> None:
    both = [
        {"name": "app", "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "log", "cpu": 1},
        {"name": "agent", "environment": [{"name": "B", "value": "3"}, {"name": "C"}]},
    ]
    with world(a_rule("nightly", with_input({"containerOverrides": both}))) as found:
        by_its_rule(found)
    assert found.outcomes[0]["detail"].endswith("on the bus default: A, B, C.")
    (call,) = found.calls
    assert call["overrides"]["containerOverrides"] == both
    with world(a_rule("nightly", target(None))) as found:
        by_its_rule(found)
    assert found.outcomes[0]["detail"].endswith("on the bus default: it is empty.")


def test_a_spent_token_keeps_the_definition() -> None:
    with world(a_rule()) as found:
        found.ecs.errors = [ConflictException([])]
        by_its_rule(found)
    assert found.outcomes[-1]["outcome"] == "LAUNCHED"
    tags = [t for call in found.calls for t in call["tags"] if t["key"] == DEFINITION_TAG]
    assert len(tags) == len(found.calls) == 2
    assert tags[0] == tags[1]


def test_a_visible_environment_needs_no_look_up() -> None:
    visible = [{"name": "A", "value": "1"}]
    with world(a_rule()) as found:
        event = found.fire(rule("nightly"))
        parameters = event["detail"]["requestParameters"]
        parameters["overrides"]["containerOverrides"][0]["environment"] = visible
        found.run()
    (call,) = found.calls
    assert call["overrides"]["containerOverrides"][0]["environment"] == visible
    assert not [point for point in found.points if "List" in point]


def test_the_user_s_own_tag_is_sent_and_compared() -> None:
    tags = [{"Key": "retry-run-task:max-attempts", "Value": "3"}]
    with world(a_rule("nightly", target(Tags=tags)), failures=1) as found:
        by_its_rule(found)
    for call in found.calls:
        assert {"key": "retry-run-task:max-attempts", "value": "3"} in call["tags"]
    assert sent(found) == [SECRET] * 2
