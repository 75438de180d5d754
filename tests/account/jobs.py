"""The jobs: each target of the account's rules and schedules that starts an ECS task."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import boto3
from botocore.config import Config
from botocore.model import StructureShape

from account.session import client_of
from rehearsal.records import BadInput
from retry_run_task.definition import Definition, is_universal

# Reads of an account with many rules are throttled: the SDK waits, for up to 20 s each time.
CLIENT_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 10})


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
    """Which rules and schedules are meant: all, or those of a name, in one bus or group or in any.

    `kind` is `rule` or `schedule` where only one of them is meant.
    """

    name: str = ""
    place: str | None = None
    kind: str | None = None

    def is_meant(self, kind: str, place: str, name: str) -> bool:
        return self.kind in (None, kind) and self.place in (None, place) and self.name in ("", name)


def wanted(text: str | None) -> Wanted:
    """What `nightly`, `BUS/nightly`, `GROUP/nightly` or an ARN means; raises BadInput."""
    if text is None:
        return Wanted()
    arn = re.fullmatch(r"arn:[^:]+:(?:events|scheduler):[^:]*:[0-9]*:(rule|schedule)/(.+)", text)
    kind, path = (arn[1], arn[2]) if arn else (None, text)
    place, slash, name = path.rpartition("/")
    if not re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII):
        raise BadInput(f"{text!r:.80} is no name or ARN of a rule or schedule")
    if kind == "rule" and not slash:
        place, slash = "default", "/"
    return Wanted(name, place if slash else None, kind)


def rules(session: boto3.Session, which: Wanted) -> Iterator[Job]:
    """Targets of rules, on all buses."""
    events = client_of(session, "events", config=CLIENT_CONFIG)
    shape = cast("StructureShape", events.meta.service_model.shape_for("Target"))
    prefix = {"NamePrefix": which.name} if which.name else {}
    for bus in _pages(events.list_event_buses, "EventBuses"):
        for rule in _pages(events.list_rules, "Rules", EventBusName=bus["Name"], **prefix):
            name, place = rule["Name"], bus["Name"]
            if not which.is_meant("rule", place, name):
                continue
            targets = [
                target
                for target in _pages(
                    events.list_targets_by_rule, "Targets", Rule=name, EventBusName=place
                )
                if "EcsParameters" in target
            ]
            path = name if place == "default" else f"{place}/{name}"
            for target in targets:
                own = f", target {target['Id']}" if len(targets) > 1 else ""
                definition = Definition(rule["Arn"], target, shape)
                yield Job(f"rule {path}{own}", definition, rule["State"] != "DISABLED")


def schedules(session: boto3.Session, which: Wanted) -> Iterator[Job]:
    """Schedules of all groups, those with the universal target among them."""
    scheduler = client_of(session, "scheduler", config=CLIENT_CONFIG)
    shape = cast("StructureShape", scheduler.meta.service_model.shape_for("Target"))
    prefix = {"NamePrefix": which.name} if which.name else {}
    for found in _pages(scheduler.list_schedules, "Schedules", **prefix):
        group, name, target_arn = found["GroupName"], found["Name"], found["Target"]["Arn"]
        if not which.is_meant("schedule", group, name) or not _starts_task(target_arn):
            continue
        try:
            schedule = scheduler.get_schedule(GroupName=group, Name=name)
        except scheduler.exceptions.ResourceNotFoundException:
            continue  # it has deleted itself meanwhile
        definition = Definition(schedule["Arn"], schedule["Target"], shape, schedule)
        path = name if group == "default" else f"{group}/{name}"
        yield Job(f"schedule {path}", definition, schedule.get("State") != "DISABLED")


def _starts_task(target_arn: str) -> bool:
    """An ECS target has its cluster's ARN (Scheduler user guide, "Using templated targets")."""
    return bool(re.fullmatch(r"arn:[^:]+:ecs:.*:cluster/.+", target_arn)) or is_universal(
        target_arn
    )


def _pages(operation: Any, key: str, **given: Any) -> Iterator[Mapping[str, Any]]:
    """All items of all pages."""
    while True:
        page = operation(**given)
        yield from page[key]
        if not page.get("NextToken"):
            return
        given["NextToken"] = page["NextToken"]
