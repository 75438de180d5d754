"""EventBridge and EventBridge Scheduler as callers: the RunTask calls that their targets make."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import boto3
import botocore.session
from botocore.model import ListShape, Shape, StructureShape

from rehearsal.cloudtrail import run_task_event
from rehearsal.policies import CAPACITY
from rehearsal.records import YEARS, read_moment
from retry_run_task.caller import RULE_PREFIX, SCHEDULE_PREFIX
from retry_run_task.definition import Definition, is_universal, request_of
from retry_run_task.request import AnyText, NotExact, exact

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient

# As a record of 2024-11 shows Scheduler; rules show their service's name (aws-facts, section 1).
SCHEDULERS_AGENT = "AmazonEventBridgeScheduler aws-sdk-java/2.28.29 md/io#async md/http#NettyNio"
RULES_SERVICE = "events.amazonaws.com"

# What AWS shows of the flags that a definition does not state (a record of a rule's call).
FLAGS = {"enableECSManagedTags": False, "enableExecuteCommand": False}

# Members that whatever is filled in as a whole may have.
FILLED_IN = ("containerOverrides", "environment", "name", "value")

# What GetSchedule shows and CreateSchedule does not take.
SHOWN_ONLY = ("Arn", "CreationDate", "LastModificationDate", "ResponseMetadata")
DATES = ("CreationDate", "LastModificationDate", "StartDate", "EndDate")


def exact_definitions(definitions: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """These rules and schedules without null members, as the services' models take them.

    Raises NotExact, which names the member, if they could not be made. Whether their targets make
    a call is for the function to say.
    """
    session = botocore.session.get_session()
    events, scheduler = map(session.get_service_model, ("events", "scheduler"))
    put_targets = cast("StructureShape", events.operation_model("PutTargets").input_shape)
    create = cast("StructureShape", scheduler.operation_model("CreateSchedule").input_shape)
    described = cast("StructureShape", events.operation_model("DescribeRule").output_shape).members
    shown_only = {*described, "ResponseMetadata"} - {"Name", "EventBusName"}
    found: dict[str, list[dict[str, Any]]] = {"Rules": [], "Schedules": []}
    for i, each in enumerate(_list(definitions, "Rules")):
        if each.get("Name") is None:
            raise NotExact(f"Rules[{i}].Name", "is missing")
        given = {k: v for k, v in each.items() if k not in {"Name", *shown_only}}
        given["Rule"] = each["Name"]
        made = exact(given, put_targets, f"Rules[{i}]")
        for name, shown in (("Rule", "Name"), ("EventBusName", "EventBusName")):
            _check_name(made.get(name), put_targets.members[name], f"Rules[{i}].{shown}")
        for k, target in enumerate(made["Targets"]):
            _check_target(target, f"Rules[{i}].Targets[{k}]")
        found["Rules"].append({"Name": made.pop("Rule"), **made})
    for i, each in enumerate(_list(definitions, "Schedules")):
        # botocore takes dates as text, which the model does not say.
        dates = {name: date_in(each, name, f"Schedules[{i}].") for name in DATES}
        given = {k: v for k, v in each.items() if k not in (*SHOWN_ONLY, *DATES)}
        made = exact(given, create, f"Schedules[{i}]")
        for name in ("Name", "GroupName"):
            _check_name(made.get(name), create.members[name], f"Schedules[{i}].{name}")
        _check_target(made["Target"], f"Schedules[{i}].Target")
        found["Schedules"].append(made | {k: date for k, date in dates.items() if date})
    return found


def date_in(schedule: Mapping[str, Any], name: str, path: str = "") -> datetime | None:
    """A date as the AWS CLI prints it: version 2 in ISO 8601, version 1 in seconds.

    Raises NotExact for what is no date between 2000 and 2100.
    """
    shown = schedule.get(name)
    if shown is None or isinstance(shown, datetime):
        return shown
    if isinstance(shown, bool):
        raise NotExact(path + name, "is no date")
    try:
        is_text = isinstance(shown, str)
        date = read_moment(shown) if is_text else datetime.fromtimestamp(shown, UTC)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise NotExact(path + name, "is no date") from error
    if date.year not in YEARS:
        raise NotExact(path + name, f"is not between {YEARS[0]} and {YEARS[-1]}")
    return date


def _list(definitions: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    listed = definitions.get(kind, [])
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise NotExact(kind, "is not a list of objects")
    return listed


def _check_name(name: str | None, shape: Shape, path: str) -> None:
    """What the models say of a name beyond its type."""
    pattern, most = shape.metadata["pattern"], shape.metadata["max"]
    if name is not None and not (len(name) <= most and re.fullmatch(pattern, name)):
        raise NotExact(path, f"is no name that AWS takes: {name!r:.80}")


def _check_target(target: Mapping[str, Any], path: str) -> None:
    """What a target that starts a task needs beyond what the models say; others need nothing."""
    if ":cluster/" not in target["Arn"] and not is_universal(target["Arn"]):
        return
    for name in ("RoleArn", "Input" if is_universal(target["Arn"]) else "EcsParameters"):
        if name not in target:
            raise NotExact(f"{path}.{name}", "is missing")


def rule(name: str, bus: str = "default", target: int = 0) -> Definition:
    """A target of a rule in the account, as EventBridge shows it."""
    events: EventBridgeClient = boto3.client("events")
    path = name if bus == "default" else f"{bus}/{name}"
    arn = events.describe_rule(Name=name, EventBusName=bus)["Arn"]
    assert arn.endswith(f":rule/{path}")
    targets = events.list_targets_by_rule(Rule=name, EventBusName=bus)["Targets"]
    shape = events.meta.service_model.shape_for("Target")
    return Definition(arn, targets[target], cast("StructureShape", shape))


def schedule(name: str, group: str = "default") -> Definition:
    """The target of a schedule in the account, as Scheduler shows it."""
    scheduler: EventBridgeSchedulerClient = boto3.client("scheduler")
    shape = scheduler.meta.service_model.shape_for("Target")
    found = scheduler.get_schedule(Name=name, GroupName=group)
    return Definition(found["Arn"], found["Target"], cast("StructureShape", shape), found)


def parameters_of(definition: Definition, run_task: StructureShape) -> dict[str, Any]:
    """The whole request: what the target defines, filled in, and what AWS adds to it."""
    request: dict[str, Any] = FLAGS | filled(request_of(definition, run_task), run_task)
    if not definition.is_universal:
        prefix = RULE_PREFIX if definition.is_rule else SCHEDULE_PREFIX
        request["startedBy"] = f"{prefix}{definition.name}"[:36]
    return request


def failed_call_of(
    definition: Definition,
    run_task: StructureShape,
    *,
    moment: datetime,
    event_id: str,
    reason: str = CAPACITY,
    **changes: Any,
) -> dict[str, Any]:
    """The event of the target's call, in which ECS placed nothing; `changes` to its parameters."""
    _, _, service, region, account, _ = definition.arn.split(":", 5)
    assert service in ("events", "scheduler")
    return run_task_event(
        parameters_of(definition, run_task) | changes,
        {"tasks": [], "failures": [{"reason": reason}]},
        event_id=event_id,
        moment=moment,
        region=region,
        account=account,
        role_arn=definition.role,
        session="5d41402abc4b2a76b9719d911017c592",
        user_agent=RULES_SERVICE if definition.is_rule else SCHEDULERS_AGENT,
        invoked_by=RULES_SERVICE if definition.is_rule else None,
    )


def filled(value: Any, shape: Shape, path: str = "") -> Any:
    """The value with something of its shape for all that is filled in when a definition fires.

    Raises NotExact, naming the member at `path`, where that is text and has to be something else.
    """
    if isinstance(value, AnyText):
        if not value.parts:
            return _anything(shape)
        if shape.type_name != "string":
            kind = {"structure": "an object"}.get(shape.type_name, f"of type {shape.type_name}")
            raise NotExact(path, f"is text, and has to be {kind}")
        return "filled in".join(value.parts)
    if isinstance(shape, ListShape):
        return [filled(item, shape.member, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(shape, StructureShape):
        dot = f"{path}." if path else ""
        return {
            name: filled(member, shape.members[name], f"{dot}{name}")
            for name, member in value.items()
        }
    return value


def _anything(shape: Shape) -> Any:
    """A value of the shape; an override of everything has a container with an environment."""
    if isinstance(shape, ListShape):
        return [_anything(shape.member)]
    if isinstance(shape, StructureShape):
        wanted = {*shape.metadata.get("required", []), *FILLED_IN} & shape.members.keys()
        return {name: _anything(shape.members[name]) for name in sorted(wanted)}
    return {"string": "filled in", "integer": 1}.get(shape.type_name, False)
