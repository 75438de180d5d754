"""IAM's answer to a request, as far as the template's statements go.

moto's enforcement knows neither resources nor conditions of ECS (`access_control.py`: "TODO add
support for the Resource and Condition parts"), and nothing of event buses' policies.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any


def allowed(
    statements: Iterable[Mapping[str, Any]],
    action: str,
    resource: str,
    context: Mapping[str, str] | None = None,
) -> bool:
    """Is there a statement that allows it, and none that denies it? (IAM: policy evaluation)"""
    effects = [s["Effect"] for s in statements if _applies(s, action, resource, context or {})]
    return "Allow" in effects and "Deny" not in effects


def as_list(value: Any) -> list[Any]:
    """IAM and patterns take one value in place of a list of one."""
    return value if isinstance(value, list) else [value]


def _applies(
    statement: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]
) -> bool:
    return (
        any(_like(action, pattern) for pattern in as_list(statement["Action"]))
        and any(_like(resource, pattern) for pattern in as_list(statement["Resource"]))
        and all(
            _holds(operator, context.get(key), as_list(wanted))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _holds(operator: str, value: str | None, wanted: list[str]) -> bool:
    """A key that is absent fulfils the negated operators only."""
    if operator == "ArnNotEquals":
        return value is None or not any(_like(value, pattern) for pattern in wanted)
    if value is None:
        return False
    return {
        "StringEquals": value in wanted,
        "StringLike": any(_like(value, pattern) for pattern in wanted),
        "Bool": value in wanted,
        # For IAM, both operators on ARNs behave identically.
        "ArnEquals": any(_like(value, pattern) for pattern in wanted),
        "ArnLike": any(_like(value, pattern) for pattern in wanted),
    }[operator]


def _like(value: str, pattern: str) -> bool:
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(regex, value) is not None
