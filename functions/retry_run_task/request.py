"""The same request again: exactly as the caller made it, or not at all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

# What CloudTrail writes in place of a value that AWS marks as sensitive, since 2023-06
# (aws-samples/aws-batch-runtime-monitoring#20).
HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"

# Where it does so: botocore's ECS model marks nothing else as sensitive.
ENVIRONMENT = re.compile(r"overrides\.containerOverrides\[[0-9]+\]\.environment")

# Not the caller's to repeat: the old token would only return the old failure (ECS_Idempotency in
# the ECS developer guide), and `referenceId` is for AWS's own use (RunTask in the API reference).
NOT_REPEATED = ("clientToken", "referenceId")

# The scalar types of botocore's RunTask model, and what JSON makes of them. `type() is`, because
# to isinstance a bool is an int, and ECS would be sent `true` for a count.
_SCALARS = {"string": str, "integer": int, "boolean": bool}


class NotExact(Exception):
    """A parameter cannot be sent again as it was. Names the parameter, never shows its value."""

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter or 'requestParameters'} {problem}")


@dataclass(frozen=True, slots=True)
class AnyText:
    """Text that is filled in when a definition fires: any text between, before and after `parts`.

    Without parts, it is any value, of any type.
    """

    parts: tuple[str, ...] = ()

    def matches(self, value: object) -> bool:
        """Can it be this value?"""
        if not self.parts:
            return True
        return isinstance(value, str) and fnmatchcase(value, "*".join(map(escape, self.parts)))


def exact_request(
    parameters: Mapping[str, Any], run_task: StructureShape, *, hidden: bool = False
) -> dict[str, Any]:
    """The caller's request, ready to be sent: without nulls and without what is not repeated.

    `run_task` is the input shape of RunTask in botocore's model. `hidden` lets hidden environments
    pass as they are: botocore refuses to send them. Raises NotExact where the parameters are not
    one complete request of that shape.
    """
    kept = {key: value for key, value in parameters.items() if key not in NOT_REPEATED}
    return _exact_structure(kept, run_task, "", hidden)


def tags_in(parameters: Mapping[str, Any], run_task: StructureShape) -> list[dict[str, str]]:
    """The request's tags without those of AWS, which no caller may send (RunTask `tags`).

    Raises NotExact where they are no list of tags.
    """
    given = parameters.get("tags") or []
    tags: list[dict[str, str]] = exact(given, run_task.members["tags"], "tags")
    return [tag for tag in tags if not tag.get("key", "").lower().startswith("aws:")]


def exact(value: Any, shape: Shape, path: str = "", hidden: bool = False) -> Any:
    """The value without null members, if it is one of that shape; else raises NotExact.

    CloudTrail may write an absent member as null; a null in a list stands for nothing known.
    AnyText can be of any shape.
    """
    if isinstance(value, AnyText):
        return value
    if isinstance(value, str) and HIDDEN in value:
        if hidden and value == HIDDEN and ENVIRONMENT.fullmatch(path):
            return value
        raise NotExact(path, "is hidden by CloudTrail")
    if isinstance(shape, StructureShape):
        return _exact_structure(value, shape, path, hidden)
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            raise NotExact(path, "is not a list")
        return [exact(item, shape.member, f"{path}[{i}]", hidden) for i, item in enumerate(value)]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: exact(item, shape.value, path) for key, item in value.items()}
    if type(value) is not _SCALARS.get(shape.type_name):
        raise NotExact(path, f"is not of type {shape.type_name}")
    low = shape.metadata.get("min")
    if low is not None and (len(value) if isinstance(value, str) else value) < low:
        raise NotExact(path, f"is below the least that AWS takes ({low})")
    return value


def _exact_structure(value: Any, shape: StructureShape, path: str, hidden: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotExact(path, "is not an object")
    given = {name: member for name, member in value.items() if member is not None}
    inside = f"{path}." if path else ""
    for name in given:
        if name not in shape.members:
            raise unknown_member(path, name)
    for name in shape.metadata.get("required", []):
        if name not in given:
            raise NotExact(inside + name, "is missing")
    if shape.is_tagged_union and len(given) != 1:
        raise NotExact(path, "does not have exactly one member")
    return {name: exact(given[name], shape.members[name], inside + name, hidden) for name in given}


def unknown_member(path: str, name: str) -> NotExact:
    """A member of what is at the path that AWS's model does not have."""
    # It could be anything: what is not a plain word stays unseen.
    word = name if name.isidentifier() and len(name) <= 64 else "a member with an odd name"
    return NotExact(f"{path}.{word}" if path else word, "is unknown to botocore's model")
