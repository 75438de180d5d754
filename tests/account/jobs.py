"""The jobs: each target of the account's rules and schedules that starts an ECS task."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import StructureShape

from account.finding import Finding, is_gone, unknown, why_not
from account.session import PATIENT, client_of
from rehearsal.records import BadInput
from retry_run_task.definition import Definition, is_universal


@dataclass(frozen=True, slots=True)
class Job:
    """What starts a task: its definition, and its title: `rule nightly`, `schedule jobs/nightly`.

    One that is not enabled makes no calls.
    """

    title: str
    definition: Definition
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rules and schedules are meant: all; those of a name, in one bus or group or in any; or
    the one of an ARN."""

    name: str = ""
    place: str | None = None
    arn: str = ""

    def is_meant(self, place: str, name: str, arn: str) -> bool:
        """Is this one of them?"""
        if self.arn:
            return arn == self.arn
        return self.place in (None, place) and self.name in ("", name)


def wanted(text: str | None) -> Wanted:
    """What `nightly`, `BUS/nightly`, `GROUP/nightly` or an ARN means; raises BadInput."""
    if text is None:
        return Wanted()
    place, slash, name = text.rpartition("/")
    if not re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII):
        raise BadInput(f"{text!r:.80} is no name or ARN of a rule or schedule")
    if text.startswith("arn:"):
        if not re.fullmatch(r"arn:[^:]+:(events|scheduler):[^:]+:[0-9]+:(rule|schedule)/.+", text):
            raise BadInput(f"{text!r:.80} is no ARN of a rule or schedule")
        return Wanted(name, arn=text)
    return Wanted(name, place if slash else None)


def rules(session: boto3.Session, which: Wanted) -> Iterator[Job | Finding]:
    """Targets of rules, on all buses; and what could not be looked at."""
    events = client_of(session, "events", config=PATIENT)
    shape = cast("StructureShape", events.meta.service_model.shape_for("Target"))
    prefix = {"NamePrefix": which.name} if which.name else {}
    buses = ["default"]
    try:
        buses = [bus["Name"] for bus in _pages(events.list_event_buses, "EventBuses")]
    except (ClientError, BotoCoreError) as error:
        yield unknown("rules on other buses", why_not(error))
    for bus in buses:
        listed = _pages(events.list_rules, "Rules", EventBusName=bus, **prefix)
        for rule in _until_error(listed, "rules"):
            if isinstance(rule, Finding):
                yield rule
            elif which.is_meant(bus, rule["Name"], rule["Arn"]):
                yield from _targets(events, bus, rule, shape)


def _targets(
    events: Any, bus: str, rule: Mapping[str, Any], shape: StructureShape
) -> Iterator[Job | Finding]:
    """The ECS targets of a rule; none if it was deleted meanwhile."""
    listed = _pages(events.list_targets_by_rule, "Targets", Rule=rule["Name"], EventBusName=bus)
    path = rule["Name"] if bus == "default" else f"{bus}/{rule['Name']}"
    targets = []
    for target in _until_error(listed, f"rule {path}"):
        if isinstance(target, Finding):
            yield target
        elif "EcsParameters" in target:
            targets.append(target)
    for target in targets:
        own = f", target {target['Id']}" if len(targets) > 1 else ""
        definition = Definition(rule["Arn"], target, shape)
        yield Job(f"rule {path}{own}", definition, rule["State"] != "DISABLED")


def schedules(session: boto3.Session, which: Wanted) -> Iterator[Job | Finding]:
    """Schedules of all groups, those with the universal target among them; as rules."""
    scheduler = client_of(session, "scheduler", config=PATIENT)
    shape = cast("StructureShape", scheduler.meta.service_model.shape_for("Target"))
    prefix = {"NamePrefix": which.name} if which.name else {}
    for found in _until_error(_pages(scheduler.list_schedules, "Schedules", **prefix), "schedules"):
        if isinstance(found, Finding):
            yield found
            continue
        group, name = found["GroupName"], found["Name"]
        if not which.is_meant(group, name, found["Arn"]) or not _starts_task(found):
            continue
        path = name if group == "default" else f"{group}/{name}"
        try:
            schedule = scheduler.get_schedule(GroupName=group, Name=name)
        except (ClientError, BotoCoreError) as error:
            if not is_gone(error):  # it may have deleted itself meanwhile
                yield unknown(f"schedule {path}", why_not(error))
            continue
        definition = Definition(schedule["Arn"], schedule["Target"], shape, schedule)
        yield Job(f"schedule {path}", definition, schedule.get("State") != "DISABLED")


def _starts_task(schedule: Mapping[str, Any]) -> bool:
    """An ECS target has its cluster's ARN (Scheduler user guide, "Using templated targets")."""
    arn = schedule["Target"]["Arn"]
    return bool(re.fullmatch(r"arn:[^:]+:ecs:.*:cluster/.+", arn)) or is_universal(arn)


def _until_error(
    items: Iterator[Mapping[str, Any]], subject: str
) -> Iterator[Mapping[str, Any] | Finding]:
    """The items, and what kept the others from being looked at; what is gone has none."""
    try:
        yield from items
    except (ClientError, BotoCoreError) as error:
        if not is_gone(error):
            yield unknown(subject, why_not(error))


def _pages(operation: Any, key: str, **given: Any) -> Iterator[Mapping[str, Any]]:
    """All items of all pages."""
    while True:
        page = operation(**given)
        yield from page[key]
        if not page.get("NextToken"):
            return
        given["NextToken"] = page["NextToken"]
