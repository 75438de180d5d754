"""Nothing is lost in silence: the outcome bus, the archive, replays, and one message per job."""

import copy
import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from moto.ecs.exceptions import ECSException

from conftest import NOW
from rehearsal import load_event
from rehearsal.bus import AccessDenied, transform
from rehearsal.pattern import matches
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task.failed_call import FailedCall, NotAFailedCall, read_failed_call
from retry_run_task.outcome import Outcome
from retry_run_task.progress import Progress, unwrap

FARGATE = "launched.fargate-capacity-rule"
ORIGIN = load_event(FARGATE)["detail"]["eventID"]
DEAD = {"EXHAUSTED", "EXPIRED", "NOT_RETRYABLE", "NOT_REPLAYABLE"}
ARCHIVED = timedelta(minutes=10)


@pytest.fixture
def world() -> Iterator[World]:
    """No capacity, and a budget of three attempts."""
    with World(Stack({"MaxAttempts": "3"}), NOW, failures=10**9) as world:
        yield world


def play(world: World, name: str = FARGATE, **detail: Any) -> None:
    event = copy.deepcopy(load_event(name))
    event["detail"].update(detail)
    world.begin(event)
    world.run()


def replay(world: World, message: int = 0) -> None:
    """As an operator does who pastes the command of a message."""
    world.wait(ARCHIVED)
    world.replay(world.bus.messages[message].splitlines()[-1].strip('"'))
    world.run()


def capacity_returns(world: World) -> None:
    world.ecs.failures = 0


def outcomes(world: World) -> list[tuple[str, str]]:
    return [(outcome["outcome"], outcome["attempt"]) for outcome in world.outcomes]


def result(kind: str = "Success", outcome: str = "EXHAUSTED") -> dict[str, Any]:
    return load_event(FARGATE) | {
        "source": "lambda",
        "detail-type": f"Lambda Function Invocation Result - {kind}",
        "detail": {"responsePayload": {"outcome": outcome} if kind == "Success" else None},
    }


# Which results are dead letters, read from the template's patterns.


@pytest.mark.parametrize("outcome", Outcome)
def test_exactly_the_dead_letters_are_archived_and_announced(
    outcome: Outcome, stack: Stack
) -> None:
    archive = stack.resources["DeadLetterArchive"]["Properties"]["EventPattern"]
    event = result(outcome=outcome.value)
    assert matches(archive, event) is outcome.is_dead_letter
    assert matches(stack.rules["DeadLetterMessage"]["Pattern"], event) is outcome.is_dead_letter
    assert not matches(stack.rules["FailedInvocationMessage"]["Pattern"], event)
    assert outcome.is_dead_letter is (outcome.value in DEAD)


def test_every_failed_invocation_is_archived_and_announced(stack: Stack) -> None:
    event = result("Failure")
    assert matches(stack.resources["DeadLetterArchive"]["Properties"]["EventPattern"], event)
    assert matches(stack.rules["FailedInvocationMessage"]["Pattern"], event)
    assert not matches(stack.rules["DeadLetterMessage"]["Pattern"], event)


@pytest.mark.parametrize("kind", ["Success", "Failure"])
@pytest.mark.parametrize("source", ["lambda", "aws.lambda"])
def test_a_replay_goes_to_the_function_and_to_nobody_else(
    kind: str, source: str, stack: Stack
) -> None:
    live = result(kind) | {"source": source}
    replayed = live | {"replay-name": "monday"}
    names = ("RetryRunTaskReplayedDeadLetter", "DeadLetterMessage", "FailedInvocationMessage")
    function, *messages = (stack.rules[name]["Pattern"] for name in names)
    assert (matches(function, live), matches(function, replayed)) == (False, True)
    assert not any(matches(pattern, replayed) for pattern in messages)


# A job is lost, and comes back.


def test_a_lost_job_is_one_letter_and_one_message(world: World) -> None:
    play(world)
    assert outcomes(world)[-1] == ("EXHAUSTED", "3/3")
    (letter,) = world.bus.archive
    assert letter["detail"]["responsePayload"] == world.outcomes[-1]
    (message,) = world.bus.messages
    command = world.stack.outputs["StartReplayCommand"]["Value"]
    assert [line.strip('"') for line in message.splitlines()] == [
        "retry-run-task: a job did not run: EXHAUSTED after attempt 3/3.",
        "Task definition: arn:aws:ecs:eu-west-1:123456789012:task-definition/nightly-report:42",
        "Cluster: arn:aws:ecs:eu-west-1:123456789012:cluster/jobs",
        "Waiting since: 2026-11-23T00:00:04Z",
        "ECS said: Capacity is unavailable at this time. "
        "Please try again later or in a different availability zone",
        "The budget of 3 attempts is used up.",
        "When the cause is gone, and 10 minutes after this message, this starts it and all that "
        "were lost after it. Of several messages take the first one's, and paste it once:",
        command.replace("START", MINUTE_BEFORE.format(time=letter["time"])).replace(
            "END", "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
        ),
    ]


