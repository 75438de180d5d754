"""Hidden environments: who still holds them, and the proof that it is the right definition."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.model import StructureShape

from retry_run_task.caller import RULE_PREFIX, SCHEDULE_PREFIX
from retry_run_task.failed_call import FailedCall
from retry_run_task.request import HIDDEN, NotExact, exact
from retry_run_task.settings import Settings

# How the two services name themselves in the calls that they make: in `startedBy`, and in
# `userIdentity.invokedBy` or, as Scheduler really does, at the beginning of `userAgent` (a record
# of 2024-11, which has no `invokedBy`).
CALLERS = {
    RULE_PREFIX: ("rule", "events.amazonaws.com"),
    SCHEDULE_PREFIX: ("schedule", "scheduler.amazonaws.com"),
}
SCHEDULERS_AGENT = "AmazonEventBridgeScheduler "
# A `startedBy` of this length may have been cut.
LONGEST_STARTED_BY = 36

# Scheduler puts `<aws.scheduler.scheduled-time>` and the like into a target's input when it fires
# (Scheduler user guide, "Context attributes").
PLACEHOLDER = "<aws.scheduler."


@dataclass(frozen=True, slots=True)
class Source:
    """The rule or schedule (`kind`) that made a call, what is left of its name, and when it did.

    `role` is the ARN of the role that called, which is that of the target; empty for attempts of
    ours, and where CloudTrail does not show it.
    """

    kind: str
    name: str
    is_cut: bool
    asked_at: datetime
    role: str = ""

    def may_be(self, name: str) -> bool:
        return name.startswith(self.name) if self.is_cut else name == self.name


@dataclass(frozen=True, slots=True)
class Definition:
    """A target of a rule or schedule. `input` is its constant JSON; None if it is made anew.

    A schedule knows from when on it could make a call (`since`), and when it was last `changed`;
    of a rule, EventBridge tells neither. `role` is the ARN of the role that it calls with.
    """

    name: str
    cluster: str
    task_definition: str
    input: str | None
    role: str
    since: datetime | None = None
    changed: datetime | None = None


def hidden_environments(request: Mapping[str, Any]) -> list[str]:
    """The paths of the environment overrides that CloudTrail has hidden in a request."""
    containers = request.get("overrides", {}).get("containerOverrides", [])
    return [
        f"overrides.containerOverrides[{i}].environment"
        for i, container in enumerate(containers)
        if container.get("environment") == HIDDEN
    ]


def source_of(call: FailedCall, request: Mapping[str, Any], *, ours: bool) -> Source:
    """Who holds what the call hides. `ours` is an attempt of ours, in which `startedBy` is kept.

    A user agent is the caller's own word, so it counts only where the role can be compared. Raises
    NotExact for the call of an SDK: nobody holds it.
    """
    started_by: str = request.get("startedBy", "")
    by_schedule = bool(call.role) and call.user_agent.startswith(SCHEDULERS_AGENT)
    for prefix, (kind, service) in CALLERS.items():
        shown = call.invoked_by == service or (kind == "schedule" and by_schedule)
        if started_by.startswith(prefix) and (ours or shown):
            is_cut = len(started_by) >= LONGEST_STARTED_BY
            name, role = started_by.removeprefix(prefix), "" if ours else call.role
            return Source(kind, name, is_cut, call.event_time, role)
    raise _hidden(
        request, "its caller is no EventBridge rule or schedule, which would still hold it"
    )


def restore(
    request: Mapping[str, Any],
    definitions: Sequence[Definition],
    source: Source,
    settings: Settings,
    run_task: StructureShape,
) -> tuple[dict[str, Any], str]:
    """The request with its environments, and a sentence that names what was recovered.

    A definition is right if it starts the same task definition in the same cluster, and if its
    overrides are those of the call once its environments are hidden as CloudTrail hides them. All
    that are right have to agree, and none may have changed since the call. One of them must have
    the call's role, but the role does not choose between them: later attempts, which are calls of
    ours, do not show it. Raises NotExact otherwise: it says why, and shows no value.
    """
    here = [d for d in definitions if _starts(d, request, source, settings)]
    if not here:
        raise _hidden(request, "no rule or schedule of its caller's name starts this task now")
    right = []
    for definition in here:
        if definition.input is None:
            raise _hidden(request, f"{definition.name} makes its input anew for each event")
        if definition.changed is not None and definition.changed > source.asked_at:
            raise _hidden(request, f"{definition.name} was changed after the call")
        containers = _environments(definition.input, request, run_task)
        if containers is None:
            continue
        if PLACEHOLDER in json.dumps(containers):
            raise _hidden(request, f"{definition.name} fills in placeholders when it fires")
        right.append((definition, containers))
    if not right:
        names = ", ".join(definition.name for definition in here)
        raise _hidden(request, f"the overrides of {names} are not those of the call")
    names = ", ".join(definition.name for definition, _ in right)
    if source.role and source.role not in [definition.role for definition, _ in right]:
        raise _hidden(request, f"its caller's role is not that of {names}")
    first, environments = right[0]
    if any(other != environments for _, other in right):
        raise _hidden(request, f"{names} differ in it")
    containers = [
        container | ({"environment": environment} if environment is not None else {})
        for container, environment in zip(
            request["overrides"]["containerOverrides"], environments, strict=True
        )
    ]
    overrides = request["overrides"] | {"containerOverrides": containers}
    variables = ", ".join(v["name"] for e in environments if e is not None for v in e)
    note = f"Environment recovered from {first.name}: {variables}."
    return {**request, "overrides": overrides}, note


def _starts(
    definition: Definition, request: Mapping[str, Any], source: Source, settings: Settings
) -> bool:
    """In time, in the same cluster, of the same family, and revision if it names one?"""
    if definition.since is not None and definition.since > source.asked_at:
        return False
    if definition.cluster != settings.arn("cluster", request.get("cluster", "default")):
        return False
    defined = settings.arn("task-definition", definition.task_definition)
    asked = settings.arn("task-definition", request["taskDefinition"])
    has_revision = ":" in defined.rpartition("/")[2]
    return asked == defined or (not has_revision and asked.startswith(f"{defined}:"))


def _environments(
    text: str, request: Mapping[str, Any], run_task: StructureShape
) -> list[list[dict[str, str]] | None] | None:
    """Each container's environment if this input gives the overrides of the request, else None."""
    try:
        overrides = exact(json.loads(text), run_task.members["overrides"])
    except (ValueError, NotExact):
        return None
    containers = overrides.get("containerOverrides", [])
    environments = [container.get("environment") or None for container in containers]
    shown = [
        container | {"environment": HIDDEN} if container.get("environment") else container
        for container in containers
    ]
    same = _bare(overrides | {"containerOverrides": shown}) == _bare(request["overrides"])
    return environments if same else None


def _bare(value: Any) -> Any:
    """Without null and empty members: CloudTrail may show them, or not."""
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    bare = {name: _bare(member) for name, member in value.items()}
    return {name: member for name, member in bare.items() if member not in (None, [], {})}


def _hidden(request: Mapping[str, Any], why: str) -> NotExact:
    return NotExact(hidden_environments(request)[0], f"is hidden by CloudTrail, and {why}")
