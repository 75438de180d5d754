"""Read: a failed call is found, and whatever is none is told what is wrong with it."""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conftest import DUE_NOW, NOW
from rehearsal import EVENT_NAMES, load_event
from retry_run_task.failed_call import (
    FailedCall,
    NotAFailedCall,
    read_failed_call,
    write_failed_call,
    write_time,
)
from retry_run_task.progress import Progress, unwrap, wrap

FARGATE = "launched.fargate-capacity-rule"
CAPACITY = (
    "Capacity is unavailable at this time. "
    "Please try again later or in a different availability zone"
)


def read(payload: object) -> FailedCall:
    event, _ = unwrap(payload)
    return read_failed_call(event, "123456789012", "eu-west-1")


def progress(payload: object) -> Progress:
    _, progress = unwrap(payload)
    return progress


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    event = copy.deepcopy(load_event(FARGATE))
    change(event)
    return event


def test_a_failed_call_is_read_from_its_event() -> None:
    event = load_event(FARGATE)
    assert read(event) == FailedCall(
        event_id=event["detail"]["eventID"],
        event_time=datetime(2026, 11, 23, 0, 0, 4, tzinfo=UTC),
        parameters=event["detail"]["requestParameters"],
        reasons=(CAPACITY,),
        tasks=(),
        caller_arn=(
            "arn:aws:sts::123456789012:assumed-role/nightly-report-events/"
            "5d41402abc4b2a76b9719d911017c592"
        ),
        role="arn:aws:iam::123456789012:role/nightly-report-events",
        invoked_by="events.amazonaws.com",
        user_agent="events.amazonaws.com",
        from_console=False,
    )
    assert progress(event) == Progress()


@pytest.mark.parametrize("write", [json.dumps, lambda event: event])
def test_an_invocation_that_scheduler_could_not_make_is_read_as_its_payload(
    write: Callable[[object], object],
) -> None:
    due = load_event(FARGATE) | DUE_NOW
    request = {"FunctionName": "retry-run-task", "InvocationType": "Event", "Payload": write(due)}
    assert read(request) == read(due)
    assert progress(request) == progress(due) == Progress(due=NOW, taken_on=True)