MINUTE_BEFORE = (
    "$(date -u -d '{time} 1 minute ago' +%Y-%m-%dT%H:%M:%SZ "
    "|| date -u -j -v-1M -f %Y-%m-%dT%H:%M:%SZ {time} +%Y-%m-%dT%H:%M:%SZ)"
)


def test_the_shell_starts_a_replay_a_minute_before_the_letter() -> None:
    for time, before in (
        ("2026-11-23T00:06:04Z", "2026-11-23T00:05:04Z"),
        ("2026-01-01T00:00:30Z", "2025-12-31T23:59:30Z"),
    ):
        script = MINUTE_BEFORE.format(time=time)[2:-1]
        printed = subprocess.run(  # noqa: S603 - the command of the message
            ["/bin/sh", "-c", script], capture_output=True, text=True, check=True
        )
        assert printed.stdout.strip() == before


def test_recoveries_are_quiet(world: World) -> None:
    world.ecs.failures = 2
    play(world)
    assert (outcomes(world)[-1][0], len(world.tasks)) == ("LAUNCHED", 1)
    assert (world.bus.archive, world.bus.messages) == ([], [])


def test_a_replay_starts_the_job_once_and_replaying_again_starts_nothing(world: World) -> None:
    play(world)
    capacity_returns(world)
    replay(world)
    assert outcomes(world)[-2:] == [("SCHEDULED", "4/6"), ("LAUNCHED", "4/6")]
    replay(world)
    assert outcomes(world)[-2:] == [("SCHEDULED", "4/6"), ("ALREADY_LAUNCHED", "4/6")]
    assert len(world.tasks) == 1
    assert (len(world.bus.archive), len(world.bus.messages)) == (1, 1)


def test_a_replayed_letter_that_died_again_can_be_replayed_again(world: World) -> None:
    play(world)
    replay(world)
    assert outcomes(world)[-1] == ("EXHAUSTED", "6/6")
    assert len(world.bus.messages) == 2
    capacity_returns(world)
    replay(world)  # of both letters of the chain
    assert outcomes(world)[-1] == ("LAUNCHED", "7/9")
    assert len(world.tasks) == 1
    assert {call["clientToken"] for call in world.calls} == {f"{ORIGIN}-{n}" for n in range(1, 8)}


def test_two_letters_of_one_chain_in_one_replay_wait_under_one_name(world: World) -> None:
    play(world)
    replay(world)
    capacity_returns(world)
    seen = len(world.outcomes)
    replay(world)
    assert [outcome for outcome, _ in outcomes(world)[seen:]] == [
        "SCHEDULED",
        "ALREADY_SCHEDULED",
        "LAUNCHED",
    ]


def test_a_replay_delivered_twice_starts_the_job_once(world: World) -> None:
    play(world)
    capacity_returns(world)
    world.duplicates = True
    replay(world)
    assert len(world.tasks) == 1


def test_an_old_letter_is_replayed_beyond_the_attempts_of_the_replays_after_it(
    world: World,
) -> None:
    # Their tokens are spent: they are passed without a wait, and the budget is counted from there.
    play(world)
    replay(world)
    capacity_returns(world)
    del world.bus.archive[1:]
    calls = len(world.calls)
    replay(world)
    assert [call["clientToken"] for call in world.calls[calls:]] == [
        f"{ORIGIN}-{n}" for n in (4, 5, 6, 7)
    ]
    assert (world.outcomes[-1]["attempt"], world.outcomes[-1]["detail"]) == (
        "7/9",
        "The attempt's client token was used before, and placed too little.",
    )


def test_a_replayed_attempt_that_is_throttled_is_still_a_replay(world: World) -> None:
    play(world)
    capacity_returns(world)
    world.ecs.errors = [ECSException("ThrottlingException", "Rate exceeded")] * 3
    replay(world)
    assert outcomes(world)[-3:] == [("SCHEDULED", "4/6"), ("SCHEDULED", "5/7"), ("LAUNCHED", "5/7")]
    # Each of its schedules has a name of its own: one that has fired is there for a while.
    waited = [entry.text for entry in world.timeline if entry.actor == "Scheduler"]
    assert len(set(waited)) == len(waited)
    # Under the token that the throttle has left unspent.
    assert {call["clientToken"] for call in world.calls[3:]} == {f"{ORIGIN}-4"}


