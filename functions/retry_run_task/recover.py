"""Act: look up what CloudTrail hides, at the moment of the call, for the call alone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import StructureShape

from retry_run_task.definition import Definition, is_universal
from retry_run_task.proof import Proof, prove
from retry_run_task.settings import Settings
from retry_run_task.source import Known, Search, Source, not_recovered
from retry_run_task.transient import transient

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient

# Reads are quick, and safe to repeat: three tries of 2 + 5 s, and the waits between them. This is
# for rules; schedules are read with the client of wait.py.
CLIENT_CONFIG = Config(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}
)

# A call of a universal target does not name its schedule, and other schedules may share a cut name:
# each has to be read. These take 50 s at 20 reads a second (a guess: one after the other).
MOST_READ = 1000


# What services call a request that IAM does not allow.
DENIED = ("AccessDeniedException", "AccessDenied")


@dataclass(frozen=True, slots=True)
class Unread:
    """A look-up ended in an error that passes: what is hidden can be looked up later."""

    error: str


def recover(
    asked: Mapping[str, Any],
    source: Source,
    settings: Settings,
    run_task: StructureShape,
    events: "Callable[[], EventBridgeClient]",
    scheduler: "Callable[[], EventBridgeSchedulerClient]",
) -> Proof | Unread:
    """What the request `asked` of a call hides, out of the definition that made it.

    Raises NotExact where that cannot be verified or looked up, and botocore's ClientError for
    whatever else AWS rejects, and that does not pass by itself.
    """
    is_rule = source.kind == "rule" if isinstance(source, Search) else ":events:" in source.arn
    try:
        if is_rule:
            definitions = list(_rules(source, asked, settings, events()))
        else:
            definitions = list(_schedules(source, asked, settings, scheduler()))
    except (ClientError, BotoCoreError) as error:
        if name := transient(error):
            return Unread(name)
        if not isinstance(error, ClientError) or error.response["Error"]["Code"] not in DENIED:
            raise
        action = f"{'events' if is_rule else 'scheduler'}:{error.operation_name}"
        raise not_recovered(
            asked, f"the function is not allowed to call {action}: allow it"
        ) from error
    return prove(asked, definitions, source, settings, run_task)


def _rules(
    source: Source, asked: Mapping[str, Any], settings: Settings, events: "EventBridgeClient"
) -> Iterator[Definition]:
    """Targets of the known rule, or of rules on all buses: any event can start a task."""
    if isinstance(source, Known):
        *path, name = source.arn.split(":", 5)[5].split("/")[1:]
        yield from _targets(events, settings, "/".join(path) or "default", name)
        return
    cluster = settings.arn("cluster", asked.get("cluster", "default"))
    for bus in _buses(events):
        rules = events.get_paginator("list_rule_names_by_target")
        for page in rules.paginate(TargetArn=cluster, EventBusName=bus):
            for rule in filter(source.may_be, page["RuleNames"]):
                yield from _targets(events, settings, bus, rule)


def _buses(events: "EventBridgeClient") -> Iterator[str]:
    page = events.list_event_buses()
    yield from (bus["Name"] for bus in page["EventBuses"])
    while "NextToken" in page:
        page = events.list_event_buses(NextToken=page["NextToken"])
        yield from (bus["Name"] for bus in page["EventBuses"])


def _targets(
    events: "EventBridgeClient", settings: Settings, bus: str, rule: str
) -> Iterator[Definition]:
    """The ECS targets of a rule; none if it is gone."""
    path = rule if bus == "default" else f"{bus}/{rule}"
    arn = f"arn:{settings.partition}:events:{settings.region}:{settings.account}:rule/{path}"
    shape = cast("StructureShape", events.meta.service_model.shape_for("Target"))
    targets = events.get_paginator("list_targets_by_rule")
    try:
        for page in targets.paginate(Rule=rule, EventBusName=bus):
            for target in page["Targets"]:
                if "EcsParameters" in target:
                    yield Definition(arn, target, shape)
    except events.exceptions.ResourceNotFoundException:
        return


def _schedules(
    source: Source,
    asked: Mapping[str, Any],
    settings: Settings,
    scheduler: "EventBridgeSchedulerClient",
) -> Iterator[Definition]:
    """The known schedule, or those that may have called."""
    shape = cast("StructureShape", scheduler.meta.service_model.shape_for("Target"))
    for group, name in _names(source, asked, settings, scheduler):
        try:
            schedule = scheduler.get_schedule(Name=name, GroupName=group)
        except scheduler.exceptions.ResourceNotFoundException:
            continue  # it has deleted itself meanwhile
        yield Definition(schedule["Arn"], schedule["Target"], shape, schedule)


def _names(
    source: Source,
    asked: Mapping[str, Any],
    settings: Settings,
    scheduler: "EventBridgeSchedulerClient",
) -> list[tuple[str, str]]:
    """The group and name of each schedule to read. Raises NotExact where they are too many."""
    if isinstance(source, Known):
        group, name = source.arn.split("/")[1:]
        return [(group, name)]
    names: list[tuple[str, str]] = []
    schedules = scheduler.get_paginator("list_schedules")
    pages = schedules.paginate(NamePrefix=source.name) if source.name else schedules.paginate()
    for page in pages:
        for found in page["Schedules"]:
            # One that was changed since may have had another target when it called.
            may_have_called = (
                source.kind == "schedule"
                or is_universal(found["Target"]["Arn"])
                or found["LastModificationDate"] >= source.called_at > found["CreationDate"]
            )
            is_ours = found["GroupName"] == settings.schedule_group
            if may_have_called and source.may_be(found["Name"]) and not is_ours:
                names.append((found["GroupName"], found["Name"]))
        if len(names) > MOST_READ:
            which = (
                "the universal target, of which the call names none: use the ECS target, whose "
                "calls do"
                if source.kind == "universal"
                else "a name that begins with what the call shows: give it a shorter one"
            )
            raise not_recovered(asked, f"more than {MOST_READ:,} schedules have {which}")
    return names
