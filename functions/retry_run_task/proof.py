"""The proof: is this definition the one that made the call, and what did it send?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from botocore.model import StructureShape

from retry_run_task.caller import OURS, RULE_PREFIX, SCHEDULE_PREFIX, Caller, is_shown_as
from retry_run_task.chain import DEFINITION_TAG, Tags, tag_value
from retry_run_task.comparison import difference, is_cluster, is_family, is_filled
from retry_run_task.definition import Definition, checksum_of, request_of, task_of, title_of
from retry_run_task.failed_call import FailedCall
from retry_run_task.request import HIDDEN, AnyText, NotExact
from retry_run_task.settings import Settings

# A `startedBy` of this length may have been cut (see RULE_PREFIX).
LONGEST_STARTED_BY = 36
# What a tag's value takes (RunTask `tags`, API reference).
LONGEST_TAG = 256

BY_HAND = "start the job by hand"
IN_COMMAND = "put the value into the command, which CloudTrail does not hide"
_DYNAMIC = f"fills it in when it fires: {IN_COMMAND}"
LONGEST_NAME = LONGEST_STARTED_BY - len(SCHEDULE_PREFIX)
_SIBLING = (
    "is a one-time schedule, and the call does not show the whole name of its caller, which may "
    f"have deleted itself: give such schedules names of at most {LONGEST_NAME} characters and an "
    f"ECS target, or {IN_COMMAND}"
)


@dataclass(frozen=True, slots=True)
class Search:
    """What a call shows of the definition that made it: where to look, and what has to fit.

    `name` is the rule's or schedule's, or its beginning where it `is_cut`; nothing is known of the
    name of a schedule with the universal target. `role` is the ARN of the role that called; None
    where that was this function's own. `called_at` is when. An attempt that was `begun` by us
    keeps the caller's request, but for its count.
    """

    kind: Literal["rule", "schedule", "universal"]
    name: str
    is_cut: bool
    role: str | None
    called_at: datetime
    begun: bool = False

    def may_be(self, name: str) -> bool:
        """Can a rule or schedule of this name have made the call?"""
        return name.startswith(self.name) if self.is_cut else name == self.name


@dataclass(frozen=True, slots=True)
class Known:
    """The definition that was verified for an earlier attempt, and the checksum of its request."""

    arn: str
    checksum: str


Source = Search | Known


@dataclass(frozen=True, slots=True)
class Proof:
    """The call's `overrides` with what was hidden, and a `note` that names what was recovered.

    The tag of `tags` says for later attempts which definition has it; there is none where that ARN
    is too long for a tag.
    """

    overrides: Mapping[str, Any]
    tags: tuple[Mapping[str, str], ...]
    note: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a definition did not make the call, and how near it came: the nearest is reported."""

    nearness: int
    why: str


def hidden_environments(request: Mapping[str, Any]) -> list[str]:
    """The paths of the environment overrides that CloudTrail has hidden in a request."""
    containers = request.get("overrides", {}).get("containerOverrides", [])
    return [
        f"overrides.containerOverrides[{i}].environment"
        for i, container in enumerate(containers)
        if container.get("environment") == HIDDEN
    ]


def not_recovered(request: Mapping[str, Any], why: str) -> NotExact:
    """The refusal of a request that hides something: `why`, and what helps."""
    return NotExact(hidden_environments(request)[0], f"is hidden by CloudTrail, and {why}")


def source_of(
    call: FailedCall, caller: Caller, begun: bool, asked: Mapping[str, Any], tags: Tags
) -> Source:
    """Who holds what the request `asked` of a call hides.

    Only in an attempt of ours, or after one (`begun`), are the tags our own words. Raises NotExact
    for the call of an SDK: nobody else holds it.
    """
    ours = caller.kind == OURS
    if (ours or begun) and (known := tag_value(tags, DEFINITION_TAG)) is not None:
        found = re.fullmatch("(arn:.+)@([0-9a-f]{4})", known)
        if found is None:
            raise NotExact(f"tags[{DEFINITION_TAG}]", "is not an ARN and a checksum")
        return Known(found[1], found[2])
    started_by: str = asked.get("startedBy", "")
    is_cut = len(started_by) >= LONGEST_STARTED_BY
    role = None if ours else call.role
    # A rule's calls show `invokedBy`, which AWS writes. Scheduler's do not, and a user agent is the
    # caller's own word: it only says where to look. The role is what proves it.
    if started_by.startswith(RULE_PREFIX) and (
        ours or is_shown_as(call, "events-rule", "invoked_by")
    ):
        name = started_by.removeprefix(RULE_PREFIX)
        return Search("rule", name, is_cut, role, call.event_time, ours or begun)
    by_schedule = is_shown_as(call, "scheduler", "invoked_by", "user_agent")
    if started_by.startswith(SCHEDULE_PREFIX) and (ours or by_schedule):
        name = started_by.removeprefix(SCHEDULE_PREFIX)
        return Search("schedule", name, is_cut, role, call.event_time, ours or begun)
    if by_schedule:
        return Search("universal", "", True, role, call.event_time, begun)
    raise not_recovered(
        asked,
        "its caller is no EventBridge rule or schedule, in which it could be looked up: put it "
        "into `command`, an `environmentFiles` entry or the task definition, which are not hidden",
    )