def test_a_replay_waits_from_one_to_ten_minutes_under_the_name_of_the_replay(world: World) -> None:
    play(world)
    (letter,) = world.bus.archive
    for name in ("one", "two", "three", "four"):
        world.call_handler(letter | {"replay-name": name})
    schedules = world.schedules()
    # printf %s one | sha256sum | head -c 8
    assert f"{ORIGIN}-7692c3ad" in {s["Name"].partition("-")[2] for s in schedules}
    times = [f"{schedule['ScheduleExpression'][3:-1]}+00:00" for schedule in schedules]
    waits = {datetime.fromisoformat(time) - world.now for time in times}
    assert len(waits) == 4
    assert timedelta(minutes=1) <= min(waits) < max(waits) < timedelta(minutes=10, seconds=1)


def test_a_person_who_asks_for_it_overrules_a_permanent_reason(world: World) -> None:
    world.ecs.reason = "ATTRIBUTE"
    play(world)
    assert outcomes(world)[-1] == ("NOT_RETRYABLE", "1/3")
    capacity_returns(world)
    replay(world)
    assert outcomes(world)[-1] == ("LAUNCHED", "2/4")


def test_an_expired_job_that_is_replayed_gets_its_whole_age_again(world: World) -> None:
    world.deploy(Stack({"MaxAgeMinutes": "3"}))
    play(world)
    assert outcomes(world)[-1][0] == "EXPIRED"
    capacity_returns(world)
    replay(world)
    assert outcomes(world)[-1][0] == "LAUNCHED"


def test_a_request_that_can_not_be_repeated_is_a_letter_again_after_a_replay(world: World) -> None:
    play(world, "not-replayable.48-user-tags")
    for letters in (2, 3, 4):
        replay(world)  # of all letters, which are one job
        assert outcomes(world)[-1][0] == "NOT_REPLAYABLE"
        assert len(world.bus.archive) == len(world.bus.messages) == letters
    assert world.calls == []


# What the function is given back.


def nested(payload: dict[str, Any], times: int, **outer: Any) -> dict[str, Any]:
    for n in range(times):
        payload = result("Failure") | {"detail": {"requestPayload": payload}}
        payload |= {"replay-name": f"replay-{n}"}
    return payload | outer


def read(payload: dict[str, Any]) -> tuple[FailedCall, Progress]:
    event, progress = unwrap(payload)
    return read_failed_call(event, "123456789012", "eu-west-1"), progress


@pytest.mark.parametrize("times", [1, 2, 50])
def test_the_failed_call_is_found_however_often_the_letter_went_round(times: int) -> None:
    call, progress = read(nested(load_event(FARGATE), times))
    assert (call.event_id, progress.replay_name) == (ORIGIN, f"replay-{times - 1}")


