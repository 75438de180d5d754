"""Nothing is lost in silence: the outcome bus, the archive, replays, the queue and the alarms."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from moto.ecs.exceptions import ECSException

from conftest import DUE_NOW, NOW, replay_command
from rehearsal import EVENT_NAMES, load_event
from rehearsal.bus import AccessDenied, message_of
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


def replay(world: World) -> None:
    """As an operator does who replays all that was lost so far."""
    world.wait(ARCHIVED)
    begin = world.start - timedelta(minutes=1)
    world.replay(replay_command(world.stack, begin, world.now))
    world.run()


def letters(world: World) -> int:
    """How many letters the rules have put into the queue."""
    return len(world.letters[world.stack.name].bodies)


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
    assert matches(stack.rules["DeadLetters"]["Pattern"], event) is outcome.is_dead_letter
    assert not matches(stack.rules["FailedInvocations"]["Pattern"], event)
    assert outcome.is_dead_letter is (outcome.value in DEAD)


def test_every_failed_invocation_is_archived_and_announced(stack: Stack) -> None:
    event = result("Failure")
    assert matches(stack.resources["DeadLetterArchive"]["Properties"]["EventPattern"], event)
    assert matches(stack.rules["FailedInvocations"]["Pattern"], event)
    assert not matches(stack.rules["DeadLetters"]["Pattern"], event)


@pytest.mark.parametrize("kind", ["Success", "Failure"])
@pytest.mark.parametrize("source", ["lambda", "aws.lambda"])
def test_a_replay_goes_to_the_function_and_to_nobody_else(
    kind: str, source: str, stack: Stack
) -> None:
    live = result(kind) | {"source": source}
    replayed = live | {"replay-name": "monday"}
    names = ("RetryRunTaskReplayedDeadLetter", "DeadLetters", "FailedInvocations")
    function, *letters = (stack.rules[name]["Pattern"] for name in names)
    assert (matches(function, live), matches(function, replayed)) == (False, True)
    assert not any(matches(pattern, replayed) for pattern in letters)


# A job is lost, and comes back.


def test_a_lost_job_is_one_letter_and_one_message(world: World) -> None:
    play(world)
    assert outcomes(world)[-1] == ("EXHAUSTED", "3/3")
    (letter,) = world.bus.archive
    assert letter["detail"]["responsePayload"] == world.outcomes[-1]
    assert world.letters[world.stack.name].bodies == [json.dumps(world.outcomes[-1])]
    (message,) = world.messages
    assert message.subject == "[retry-run-task] nightly-report did not start (eu-west-1)"


def test_the_messages_command_starts_the_job_and_no_other(world: World) -> None:
    play(world)
    world.wait(timedelta(minutes=10))
    play(world, eventID="another", eventTime="2026-11-23T00:20:04Z")
    first, second = (message.command(world.stack) for message in world.messages)
    capacity_returns(world)
    world.wait(ARCHIVED)
    for command in (first, second):
        assert world.replay(command or "") == 1
        world.run()
    assert len(world.tasks) == 2


def test_recoveries_are_quiet(world: World) -> None:
    world.ecs.failures = 2
    play(world)
    assert (outcomes(world)[-1][0], len(world.tasks)) == ("LAUNCHED", 1)
    assert (world.bus.archive, letters(world), world.messages) == ([], 0, [])


def test_a_replay_starts_the_job_once_and_replaying_again_starts_nothing(world: World) -> None:
    play(world)
    capacity_returns(world)
    replay(world)
    assert outcomes(world)[-2:] == [("SCHEDULED", "4/6"), ("LAUNCHED", "4/6")]
    replay(world)
    assert outcomes(world)[-2:] == [("SCHEDULED", "4/6"), ("ALREADY_LAUNCHED", "4/6")]
    assert len(world.tasks) == 1
    assert (len(world.bus.archive), len(world.messages)) == (1, 1)


def test_a_replayed_letter_that_died_again_can_be_replayed_again(world: World) -> None:
    play(world)
    replay(world)
    assert outcomes(world)[-1] == ("EXHAUSTED", "6/6")
    assert len(world.messages) == 2
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
    world.ecs.errors = [ECSException("ThrottlingException", "Rate exceeded")]
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
    assert any(s["Name"].endswith(f"-{ORIGIN}-7692c3ad") for s in schedules)
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
    assert world.messages[0].command(world.stack) is None
    for number in (2, 3, 4):
        replay(world)  # of all letters, which are one job
        assert outcomes(world)[-1][0] == "NOT_REPLAYABLE"
        assert len(world.bus.archive) == letters(world) == len(world.messages) == number
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
    assert (world.bus.archive, letters(world)) == ([], 0)
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
    assert len(world.bus.archive) == letters(world) == len(world.messages) == dead
    assert len(world.tasks) == (not dead or point.startswith("after"))
    if dead:
        replay(world)
        assert len(world.tasks) == 1
        assert len(world.bus.archive) == 1


def test_a_message_that_came_back_from_the_queue_is_told_again_and_can_be_replayed(
    world: World,
) -> None:
    # What could not be delivered to LostJobs is the event that the rule saw: a letter.
    play(world)
    (letter,) = world.bus.archive
    world.invoke(letter)
    world.run()
    assert world.messages[1].subject == (
        "[retry-run-task] failed: nightly-report may not have started (eu-west-1)"
    )
    assert len(world.bus.archive) == 2
    capacity_returns(world)
    replay(world)  # of both: one holds the other
    assert [name for name, _ in outcomes(world)[-3:]] == [
        "SCHEDULED",
        "ALREADY_SCHEDULED",
        "LAUNCHED",
    ]
    assert len(world.tasks) == 1


def test_an_invocation_that_never_ran_is_a_letter_that_can_be_replayed(world: World) -> None:
    world.send_result("Failure", "EventAgeExceeded", load_event(FARGATE), None)
    world.run()
    capacity_returns(world)
    replay(world)
    assert outcomes(world)[-1] == ("LAUNCHED", "1/3")
    assert "(EventAgeExceeded)" in world.messages[0].text


# What the rules send to the queue.


def test_a_variable_is_a_whole_json_value_or_nothing() -> None:
    target = {
        "InputTransformer": {
            "InputPathsMap": {"a": "$.detail.a", "b": "$.detail.b.c", "none": "$.none.at.all"},
            "InputTemplate": '{"a": [<a>], "b": [<b>], "none": [<none>]}\n',
        }
    }
    event = {"detail": {"a": 'say "hi"\n', "b": {"c": {"x": 1}}}}
    found = json.loads(message_of(target, event))
    assert found == {"a": ['say "hi"\n'], "b": [{"x": 1}], "none": []}
    target["InputTransformer"]["InputTemplate"] = '{"none": <none>}'
    with pytest.raises(ValueError, match="Expecting value"):  # EventBridge would not send it
        message_of(target, event)


def targets(stack: Stack) -> list[dict[str, Any]]:
    """Those of the two rules that put letters into the queue."""
    return [rule["Targets"][0] for rule in stack.rules.values() if "Targets" in rule]


def test_both_rules_send_to_the_queue_and_keep_what_they_cannot_deliver(stack: Stack) -> None:
    assert len(targets(stack)) == 2
    for target in targets(stack):
        assert target["Arn"] == stack.attribute("LostJobs", "Arn")
        assert target["DeadLetterConfig"]["Arn"] == stack.attribute("DeadLetterQueue", "Arn")
        retries = {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}
        assert target["RetryPolicy"] == retries


def test_whatever_an_event_lacks_the_template_gives_json(stack: Stack) -> None:
    (transformer,) = (t["InputTransformer"] for t in targets(stack) if "InputTransformer" in t)
    template, paths = transformer["InputTemplate"], transformer["InputPathsMap"]
    assert len(template) <= 8192  # EventBridge's limits
    assert len(paths) <= 100
    # Each variable is alone in a list: with a neighbour or without a list, it would break the JSON
    # where it is absent, whether nothing, null or "" then stands in its place.
    assert re.findall(r'"(\w+)": \[<(\w+)>\]', template) == [(name, name) for name in paths]
    assert template.count("<") == len(paths)
    for absent in ("", "null", '""'):
        assert len(json.loads(re.sub(r"<\w+>", absent, template))) == len(paths)


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_no_value_of_a_request_is_in_a_letter(name: str, stack: Stack) -> None:
    event = load_event(name)
    parameters = event["detail"].get("requestParameters") or {}
    for member in ("overrides", "tags", "networkConfiguration", "clientToken"):
        parameters[member] = [{"environment": SECRET, "value": SECRET}]
    _, target = targets(stack)
    for times, payload in enumerate((event, nested(event, 1), nested(event, 2))):
        body = message_of(target, result("Failure") | {"detail": {"requestPayload": payload}})
        found = json.loads(body)
        assert (len(found["event"]), len(found["inner_event"])) == (times == 0, times == 1)
        assert SECRET not in body


SECRET = "not for the queue"  # noqa: S105 - no password


# Whom to alert, and the alarms.


def test_the_topic_takes_messages_of_alarms_only(stack: Stack) -> None:
    # And of Notify, whose role may publish.
    policy = stack.resources["NotificationTopicPolicy"]["Properties"]["PolicyDocument"]
    assert [(s["Principal"], s["Action"], s["Condition"]) for s in policy["Statement"]] == [
        (
            {"Service": "cloudwatch.amazonaws.com"},
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
    assert {action for alarm in alarms(stack) for action in alarm["AlarmActions"]} == {theirs}
    assert stack.environment_of("Notify")["TOPIC_ARN"] == theirs
    assert stack.outputs["NotificationTopicArn"]["Value"] == theirs


def alarms(stack: Stack) -> list[dict[str, Any]]:
    return [
        resource["Properties"]
        for resource in stack.resources.values()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    ]


def test_the_alarms_ring_at_the_first_of_what_should_never_happen(stack: Stack) -> None:
    # SQS does not count the age of what was received three times: that is after eight minutes.
    queue, seconds = stack.attribute("LostJobs", "QueueName"), 300
    assert seconds < 2 * stack.resources["LostJobs"]["Properties"]["VisibilityTimeout"]
    for alarm in alarms(stack):
        names = [dimension["Value"] for dimension in alarm["Dimensions"]]
        threshold = seconds if queue in names else 0
        assert (alarm["ComparisonOperator"], alarm["Threshold"]) == (
            "GreaterThanThreshold",
            threshold,
        )
        assert alarm["TreatMissingData"] == "notBreaching"
        assert alarm["AlarmActions"] == [stack.attribute("NotificationTopic", "Arn")]
        assert "OKActions" not in alarm
    assert [
        (alarm["Namespace"], alarm["MetricName"], alarm["Dimensions"][0]["Value"])
        for alarm in alarms(stack)
    ] == [
        ("RetryRunTask", "DeadLetters", "retry-run-task-RetryRunTask"),
        ("AWS/Lambda", "Errors", "retry-run-task-RetryRunTask"),
        ("AWS/Lambda", "DestinationDeliveryFailures", "retry-run-task-RetryRunTask"),
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "retry-run-task-DeadLetterQueue"),
        ("AWS/Lambda", "Errors", "retry-run-task-Notify"),
        ("AWS/SQS", "ApproximateAgeOfOldestMessage", queue),
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "retry-run-task-UnsentLostJobs"),
    ]


def test_alarms_and_dashboard_look_at_metrics_that_the_function_writes(world: World) -> None:
    capacity_returns(world)
    world.refused["ListSchedules"] = "AccessDeniedException"
    for event in (load_event(FARGATE) | DUE_NOW, load_event("exhausted.last-attempt")):
        world.call_handler(event)
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


METRICS = {
    "DeadLetters",
    "SecondsToLaunch",
    "AttemptsToLaunch",
    "PulledForward",
    "PullForwardErrors",
}


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
    queues = [r for r in stack.resources.values() if r["Type"] == "AWS::SQS::Queue"]
    assert [queue["Properties"]["SqsManagedSseEnabled"] for queue in queues] == [True] * 3
    # With the AWS-managed key, CloudWatch could not publish.
    assert "KmsMasterKeyId" not in stack.resources["NotificationTopic"].get("Properties", {})