def prove(
    asked: Mapping[str, Any],
    definitions: Sequence[Definition],
    source: Source,
    settings: Settings,
    run_task: StructureShape,
) -> Proof:
    """What the definition sent that made the call, whose request was `asked`.

    `definitions` are all that may have made it, as far as `source` tells. One is right if the
    request that it makes is the call; all that are right have to agree. Raises NotExact otherwise:
    it says why, and what helps, and shows no value.
    """
    right, wrong = [], []
    for definition in sorted(definitions, key=lambda each: each.arn):
        if isinstance(source, Known):
            judged = _judge_known(definition, asked, source, settings, run_task)
        else:
            judged = _judge(definition, asked, source, settings, run_task)
        if isinstance(judged, Unfit):
            wrong.append(judged)
        else:
            right.append((definition, judged, _environments(definition, judged, asked)))
    if not right:
        raise not_recovered(asked, _why_none(wrong, source))
    definition, request, environments = right[0]
    for other, _, theirs in right:
        if theirs != environments:
            both = f"{title_of(definition.arn)} and {title_of(other.arn)}"
            raise not_recovered(
                asked,
                f"{both} both fit the call and differ in it: give each a role of its own, or "
                f"{IN_COMMAND}",
            )
    tag = f"{definition.arn}@{checksum_of(request)}"
    fits = len(tag) <= LONGEST_TAG
    if not fits and isinstance(source, Search) and source.role is not None:
        # Later attempts do not show the role, so that it must not choose now.
        return prove(asked, definitions, replace(source, role=None), settings, run_task)
    containers = [
        container if environment is None else container | {"environment": environment}
        for container, environment in zip(
            asked["overrides"]["containerOverrides"], environments, strict=True
        )
    ]
    variables = ", ".join(entry["name"] for found in environments for entry in found or [])
    return Proof(
        overrides=asked["overrides"] | {"containerOverrides": containers},
        tags=({"key": DEFINITION_TAG, "value": tag},) if fits else (),
        note=f"Environment recovered from {title_of(definition.arn)}: {variables}.",
    )


def _judge_known(
    definition: Definition,
    asked: Mapping[str, Any],
    known: Known,
    settings: Settings,
    run_task: StructureShape,
) -> dict[str, Any] | Unfit:
    """The request of a target of the known definition, if it is the one that was verified."""
    title = title_of(definition.arn)
    changed = Unfit(0, f"{title} was changed after an earlier attempt; {BY_HAND}")
    try:
        request = request_of(definition, run_task)
    except NotExact:
        return changed
    # Another request can have the same checksum of four digits.
    is_same = checksum_of(request) == known.checksum
    return request if is_same and not difference(request, asked, settings, begun=True) else changed


def _judge(
    definition: Definition,
    asked: Mapping[str, Any],
    search: Search,
    settings: Settings,
    run_task: StructureShape,
) -> dict[str, Any] | Unfit:
    """The definition's request, if it is the call. Raises NotExact where that cannot be known."""
    title = title_of(definition.arn)
    if search.name and _is_sibling(definition, search):
        raise not_recovered(asked, f"{title} {_SIBLING}")
    unfit = _other_task(definition, asked, settings) or _other_caller(definition, asked, search)
    if unfit is not None:
        return unfit
    try:
        request = request_of(definition, run_task)
    except NotExact as problem:
        raise not_recovered(asked, f"of {title}, {problem}: correct it") from problem
    if member := difference(request, asked, settings, begun=search.begun):
        return Unfit(4, f"{title} {_says(member, request, asked)}; {BY_HAND}")
    return request