def test_a_due_attempt_inside_of_a_letter_is_due_no_more_but_its_token_stays_unspent() -> None:
    member = {"at": "2026-11-23T00:01:30Z", "unspent": True, "firstUse": "2026-11-23T00:01:00Z"}
    due = load_event(FARGATE) | {"retry-run-task:due": member, "replay-name": "old"}
    _, progress = read(due)
    used = NOW - timedelta(seconds=30)
    assert progress == Progress(NOW, True, unspent=True, first_use=used, replay_name="old")
    _, progress = read(nested(due, 1))
    assert progress == Progress(taken_on=True, unspent=True, replay_name="replay-0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("replay-name"), "replay-name is missing: only a replay sends letters"),
        (lambda e: e.update({"replay-name": None}), "replay-name is missing"),
        (lambda e: e.pop("detail"), "detail is missing"),
        (lambda e: e["detail"].pop("requestPayload"), "detail.requestPayload is missing"),
        (lambda e: e["detail"].update(requestPayload={}), "source is None instead of"),
    ],
)
def test_a_result_that_holds_no_failed_call_is_refused(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    event = nested(load_event(FARGATE), 1)
    change(event)
    with pytest.raises(NotAFailedCall, match=message):
        read(event)


# Nobody else puts letters on the bus.


def test_a_forged_dead_letter_is_refused(world: World) -> None:
    letter = result()
    anything = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    admin = "arn:aws:iam::123456789012:role/admin"
    with pytest.raises(AccessDenied):
        world.bus.put(world.stack, letter, admin, anything)
    role = world.stack.attribute("RetryRunTaskRole", "Arn")
    with pytest.raises(AccessDenied):
        world.bus.put(world.stack, letter, role, [])  # without its own policy's leave
    assert (world.bus.archive, world.bus.messages) == ([], [])
    world.bus.put(world.stack, letter, role, world.stack.policy)
    assert len(world.bus.archive) == 1


# Crashes.


POINTS = [
    "before RunTask",
    "after RunTask",
    "before CreateSchedule",
    "after CreateSchedule",
]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("attempt", [1, 2])
def test_a_crash_ends_in_a_launch_or_in_the_archive(
    point: str, times: int, attempt: int, world: World
) -> None:
    """Never neither; and both only where all three tries die after the write took effect.

    Lambda has a letter then, and the job runs all the same: a replay of it meets the token.
    """
    world.ecs.failures = attempt - 1 + ("CreateSchedule" in point)
    world.begin(load_event(FARGATE))
    while len(world.calls) < attempt - 1 + ("CreateSchedule" in point):
        world.step()
    world.crashes = [point] * times
    world.run()
    assert world.crashes == []
    dead = times == 3
    assert len(world.bus.archive) == len(world.bus.messages) == dead
    assert len(world.tasks) == (not dead or point.startswith("after"))
    if dead:
        replay(world)
        assert len(world.tasks) == 1
        assert len(world.bus.archive) == 1


def test_a_message_that_came_back_from_the_queue_is_told_again_and_can_be_replayed(
    world: World,
) -> None:
    # What could not be delivered to the topic is the event that the rule saw: a letter.
    play(world)
    (letter,) = world.bus.archive
    world.invoke(letter)
    world.run()
    assert "itself failed" in world.bus.messages[1]
    assert len(world.bus.archive) == 2
    capacity_returns(world)
    replay(world)  # of both: one holds the other
    assert [name for name, _ in outcomes(world)[-3:]] == [
        "SCHEDULED",
        "ALREADY_SCHEDULED",
        "LAUNCHED",
    ]
    assert len(world.tasks) == 1


def test_the_message_about_a_crash_has_a_text_of_its_own(world: World) -> None:
    world.crashes = ["before RunTask"] * 3
    play(world)
    (message,) = world.bus.messages
    lines = [line.strip('"') for line in message.splitlines()]
    assert lines[:4] == [
        "retry-run-task itself failed (RetriesExhausted): a job may not have run.",
        "Task definition: arn:aws:ecs:eu-west-1:123456789012:task-definition/nightly-report:42",
        "Cluster: arn:aws:ecs:eu-west-1:123456789012:cluster/jobs",
        "Error: Crash before RunTask",
    ]
    assert lines[4].endswith("its log group: retry-run-task-LogGroup")


def test_an_invocation_that_never_ran_is_a_letter_that_can_be_replayed(world: World) -> None:
    world.send_result("Failure", "EventAgeExceeded", load_event(FARGATE), None)
    capacity_returns(world)
    replay(world)
    assert outcomes(world)[-1] == ("LAUNCHED", "1/3")
    assert "(EventAgeExceeded)" in world.bus.messages[0]


# The message.


def test_text_in_a_message_stays_inside_of_its_quotes() -> None:
    transformer = {
        "InputPathsMap": {"a": "$.detail.a", "b": "$.detail.list[1]", "c": "$.none.at.all[7]"},
        "InputTemplate": '"<a>"\n"<b>, <c>."\n',
    }
    event = {"detail": {"a": 'say "hi"\n', "list": [0, {"x": 1}]}}
    text = transform(transformer, event)
    assert text == '"say \\"hi\\"\\n"\n"{\\"x\\": 1}, ."'


def test_every_line_of_every_template_is_a_json_string_of_declared_variables(stack: Stack) -> None:
    for name in ("DeadLetterMessage", "FailedInvocationMessage"):
        (target,) = stack.resources[name]["Properties"]["Targets"]
        transformer = target["InputTransformer"]
        assert len(transformer["InputTemplate"]) <= 8192  # EventBridge's limit
        for line in transformer["InputTemplate"].splitlines():
            assert isinstance(json.loads(line), str)
        transform(transformer, {})
        assert target["Arn"] == stack.attribute("NotificationTopic", "Arn")


# Whom to tell, and the alarms.


def test_the_topic_takes_messages_of_rules_and_of_alarms_only(stack: Stack) -> None:
    policy = stack.resources["NotificationTopicPolicy"]["Properties"]["PolicyDocument"]
    assert [
        (s["Principal"]["Service"], s["Action"], s.get("Condition")) for s in policy["Statement"]
    ] == [
        (
            "events.amazonaws.com",
            "sns:Publish",
            None,  # EventBridge does not support one here
        ),
        (
            "cloudwatch.amazonaws.com",
            "sns:Publish",
            {"StringEquals": {"aws:SourceAccount": "123456789012"}},
        ),
    ]


def test_an_address_is_subscribed_where_one_is_given(stack: Stack) -> None:
    assert "EmailSubscription" not in stack.resources
    subscribed = Stack({"NotificationEmail": "ops@example.com"})
    assert subscribed.resources["EmailSubscription"]["Properties"] == {
        "TopicArn": stack.attribute("NotificationTopic", "Arn"),
        "Protocol": "email",
        "Endpoint": "ops@example.com",
    }


def test_a_topic_that_is_there_already_is_used() -> None:
    theirs = "arn:aws:sns:eu-west-1:123456789012:alarms"
    stack = Stack({"NotificationTopicArn": theirs, "NotificationEmail": "ops@example.com"})
    assert not {"NotificationTopic", "NotificationTopicPolicy"} & stack.resources.keys()
    assert stack.resources["EmailSubscription"]["Properties"]["TopicArn"] == theirs
    targets = [rule["Targets"][0]["Arn"] for rule in stack.rules.values() if "Targets" in rule]
    assert {*targets, *(a for alarm in alarms(stack) for a in alarm["AlarmActions"])} == {theirs}
    assert stack.outputs["NotificationTopicArn"]["Value"] == theirs


def alarms(stack: Stack) -> list[dict[str, Any]]:
    return [
        resource["Properties"]
        for resource in stack.resources.values()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    ]


def test_the_alarms_ring_at_the_first_of_what_should_never_happen(stack: Stack) -> None:
    assert [(alarm["Namespace"], alarm["MetricName"]) for alarm in alarms(stack)] == [
        ("RetryRunTask", "DeadLetters"),
        ("AWS/Lambda", "Errors"),
        ("AWS/Lambda", "DestinationDeliveryFailures"),
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible"),
    ]
    for alarm in alarms(stack):
        assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)
        assert alarm["TreatMissingData"] == "notBreaching"
        assert alarm["AlarmActions"] == [stack.attribute("NotificationTopic", "Arn")]
        assert "OKActions" not in alarm


