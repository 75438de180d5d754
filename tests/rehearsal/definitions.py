"""Rules and schedules that may have made a call, as the AWS CLI prints them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rehearsal.callers import exact_definitions
from rehearsal.records import STANDARD_INPUT, BadInput, parse, read_bytes, title_of
from retry_run_task.request import NotExact

WAY_OUT = (
    "give what `aws scheduler get-schedule` prints, or, as NAME=FILE with the rule's name, what "
    "`aws events list-targets-by-rule` does"
)

RULE = re.compile(r"(?:(?P<EventBusName>[\w./-]+)/)?(?P<Name>[\w.-]+)", re.ASCII)


def read_definitions(given: Sequence[str], event: Path) -> dict[str, Any]:
    """`Rules` and `Schedules` of all files, or of the one beside the event; raises BadInput.

    Each is FILE, NAME=FILE or BUS/NAME=FILE.
    """
    beside = event.parent / "definitions" / event.name
    if not given and event != STANDARD_INPUT and os.path.exists(beside):  # noqa: PTH110 - as below
        given = [str(beside)]
    found: dict[str, Any] = {"Rules": [], "Schedules": []}
    for text in given:
        rule, equals, path = text.partition("=")  # no name of a rule has one
        if os.path.exists(text) or not equals:  # noqa: PTH110 - Path's raises for long names
            rule, path = "", text
        if not path:
            raise BadInput(f"--definitions {text}: names no file")
        try:
            definitions = exact_definitions(_defined_in(parse(read_bytes(Path(path))), rule))
        except (BadInput, NotExact) as problem:
            way_out = f": {WAY_OUT}" if isinstance(problem, NotExact) else ""
            raise BadInput(f"{title_of(Path(path))}: {problem}{way_out}") from problem
        for kind, listed in definitions.items():
            found[kind] += listed
    return found


def _defined_in(document: object, rule: str) -> Mapping[str, Any]:
    """`Rules` and `Schedules` of one file; raises BadInput."""
    named: dict[str, str] = {}
    if rule:
        name = RULE.fullmatch(rule)
        if not name:
            raise BadInput(f"{rule!r} is no name of a rule: give NAME=FILE, or BUS/NAME=FILE")
        named = {key: value for key, value in name.groupdict().items() if value}
        if isinstance(document, list):  # as printed with --query Targets
            document = {"Targets": document}
    if not isinstance(document, dict):
        raise BadInput(f"not a rule or schedule: {WAY_OUT}")
    if document.keys() and document.keys() <= {"Rules", "Schedules"}:
        return document
    if "NextToken" in document:
        raise BadInput("not all targets of the rule: leave out --limit and --max-items")
    if "Targets" in document:
        if not named and "Name" not in document:
            raise BadInput("the targets of which rule? Give NAME=FILE, or BUS/NAME=FILE")
        return {"Rules": [{**document, **named}]}
    if "Target" in document:
        return {"Schedules": [document]}
    raise BadInput(f"not a rule or schedule: {WAY_OUT}")