def _is_sibling(definition: Definition, search: Search) -> bool:
    """Is it a one-time schedule, of which the call shows the beginning of the name at the most?

    One-time schedules delete themselves, so that it may be all that is left, but not the caller.
    """
    return definition.once is not None and search.is_cut and definition.name != search.name


def _other_task(
    definition: Definition, asked: Mapping[str, Any], settings: Settings
) -> Unfit | None:
    """Why it did not start this task, be the rest of it as it may."""
    title = title_of(definition.arn)
    try:
        cluster, task_definition = task_of(definition)
    except NotExact:
        return Unfit(0, f"{title} cannot make a call; {BY_HAND}")
    if not is_cluster(cluster, asked, settings):
        return Unfit(0, f"{title} starts its task in another cluster now; {BY_HAND}")
    if not is_family(task_definition, asked, settings):
        return Unfit(0, f"{title} starts another task definition now; {BY_HAND}")
    return None


def _other_caller(definition: Definition, asked: Mapping[str, Any], search: Search) -> Unfit | None:
    """Why it did not call then, and with that role. Raises NotExact where that cannot be known."""
    title, called_at = title_of(definition.arn), search.called_at
    if definition.made is not None and definition.made >= called_at:
        return Unfit(1, f"{title} was made after the call; {BY_HAND}")
    if definition.changed is not None and definition.changed >= called_at:
        # Whatever it is now, it may have been the one.
        raise not_recovered(asked, f"{title} was changed after the call; {BY_HAND}")
    if search.role is not None and not search.role == definition.role != "":
        return Unfit(2, f"the role of its caller is not that of {title}; {BY_HAND}")
    if _is_sibling(definition, search):
        raise not_recovered(asked, f"{title} {_SIBLING}")
    if definition.once is not None:
        first, last = definition.once
        if not first <= called_at <= last:
            return Unfit(3, f"{title} was not due when the call was made; {BY_HAND}")
    return None


def _environments(
    definition: Definition, request: Mapping[str, Any], asked: Mapping[str, Any]
) -> list[list[dict[str, str]] | None]:
    """For each container of the call the environment that was hidden; None where none was.

    Raises NotExact where nobody knows it any more.
    """
    title = title_of(definition.arn)
    overrides: Any = request["overrides"]
    containers = overrides if isinstance(overrides, AnyText) else overrides["containerOverrides"]
    if isinstance(containers, AnyText):
        raise not_recovered(asked, f"{title} {_DYNAMIC}")
    environments: list[list[dict[str, str]] | None] = []
    for i, shown in enumerate(asked["overrides"]["containerOverrides"]):
        if shown.get("environment") != HIDDEN:
            environments.append(None)
            continue
        container: Any = containers[i]
        environment: Any = container if isinstance(container, AnyText) else container["environment"]
        if is_filled(environment):
            raise not_recovered(asked, f"{title} {_DYNAMIC}")
        for k, entry in enumerate(environment):
            if not entry.get("name"):
                path = f"containerOverrides[{i}].environment[{k}].name"
                raise not_recovered(asked, f"of {title}, {path} is missing: correct it")
        environments.append(environment)
    return environments


def _says(member: str, request: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """How a request differs from the call in this member; of values, only task definitions show."""
    if member not in request:
        return f"has no {member}, which the call has"
    if member != "taskDefinition":
        return f"differs from the call in {member}"
    now, then = (str(r[member]).rpartition("/")[2] for r in (request, asked))
    return f"starts {now} now, and the call asked for {then}"


def _why_none(wrong: Sequence[Unfit], source: Source) -> str:
    """Why no definition is right: the nearest one's reason."""
    if wrong:
        nearest = max(wrong, key=lambda unfit: unfit.nearness)
        others = f" (of {len(wrong)} definitions, none fits)" if len(wrong) > 1 else ""
        return nearest.why + others
    if isinstance(source, Known):
        return f"{title_of(source.arn)} was deleted after an earlier attempt; {BY_HAND}"
    if source.kind == "universal":
        return f"no schedule has the universal target now: it was deleted since; {BY_HAND}"
    return (
        f"no {source.kind} of its caller's name starts a task in this cluster now: it was deleted "
        f"or changed since; {BY_HAND}"
    )