def test_alarms_and_dashboard_look_at_metrics_that_the_function_writes(world: World) -> None:
    capacity_returns(world)
    for name in (FARGATE, "exhausted.last-attempt"):
        world.call_handler(load_event(name))
    written = [json.loads(line) for line in world.logs.getvalue().splitlines() if "_aws" in line]
    names = {name for line in written for name in line if name in METRICS}
    assert names == METRICS
    body = json.loads(world.stack.resources["Dashboard"]["Properties"]["DashboardBody"])
    shown = set()
    for widget in body["widgets"]:
        namespace = ""
        for metric in widget["properties"]["metrics"]:
            if isinstance(metric[0], str) and metric[0] not in (".", "..."):
                namespace = metric[0]
            if namespace == "RetryRunTask" and isinstance(metric[0], str) and metric[0] != "...":
                shown.add(metric[1])
    assert shown == {outcome.value for outcome in Outcome} | METRICS
    dimensions = {d["Name"]: d["Value"] for d in alarms(world.stack)[0]["Dimensions"]}
    for line in written:
        assert {key: line[key] for key in dimensions} == dimensions


METRICS = {"DeadLetters", "SecondsToLaunch", "AttemptsToLaunch"}


# The switch.


def test_a_disabled_stack_takes_in_nothing(world: World) -> None:
    play(world)
    calls = len(world.calls)
    world.deploy(Stack({"RuleState": "DISABLED"}))
    capacity_returns(world)
    replay(world)
    play(world)
    assert len(world.calls) == calls


def test_what_is_stored_is_encrypted(stack: Stack) -> None:
    assert stack.resources["DeadLetterQueue"]["Properties"]["SqsManagedSseEnabled"] is True
    # With the AWS-managed key, neither EventBridge nor CloudWatch could publish.
    assert "KmsMasterKeyId" not in stack.resources["NotificationTopic"].get("Properties", {})
