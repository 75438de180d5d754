"""Exactly or not at all: for requests generated from botocore's model, and for mangled events."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.model import ListShape, Shape, StructureShape
from botocore.validate import ParamValidator
from hypothesis import event as note
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conftest import DUE_NOW, NOW
from rehearsal import EVENT_NAMES, load_event
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task.caller import caller_of
from retry_run_task.chain import CHAIN_TAGS
from retry_run_task.decision import Launch, decide
from retry_run_task.failed_call import NotAFailedCall, read_failed_call
from retry_run_task.outcome import Outcome
from retry_run_task.progress import Progress
from retry_run_task.request import HIDDEN
from retry_run_task.settings import Settings

RUN_TASK = botocore.session.get_session().get_service_model("ecs").operation_model("RunTask")
INPUT = RUN_TASK.input_shape
assert INPUT is not None
OURS_TO_CHANGE = {"clientToken", "referenceId", "tags"}


def values_of(shape: Shape) -> st.SearchStrategy[Any]:
    """Any value of a shape of botocore's model, as JSON has it."""
    if isinstance(shape, StructureShape):
        required = shape.metadata.get("required", [])
        members = {name: values_of(member) for name, member in shape.members.items()}
        if shape.is_tagged_union:
            return st.one_of([st.fixed_dictionaries({k: v}) for k, v in members.items()])
        return st.fixed_dictionaries(
            {name: members[name] for name in required},
            optional={k: v | st.none() for k, v in members.items() if k not in required},
        )
    if isinstance(shape, ListShape):
        return st.lists(values_of(shape.member), max_size=3)
    if shape.type_name == "integer":
        return st.integers(shape.metadata.get("min", 0), shape.metadata.get("max", 10**6))
    if shape.type_name == "boolean":
        return st.booleans()
    if enum := shape.metadata.get("enum"):
        return st.sampled_from(enum)
    return st.text(min_size=shape.metadata.get("min", 0), max_size=8)


def tags_without_ours(tags: Any) -> list[Any]:
    kept = [{k: v for k, v in tag.items() if v is not None} for tag in tags or []]
    return [
        tag
        for tag in kept
        if not tag.get("key", "").lower().startswith("aws:") and tag.get("key") not in CHAIN_TAGS
    ]


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def assert_replays_exactly(request: Any, asked: dict[str, Any], missing: int) -> None:
    same = without_nulls({k: v for k, v in asked.items() if k not in OURS_TO_CHANGE})
    sent = {k: v for k, v in request.items() if k not in OURS_TO_CHANGE}
    if missing != (asked.get("count") or 1):
        same["count"] = missing
    assert sent == same
    # == takes 1 for True.
    assert json.dumps(sent, sort_keys=True) == json.dumps(same, sort_keys=True)
    assert request["tags"][:-3] == tags_without_ours(asked.get("tags"))
    assert [tag["key"] for tag in request["tags"][-3:]] == list(CHAIN_TAGS)
    assert "referenceId" not in request


@given(asked=values_of(INPUT))
@hypothesis_settings(max_examples=300)
def test_a_replayed_request_equals_the_callers(asked: dict[str, Any], settings: Settings) -> None:
    asked["count"] = 1
    event = load_event("launched.fargate-capacity-rule")
    event["detail"]["requestParameters"] = copy.deepcopy(asked)
    call = read_failed_call(event, settings.account, settings.region)
    assert INPUT is not None
    decision = decide(call, caller_of(call, settings), Progress(), settings, NOW, INPUT)
    assert isinstance(decision, Launch)
    assert_replays_exactly(decision.request, asked, 1)
    assert decision.request["clientToken"] == f"{call.event_id}-1"
    assert not ParamValidator().validate(decision.request, INPUT).has_errors()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 99)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", HIDDEN, "retry-run-task:origin", "0/10", "3/10", "omitted"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@st.composite
def mangled_events(draw: st.DrawFn) -> Any:
    """A real event with up to three of its members, anywhere, replaced, removed or doubled."""
    event: Any = load_event(draw(st.sampled_from(EVENT_NAMES)))
    for _ in range(draw(st.integers(1, 3))):
        node, key = draw(st.sampled_from(list(_members(event))))
        match draw(st.sampled_from(["replace", "remove", "double"])):
            case "replace":
                node[key] = draw(JSON)
            case "remove":
                del node[key]
            case "double" if isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            case _:
                node[f"{key}2"] = node[key]
        if not event:
            break
    return event


def _members(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from _members(value)


@pytest.fixture(scope="module")
def scarce_world() -> Iterator[World]:
    # No token is used up, so that each example stands for itself.
    with World(Stack(), NOW, failures=10**9, binds_failures=False) as world:
        yield world


@given(event=mangled_events() | JSON)
@hypothesis_settings(max_examples=1000)
def test_no_payload_makes_the_function_ask_for_anything_but_the_missing_tasks_of_a_failed_call(
    event: Any, scarce_world: World
) -> None:
    scarce_world.calls.clear()
    try:
        outcome = scarce_world.call_handler(copy.deepcopy(event))
    except NotAFailedCall:
        note("refused")
        assert scarce_world.calls == []
        return
    note(outcome["outcome"])
    if outcome["outcome"] in (Outcome.SCHEDULED, Outcome.ALREADY_SCHEDULED):
        assert scarce_world.calls == []
        event |= DUE_NOW
        outcome = scarce_world.call_handler(copy.deepcopy(event))
    if outcome["outcome"] != Outcome.FAILED_AGAIN:
        assert scarce_world.calls == []
        return
    (request,) = scarce_world.calls
    detail = event["detail"]
    assert event["source"] == "aws.ecs"
    assert detail["eventName"] == "RunTask"
    assert detail.get("errorCode") is None
    assert detail["responseElements"]["failures"]
    assert HIDDEN not in json.dumps(request)
    asked = detail["requestParameters"]
    placed = [t for t in detail["responseElements"].get("tasks") or [] if t.get("taskArn")]
    assert_replays_exactly(request, asked, (asked.get("count") or 1) - len(placed))
