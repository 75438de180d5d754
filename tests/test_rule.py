"""The rule's pattern, read from the template, as EventBridge would match it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import EVENT_NAMES, load_event
from rehearsal.pattern import matches
from rehearsal.template import Stack

FARGATE = "launched.fargate-capacity-rule"
STACKS = [Stack({"AcceptReplaysOnDefaultBus": value}) for value in ("false", "true")]


def changed(name: str, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    event = copy.deepcopy(load_event(name))
    change(event)
    return event


def answered(**response: Any) -> Callable[[dict[str, Any]], object]:
    return lambda event: event["detail"]["responseElements"].update(response)


def told(**detail: Any) -> Callable[[dict[str, Any]], object]:
    return lambda event: event["detail"].update(detail)


@pytest.mark.parametrize(
    ("pattern", "detail", "expected"),
    [
        # aws-facts, section 2: what AWS's own engine answers to each of these.
        ({"tasks": [{"exists": False}]}, {"tasks": []}, True),
        ({"tasks": [{"exists": False}]}, {"tasks": [{"taskArn": "a"}]}, True),
        ({"tasks": {"taskArn": [{"exists": False}]}}, {"tasks": []}, True),
        ({"tasks": {"taskArn": [{"exists": False}]}}, {"tasks": [{"taskArn": "a"}]}, False),
        ({"tasks": {"taskArn": [{"exists": False}]}}, {"x": None}, True),
        ({"failures": {"reason": [{"exists": True}]}}, {"failures": [{"reason": "r"}]}, True),
        ({"failures": {"reason": [{"exists": True}]}}, {"failures": []}, False),
        ({"failures": {"reason": [{"exists": True}]}}, {"failures": None}, False),
        ({"errorCode": [{"exists": False}]}, {"x": 1}, True),
        ({"errorCode": [{"exists": False}]}, {"errorCode": "E"}, False),
        ({"startedBy": [{"anything-but": "x"}]}, {"y": 1}, False),
        ({"startedBy": [{"exists": False}, {"anything-but": ["x"]}]}, {"y": 1}, True),
        ({"startedBy": [{"exists": False}, {"anything-but": ["x"]}]}, {"startedBy": "x"}, False),
        ({"startedBy": [{"exists": False}, {"anything-but": ["x"]}]}, {"startedBy": "y"}, True),
        (
            {"tags": {"key": ["k"], "value": ["v"]}},
            {"tags": [{"key": "k", "value": "v"}, {"key": "l", "value": "w"}]},
            True,
        ),
        (
            {"tags": {"key": ["k"], "value": ["v"]}},
            {"tags": [{"key": "k", "value": "w"}, {"key": "l", "value": "v"}]},
            False,
        ),
        (
            {"tags": {"key": [{"anything-but": "k"}]}},
            {"tags": [{"key": "k"}, {"key": "other"}]},
            True,
        ),
    ],
)
def test_the_engine_answers_as_awss_own(
    pattern: dict[str, Any], detail: dict[str, Any], expected: bool
) -> None:
    event = load_event(FARGATE) | {"detail": detail}
    assert matches({"detail": pattern}, event) is expected


def test_the_engine_refuses_what_eventbridge_refuses() -> None:
    with pytest.raises(ClientError, match="Empty arrays are not allowed"):
        matches({"detail": {"tasks": []}}, load_event(FARGATE))


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_the_rule_matches_every_event_but_those_named_unmatched(name: str, stack: Stack) -> None:
    assert matches(stack.pattern, load_event(name)) is not name.startswith("unmatched.")


@pytest.mark.parametrize(
    "change",
    [
        answered(tasks=None),
        answered(failures=[{"reason": None}]),
        answered(failures=[{"arn": "a"}, {"reason": "RESOURCE:CPU"}]),
        # Whose call it is, the function decides.
        lambda event: event["detail"].pop("userIdentity"),
        lambda event: event["detail"].pop("requestParameters"),
        lambda event: event["detail"]["responseElements"].pop("tasks"),
    ],
)
def test_fields_that_are_absent_or_null_do_not_hide_a_failed_call(
    change: Callable[[dict[str, Any]], object], stack: Stack
) -> None:
    assert matches(stack.pattern, changed(FARGATE, change))


@pytest.mark.parametrize("stack", STACKS, ids=["default", "replays"])
@pytest.mark.parametrize(
    "change",
    [
        told(errorCode="ThrottlingException"),
        told(eventName="StartTask"),
        told(eventSource="batch.amazonaws.com"),
        told(responseElements=None),
        lambda event: event.update(source="my.ecs"),
        lambda event: event.update({"detail-type": "ECS Task State Change"}),
        answered(failures=[]),
        answered(failures=None),
        answered(failures=[{"arn": "a"}]),
        answered(failures=[], tasks=[{"taskArn": "a"}]),
        # Another account's or Region's call, that was forwarded to this bus.
        lambda event: event.update(account="999999999999"),
        lambda event: event.update(region="eu-west-2"),
    ],
)
def test_whatever_is_no_failed_call_of_this_account_and_region_never_matches(
    change: Callable[[dict[str, Any]], object], stack: Stack
) -> None:
    assert not matches(stack.pattern, changed(FARGATE, change))


@pytest.mark.parametrize("name", [name for name in EVENT_NAMES if name.startswith("left-alone.")])
def test_what_is_left_alone_is_decided_in_the_function_where_it_is_seen(
    name: str, stack: Stack
) -> None:
    assert matches(stack.pattern, load_event(name))


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov"])
def test_the_pattern_is_for_the_stacks_own_account_and_region(partition: str) -> None:
    stack = Stack(account="999999999999", region="x-north-1", partition=partition)
    event = load_event(FARGATE)
    assert not matches(stack.pattern, event)
    assert matches(stack.pattern, event | {"account": "999999999999", "region": "x-north-1"})


@pytest.mark.parametrize("stack", STACKS, ids=["default", "replays"])
def test_a_replay_on_the_default_bus_matches_only_where_the_stack_says_so(stack: Stack) -> None:
    wanted = stack.parameters["AcceptReplaysOnDefaultBus"] == "true"
    replayed = changed(FARGATE, lambda event: event.update({"replay-name": "monday"}))
    assert matches(stack.pattern, replayed) is wanted
    assert matches(stack.pattern, load_event(FARGATE))


def test_what_can_not_be_delivered_is_kept(stack: Stack) -> None:
    queue = stack.resources["DeadLetterQueuePolicy"]["Properties"]
    (statement,) = queue["PolicyDocument"]["Statement"]
    queue_arn = stack.attribute("DeadLetterQueue", "Arn")
    assert (statement["Effect"], statement["Action"]) == ("Allow", "sqs:SendMessage")
    assert (statement["Principal"], statement["Resource"]) == (
        {"Service": "events.amazonaws.com"},
        queue_arn,
    )
    assert statement["Condition"] == {
        "ArnEquals": {"aws:SourceArn": [stack.attribute(name, "Arn") for name in stack.rules]}
    }
    for rule in stack.rules.values():
        (delivery,) = rule.get("Targets", [rule])
        assert delivery["DeadLetterConfig"] == {"Arn": queue_arn}
        assert delivery["RetryPolicy"] == {
            "MaximumEventAgeInSeconds": 86400,
            "MaximumRetryAttempts": 185,
        }


@pytest.mark.parametrize("stack", STACKS, ids=["default", "replays"])
def test_no_alternative_names_a_path_twice(stack: Stack) -> None:
    # EventBridge refuses such a pattern when the rule is made (event-ruler: "Path … cannot be
    # allowed multiple times"); the engine here would not.
    archive = stack.resources["DeadLetterArchive"]["Properties"]["EventPattern"]
    for pattern in (archive, *(rule["Pattern"] for rule in stack.rules.values())):
        for paths in alternatives(pattern):
            assert len(paths) == len(set(paths))


def alternatives(pattern: dict[str, Any], prefix: str = "") -> list[list[str]]:
    """The paths of a pattern's leaves, once for each combination of its $or branches."""
    combined: list[list[str]] = [[]]
    for key, value in pattern.items():
        if key == "$or":
            branches = [paths for branch in value for paths in alternatives(branch, prefix)]
        elif isinstance(value, dict):
            branches = alternatives(value, f"{prefix}{key}.")
        else:
            branches = [[prefix + key]]
        combined = [left + right for left in combined for right in branches]
    return combined