def due_with(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Makes an event a due attempt with other members."""
    due = DUE_NOW["retry-run-task:due"] | changes
    return lambda event: event.update({"retry-run-task:due": due})


@pytest.mark.parametrize("payload", [None, "{", "[]", 7])
def test_an_invocation_of_nothing_is_refused(payload: object) -> None:
    with pytest.raises(NotAFailedCall, match="Payload is "):
        read({"FunctionName": "retry-run-task", "Payload": payload})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("detail"), "detail is missing or null"),
        (lambda e: e.update(detail=[]), "detail is not a JSON object"),
        (lambda e: e.update(source="aws.s3"), "source is 'aws.s3' instead of 'aws.ecs'"),
        (lambda e: e.update({"detail-type": "ECS Task State Change"}), "detail-type is 'ECS Task"),
        (lambda e: e.update(account="999999999999"), "account is '999999999999' instead of"),
        (lambda e: e.update(region="eu-west-2"), "region is 'eu-west-2' instead of 'eu-west-1'"),
        (lambda e: e["detail"].update(eventSource="s3.amazonaws.com"), "detail.eventSource is"),
        (lambda e: e["detail"].update(eventName="StopTask"), "detail.eventName is 'StopTask'"),
        (lambda e: e["detail"].update(awsRegion="eu-west-2"), "detail.awsRegion is 'eu-west-2'"),
        (lambda e: e["detail"].update(errorCode="AccessDenied"), "ECS rejected this call"),
        (
            lambda e: e["detail"].update(requestParameters=None),
            "detail.requestParameters is missing",
        ),
        (lambda e: e["detail"].update(responseElements=None), "detail.responseElements is missing"),
        (lambda e: e["detail"]["responseElements"].update(failures=[]), "nothing failed"),
        (lambda e: e["detail"]["responseElements"].update(failures=None), "nothing failed"),
        (lambda e: e["detail"]["responseElements"].update(failures="x"), "failures is not a list"),
        (lambda e: e["detail"]["responseElements"].update(tasks=["x"]), "tasks is not a list"),
        (lambda e: e["detail"].update(eventID=None), "detail.eventID is None"),
        (lambda e: e["detail"].update(eventID="x" * 51), "detail.eventID is"),
        (lambda e: e.update({"retry-run-task:due": True}), "due is not a JSON object"),
        (due_with(unspent=None), "due.unspent is neither true nor false"),
        (due_with(unspent=1), "due.unspent is neither true nor false"),
        (due_with(begun=1), "due.begun is neither true nor false"),
        (due_with(at=None), "due.at is not a time like"),
        (due_with(at=True), "due.at is not a time like"),
        (due_with(firstUse="yesterday"), "due.firstUse is not a time like"),
        (due_with(firstUse=0), "due.firstUse is not a time like"),
        (lambda e: e["detail"].update(eventTime="yesterday"), "detail.eventTime is not a time"),
        (lambda e: e["detail"].update(eventTime="2026-13-01T00:00:00Z"), "detail.eventTime is not"),
    ],
)
def test_what_is_no_failed_call_is_told_which_field_is_wrong(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(NotAFailedCall) as raised:
        read(changed(change))
    assert message in str(raised.value)
    assert "Nothing was launched" in str(raised.value)


@pytest.mark.parametrize("payload", [None, [], "RunTask", 1, {}])
def test_a_payload_that_is_no_event_is_refused(payload: object) -> None:
    with pytest.raises(NotAFailedCall):
        read(payload)


@pytest.mark.parametrize(
    "name", ["unmatched.throttled", "unmatched.access-denied", "unmatched.success"]
)
def test_calls_that_ecs_rejected_or_placed_are_refused_even_if_they_get_here(name: str) -> None:
    with pytest.raises(NotAFailedCall):
        read(load_event(name))


def test_absent_and_null_lists_are_empty_ones() -> None:
    null = changed(lambda e: e["detail"]["responseElements"].update(tasks=None))
    absent = changed(lambda e: e["detail"]["responseElements"].pop("tasks"))
    assert (read(null).tasks, read(absent).tasks) == ((), ())


def test_reasons_are_listed_once_each_in_ecs_order() -> None:
    assert read(load_event("launched.ec2-mixed-reasons")).reasons == (
        "RESOURCE:MEMORY",
        "RESOURCE:CPU",
        "ATTRIBUTE",
    )


def test_a_failure_without_a_reason_still_is_one() -> None:
    event = changed(lambda e: e["detail"]["responseElements"].update(failures=[{"arn": None}]))
    assert read(event).reasons == ("no reason given",)


@pytest.mark.parametrize(
    "name", ["launched.second-attempt", "left-alone.partial-placement", "left-alone.console"]
)
def test_a_due_attempt_is_read_as_it_was_written(name: str) -> None:
    call = read(load_event(name))
    earlier = NOW - timedelta(minutes=5)
    due = Progress(NOW, taken_on=True, begun=True, unspent=True, first_use=earlier, replay_name="r")
    written = json.loads(wrap(write_failed_call(call, "123456789012", "eu-west-1"), due, NOW))
    assert (read(written), progress(written)) == (call, due)


def test_an_addendum_is_the_call_that_it_repeats() -> None:
    addendum = {"reason": "UPDATED_DATA", "originalEventID": "the-first"}
    event = changed(lambda e: e["detail"].update(addendum=addendum))
    assert read(event).event_id == "the-first"


def test_a_replayed_event_carries_the_name_of_its_replay() -> None:
    replayed = changed(lambda e: e.update({"replay-name": "monday"}))
    assert progress(replayed) == Progress(replay_name="monday")


def test_the_missing_number_of_a_partly_placed_call() -> None:
    call = read(load_event("left-alone.partial-placement"))
    assert (len(call.tasks), call.missing) == (3, 2)


@pytest.mark.parametrize("name", [name for name in EVENT_NAMES if not name.startswith("unmatched")])
def test_every_event_that_the_rule_lets_through_can_be_read(name: str) -> None:
    event = load_event(name)
    assert write_time(read(event).event_time) == event["detail"]["eventTime"]
