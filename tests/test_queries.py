"""The saved queries of CloudWatch Logs Insights: what they name is in the function's log."""

import re
from typing import Any

from conftest import DUE_NOW, NOW
from notify.letter import Kind
from rehearsal import ROOT, load_event
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task.outcome import Outcome

LANGUAGE = {"fields", "filter", "sort", "stats", "count", "by", "in", "as", "asc", "desc"}
TEXT = r'"([^"]*)"'


def queries(stack: Stack) -> dict[str, str]:
    """The text of each saved query, without comments, by its name."""
    found = {}
    for resource in stack.resources.values():
        if resource["Type"] == "AWS::Logs::QueryDefinition":
            query = resource["Properties"]
            assert query["LogGroupNames"] == [stack.function["LoggingConfig"]["LogGroup"]]
            found[query["Name"]] = re.sub("^#.*\n", "", query["QueryString"], flags=re.MULTILINE)
    return found


def keys_of(outcome: Any, path: str = "") -> set[str]:
    """Its fields as Logs Insights names them: `caller.kind`, `reasons.0`."""
    if not isinstance(outcome, dict | list):
        return {path[1:]}
    items = outcome.items() if isinstance(outcome, dict) else enumerate(outcome)
    return {name for key, value in items for name in keys_of(value, f"{path}.{key}")}


def test_they_look_at_the_functions_log_and_are_in_a_folder_of_the_stack() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    names = queries(Stack(name="mine"))
    assert len(names) == 3
    for name in names:
        folder, _, title = name.partition("/")
        assert folder == "mine"
        assert f"`{title}`" in readme


def test_every_field_that_they_name_is_a_key_of_the_outcome(stack: Stack) -> None:
    with World(stack, NOW) as world:
        launched = world.call_handler(load_event("launched.second-attempt") | DUE_NOW)
        scheduled = world.call_handler(load_event("launched.second-attempt"))  # has a detail
    known = keys_of(launched) | keys_of(scheduled)
    for name, query in queries(stack).items():
        text = re.sub(TEXT, "", query)
        columns = set(re.findall(r" as (\w+)", text))
        fields = set(re.findall(r"@?[A-Za-z][\w.]*", text)) - LANGUAGE - columns
        fields.discard("@timestamp")
        assert fields, name
        assert fields <= known, name


def test_the_outcomes_that_they_look_for_are_the_functions(stack: Stack) -> None:
    found = {
        name.partition("/")[2]: set(re.findall(TEXT, query))
        for name, query in queries(stack).items()
    }
    assert found == {
        "lost jobs": {kind.value for kind in Kind},
        "one chain by origin": {"ORIGIN"},
        "calls left alone by caller": {Outcome.LEFT_ALONE.value},
    }
