"""Act: look up what CloudTrail hides, at the moment of the call, for the call alone."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import StructureShape
from dateutil.tz import gettz

from retry_run_task.definition import Definition, Source, hidden_environments, restore
from retry_run_task.request import NotExact
from retry_run_task.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import TargetTypeDef
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_scheduler.type_defs import GetScheduleOutputTypeDef

# Reads are quick, and safe to repeat: three tries of 2 + 5 s, and the waits between them.
CLIENT_CONFIG = Config(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}
)


def recover(
    request: Mapping[str, Any],
    source: Source,
    settings: Settings,
    run_task: StructureShape,
    events: "Callable[[], EventBridgeClient]",
    scheduler: "Callable[[], EventBridgeSchedulerClient]",
) -> tuple[dict[str, Any], str]:
    """The request with its environments, and a sentence that names what was recovered.

    Raises NotExact where they cannot be proven or looked up, and botocore's ClientError
    for whatever else AWS rejects.
    """
    cluster = settings.arn("cluster", request.get("cluster", "default"))
    try:
        if source.kind == "rule":
            definitions = list(_rules(source, cluster, events()))
        else:
            definitions = list(_schedules(source, cluster, scheduler()))
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("AccessDeniedException", "AccessDenied"):
            raise
        service = "events" if source.kind == "rule" else "scheduler"
        problem = f"the function may not call {service}:{error.operation_name}"
        path = hidden_environments(request)[0]
        raise NotExact(path, f"is hidden by CloudTrail, and {problem}") from error
    return restore(request, definitions, source, settings, run_task)


def _rules(source: Source, cluster: str, events: "EventBridgeClient") -> Iterator[Definition]:
    """Targets of rules on all buses: an event of any source can start a task."""
    for bus in _buses(events):
        rules = events.get_paginator("list_rule_names_by_target")
        for page in rules.paginate(TargetArn=cluster, EventBusName=bus):
            for rule in filter(source.may_be, page["RuleNames"]):
                targets = events.get_paginator("list_targets_by_rule")
                for found in targets.paginate(Rule=rule, EventBusName=bus):
                    for target in found["Targets"]:
                        if "EcsParameters" in target:
                            yield _definition(f"the rule {rule} on the bus {bus}", target)


def _buses(events: "EventBridgeClient") -> Iterator[str]:
    page = events.list_event_buses()
    yield from (bus["Name"] for bus in page["EventBuses"])
    while "NextToken" in page:
        page = events.list_event_buses(NextToken=page["NextToken"])
        yield from (bus["Name"] for bus in page["EventBuses"])


def _schedules(
    source: Source, cluster: str, scheduler: "EventBridgeSchedulerClient"
) -> Iterator[Definition]:
    """Targets of schedules in all groups."""
    for page in scheduler.get_paginator("list_schedules").paginate(NamePrefix=source.name):
        for found in page["Schedules"]:
            name, group = found["Name"], found["GroupName"]
            if source.may_be(name) and found["Target"]["Arn"] == cluster:
                schedule = scheduler.get_schedule(Name=name, GroupName=group)
                definition = _definition(
                    f"the schedule {name} in the group {group}", schedule["Target"]
                )
                changed = schedule["LastModificationDate"]
                yield replace(definition, since=_first_call(schedule), changed=changed)


def _first_call(schedule: "GetScheduleOutputTypeDef") -> datetime:
    """When a schedule could make its first call: a one-time schedule makes no other."""
    once = re.fullmatch(r"at\((.+)\)", schedule["ScheduleExpression"])
    if once is None:
        return schedule["CreationDate"]
    # dateutil comes with boto3 and brings the time zones along, which Lambda's system may not have.
    zone = gettz(schedule.get("ScheduleExpressionTimezone", "UTC"))
    return max(schedule["CreationDate"], datetime.fromisoformat(once[1]).replace(tzinfo=zone))


def _definition(name: str, target: "TargetTypeDef | Any") -> Definition:
    is_constant = "InputPath" not in target and "InputTransformer" not in target
    return Definition(
        name=name,
        cluster=target["Arn"],
        task_definition=target["EcsParameters"]["TaskDefinitionArn"],
        input=target.get("Input", "{}") if is_constant else None,
        role=target.get("RoleArn", ""),
    )
