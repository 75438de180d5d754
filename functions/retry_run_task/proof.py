"""The proof: is this definition the one that made the call, and what did it send?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.model import StructureShape

from retry_run_task.caller import SCHEDULE_PREFIX
from retry_run_task.chain import DEFINITION_TAG
from retry_run_task.comparison import difference, is_cluster, is_family, is_filled
from retry_run_task.definition import (
    Definition,
    checksum_of,
    due_of,
    request_of,
    task_of,
    title_of,
)
from retry_run_task.request import HIDDEN, AnyText, NotExact
from retry_run_task.settings import Settings
from retry_run_task.source import (
    BY_HAND,
    LONGEST_STARTED_BY,
    Known,
    Search,
    Source,
    definition_tag,
    not_recovered,
)

IN_COMMAND = "put the value into the command, which CloudTrail does not hide"
LONGEST_NAME = LONGEST_STARTED_BY - len(SCHEDULE_PREFIX)
_SIBLING = (
    "is a schedule that ends, and the call does not show a whole name: the schedule that called "
    f"may have deleted itself. Give such schedules names of at most {LONGEST_NAME} characters and "
    f"an ECS target, or {IN_COMMAND}"
)


@dataclass(frozen=True, slots=True)
class Proof:
    """The call's `overrides` with what was hidden, and a `note` that names what was recovered.

    `tag` says for later attempts which definition has it.
    """

    overrides: Mapping[str, Any]
    tag: Mapping[str, str]
    note: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a definition did not make the call, and how near it came: the nearest is reported."""

    nearness: int
    why: str


def prove(
    asked: Mapping[str, Any],
    definitions: Sequence[Definition],
    source: Source,
    settings: Settings,
    run_task: StructureShape,
) -> Proof:
    """What the definition sent that made the call, whose request was `asked`.

    `definitions` are all that may have made it, as far as `source` shows. One is right if the
    request that it makes is the call; all that are right have to agree. Raises NotExact otherwise:
    it says why, and what helps, and shows no value.
    """
    right, wrong = [], []
    for definition in sorted(definitions, key=lambda each: each.arn):
        if isinstance(source, Search) and not source.checksum:
            judged = _judge(definition, asked, source, settings, run_task)
        else:
            judged = _judge_again(definition, asked, source.checksum, settings, run_task)
        if isinstance(judged, Unfit):
            wrong.append(judged)
        else:
            right.append((definition, judged, _environments(definition, judged, asked)))
    if not right:
        raise not_recovered(asked, _why_none(wrong, source))
    definition, request, environments = right[0]
    for other, _, theirs in right:
        if theirs != environments:
            raise not_recovered(asked, _why_not_both(definition, other))
    containers = [
        container if environment is None else container | {"environment": environment}
        for container, environment in zip(
            asked["overrides"]["containerOverrides"], environments, strict=True
        )
    ]
    names = dict.fromkeys(entry["name"] for found in environments for entry in found or [])
    tag = definition_tag(definition.arn, checksum_of(request))
    return Proof(
        overrides=asked["overrides"] | {"containerOverrides": containers},
        tag={"key": DEFINITION_TAG, "value": tag},
        note=f"Environment recovered from {title_of(definition.arn)}: "
        f"{', '.join(names) or 'it is empty'}.",
    )


def _judge_again(
    definition: Definition,
    asked: Mapping[str, Any],
    checksum: str,
    settings: Settings,
    run_task: StructureShape,
) -> dict[str, Any] | Unfit:
    """The definition's request, if it is the one that was verified for an earlier attempt."""
    title = title_of(definition.arn)
    changed = Unfit(0, f"{title} was changed after an earlier attempt; {BY_HAND}")
    try:
        request = request_of(definition, run_task)
    except NotExact:
        return changed
    # Another request can have the same checksum of four digits.
    is_same = checksum_of(request) == checksum
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
    unfit = _other_caller(definition, asked, search) or _other_task(definition, asked, settings)
    if unfit is not None:
        return unfit
    if _is_sibling(definition, search):  # of a universal target, which starts this task
        raise not_recovered(asked, f"{title} {_SIBLING}")
    try:
        request = request_of(definition, run_task)
    except NotExact as problem:
        raise not_recovered(asked, f"in {title}, {problem}: correct it") from problem
    if member := difference(request, asked, settings, begun=False):
        return Unfit(4, f"{title} {_says(member, request, asked)}; {BY_HAND}")
    return request


def _is_sibling(definition: Definition, search: Search) -> bool:
    """Is it a schedule that ends, and is its name longer than what the call shows?

    Such schedules delete themselves. The one that called may be gone, and this may be another one
    whose name begins the same; calls of universal targets show no name at all.
    """
    return definition.ends_itself and search.is_cut and definition.name != search.name


def _other_caller(definition: Definition, asked: Mapping[str, Any], search: Search) -> Unfit | None:
    """Why it did not make a call at that time, or with that role; None if it may have made one.

    Raises NotExact where that cannot be known.
    """
    title, called_at = title_of(definition.arn), search.called_at
    if search.name and _is_sibling(definition, search):
        raise not_recovered(asked, f"{title} {_SIBLING}")
    if definition.made is not None and definition.made >= called_at:
        return Unfit(0, f"{title} was made since the call; {BY_HAND}")
    if definition.changed is not None and definition.changed >= called_at:
        # Whatever it starts now, and with whatever role, it may have been the one.
        raise not_recovered(asked, f"{title} was changed since the call; {BY_HAND}")
    if not search.role == definition.role != "":
        return Unfit(1, f"the role of its caller is not that of {title}; {BY_HAND}")
    if definition.is_universal != (search.kind == "universal"):
        return Unfit(1, f"{title} has the universal target, whose calls name none; {BY_HAND}")
    try:
        first, last = due_of(definition)
    except NotExact as problem:
        raise not_recovered(asked, f"in {title}, {problem}; {BY_HAND}") from problem
    if (first and called_at < first) or (last and called_at > last):
        return Unfit(2, f"{title} was not due when the call was made; {BY_HAND}")
    return None


def _other_task(
    definition: Definition, asked: Mapping[str, Any], settings: Settings
) -> Unfit | None:
    """Why it did not start this task; None if it may have, whatever the rest of it says."""
    title = title_of(definition.arn)
    try:
        cluster, task_definition = task_of(definition)
    except NotExact:
        return Unfit(3, f"{title} cannot start a task; {BY_HAND}")
    if not is_cluster(cluster, asked, settings):
        return Unfit(3, f"{title} starts its task in another cluster now; {BY_HAND}")
    if not is_family(task_definition, asked, settings):
        return Unfit(3, f"{title} starts another task definition now; {BY_HAND}")
    return None


def _environments(
    definition: Definition, request: Mapping[str, Any], asked: Mapping[str, Any]
) -> list[list[dict[str, str]] | None]:
    """For each container of the call the environment that was hidden; None where none was.

    Raises NotExact where nobody knows it any more.
    """
    title = title_of(definition.arn)
    dynamic = f"{title} fills in the environment when it fires: {IN_COMMAND}"
    overrides: Any = request["overrides"]
    containers = overrides if isinstance(overrides, AnyText) else overrides["containerOverrides"]
    if isinstance(containers, AnyText):
        raise not_recovered(asked, dynamic)
    environments: list[list[dict[str, str]] | None] = []
    for i, shown in enumerate(asked["overrides"]["containerOverrides"]):
        if shown.get("environment") != HIDDEN:
            environments.append(None)
            continue
        container: Any = containers[i]
        environment: Any = container if isinstance(container, AnyText) else container["environment"]
        if is_filled(environment):
            raise not_recovered(asked, dynamic)
        for k, entry in enumerate(environment):
            if not entry.get("name"):
                path = f"containerOverrides[{i}].environment[{k}].name"
                raise not_recovered(asked, f"in {title}, {path} is missing: correct it")
        environments.append(environment)
    return environments


def _why_not_both(one: Definition, other: Definition) -> str:
    """Why nothing is recovered where two definitions are right, and differ."""
    both = f"{title_of(one.arn)} and {title_of(other.arn)} both"
    if one.arn == other.arn:
        both = f"two targets of {title_of(one.arn)}"
    own = "give each a role, group or tag of its own"
    return f"{both} fit the call, and their environments differ: {own}, or {IN_COMMAND}"


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
    since = f"it was deleted or changed since; {BY_HAND}"
    which = {
        "rule": "rule of its caller's name starts a task in this cluster",
        "schedule": "schedule has its caller's name",
        "universal": "schedule has the universal target",
    }[source.kind]
    return f"no {which} now: {since}"
