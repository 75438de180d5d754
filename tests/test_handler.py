"""The handler against moto's ECS with scarce capacity: what it asks, answers, logs and measures."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.ecs.exceptions import ECSException

from conftest import DUE_NOW, NOW
from rehearsal import load_event
from rehearsal.ecs import ConflictException
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task import handler as function
from retry_run_task import launch, wait
from retry_run_task.failed_call import NotAFailedCall
from retry_run_task.handler import NotContinued
from retry_run_task.launch import NoReason

FARGATE = "launched.fargate-capacity-rule"
ORIGIN = load_event(FARGATE)["detail"]["eventID"]
CAPACITY = load_event(FARGATE)["detail"]["responseElements"]["failures"][0]["reason"]


@pytest.fixture
def world() -> Iterator[World]:
    with World(Stack(), NOW) as world:
        yield world


def log_lines(world: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in world.logs.getvalue().splitlines()]


def test_a_launch_is_told_with_everything_that_an_operator_asks_for(world: World) -> None:
    outcome = world.call_handler(load_event(FARGATE))
    assert outcome == {
        "outcome": "LAUNCHED",
        "time": "2026-11-23T00:01:30Z",
        "job": "nightly-report",
        "startedBy": "events-rule/nightly-report",
        "caller": {
            "kind": "events-rule",
            "role": "arn:aws:iam::123456789012:role/nightly-report-events",
        },
        "event": ORIGIN,
        "origin": ORIGIN,
        "attempt": "1/10",
        "since": "2026-11-23T00:00:04Z",
        "cluster": "arn:aws:ecs:eu-west-1:123456789012:cluster/jobs",
        "taskDefinition": "arn:aws:ecs:eu-west-1:123456789012:task-definition/nightly-report:42",
        "reasons": [CAPACITY],
        "tasks": world.ecs.tasks,
    }
    assert len(world.ecs.tasks) == 1


def test_a_launched_task_has_the_callers_overrides_and_our_tags(world: World) -> None:
    world.call_handler(load_event(FARGATE))
    ecs = function.ecs_client()
    (task,) = ecs.describe_tasks(cluster="jobs", tasks=world.ecs.tasks, include=["TAGS"])["tasks"]
    asked = load_event(FARGATE)["detail"]["requestParameters"]
    assert task["overrides"] == asked["overrides"]
    assert task["startedBy"] == asked["startedBy"]
    assert {tag["key"]: tag["value"] for tag in task["tags"]} == {
        "team": "finance",
        "retry-run-task:attempt": "1/10",
        "retry-run-task:origin": ORIGIN,
        "retry-run-task:since": "2026-11-23T00:00:04Z",
    }


@pytest.mark.parametrize("name", ["launched.every-parameter", "launched.command-unicode-long"])
def test_each_parameter_and_each_character_arrives_as_the_caller_sent_it(
    name: str, world: World
) -> None:
    event = load_event(name)
    asked = copy.deepcopy(event["detail"]["requestParameters"])
    assert world.call_handler(event)["outcome"] == "LAUNCHED"
    (sent,) = world.calls
    theirs = [tag for tag in sent["tags"] if not tag["key"].startswith("retry-run-task:")]
    assert theirs == asked.pop("tags", [])
    asked.pop("referenceId", None)
    assert {k: v for k, v in sent.items() if k not in ("tags", "clientToken")} == asked


def test_a_failure_is_told_with_the_reasons_of_both_calls(world: World) -> None:
    world.ecs.failures, world.ecs.reason = 1, "RESOURCE:CPU"
    outcome = world.call_handler(load_event(FARGATE))
    assert (outcome["outcome"], outcome["attempt"]) == ("FAILED_AGAIN", "1/10")
    assert (outcome["reasons"], outcome["tasks"]) == ([CAPACITY], [])
    assert outcome["detail"] == "ECS answered: RESOURCE:CPU."


def test_an_attempt_that_placed_some_tasks_says_which() -> None:
    event = load_event("left-alone.partial-placement")
    event["detail"]["responseElements"]["tasks"] = []
    with World(Stack(), NOW, at_most=2) as world:
        outcome = world.call_handler(event)
    assert (outcome["outcome"], outcome["tasks"]) == ("FAILED_AGAIN", world.ecs.tasks)
    assert len(world.ecs.tasks) == 2


def test_what_the_call_does_not_show_is_null_or_the_default(world: World) -> None:
    event = load_event(FARGATE)
    del event["detail"]["userIdentity"]["sessionContext"]
    for name in ("startedBy", "cluster"):
        del event["detail"]["requestParameters"][name]
    outcome = world.call_handler(event)
    assert outcome["caller"] == {"kind": "events-rule", "role": None}
    assert (outcome["startedBy"], outcome["cluster"]) == (None, "default")


@pytest.mark.parametrize("name", [FARGATE, "launched.second-attempt"])
def test_a_budget_that_cannot_be_read_is_reported_with_every_outcome(
    name: str, world: World
) -> None:
    event = load_event(name)
    tag = {"key": "retry-run-task:max-attempts", "value": "many"}
    event["detail"]["requestParameters"]["tags"].append(tag)
    world.ecs.failures = 1
    outcome = world.call_handler(event)
    assert outcome["outcome"] == ("FAILED_AGAIN" if name == FARGATE else "SCHEDULED")
    assert "max-attempts is not a whole number" in outcome["detail"]


def test_a_dead_letter_is_told_without_asking_ecs(world: World) -> None:
    outcome = world.call_handler(load_event("exhausted.last-attempt"))
    assert (outcome["outcome"], outcome["attempt"]) == ("EXHAUSTED", "10/10")
    assert outcome["detail"] == "The budget of 10 attempts is used up."
    assert world.calls == []


def test_the_same_event_twice_starts_one_task(world: World) -> None:
    first = world.call_handler(load_event(FARGATE))
    second = world.call_handler(load_event(FARGATE))
    assert first == second
    assert len(world.ecs.tasks) == 1


def test_a_token_that_is_bound_to_tasks_means_already_launched(world: World) -> None:
    launched = world.call_handler(load_event(FARGATE))
    world.deploy(Stack({"MaxAttempts": "20"}))  # another tag, so another request
    outcome = world.call_handler(load_event(FARGATE))
    assert (outcome["outcome"], outcome["tasks"]) == ("ALREADY_LAUNCHED", launched["tasks"])
    assert world.ecs.tasks == launched["tasks"]


def test_a_token_that_is_spent_on_a_failure_leads_to_the_next_attempt(world: World) -> None:
    world.ecs.failures = 1
    world.call_handler(load_event(FARGATE))
    world.deploy(Stack({"MaxAttempts": "20"}))
    outcome = world.call_handler(load_event(FARGATE))
    assert (outcome["outcome"], outcome["attempt"]) == ("SCHEDULED", "2/20")
    assert outcome["detail"].startswith(
        "The attempt's client token was used before, and placed too little. Pending"
    )


def test_a_token_that_is_spent_on_some_of_the_tasks_leads_to_an_attempt_for_the_others() -> None:
    """The call took effect, its answer was an error, and so there is no event of what it placed."""
    event = load_event("left-alone.partial-placement")
    event["detail"]["responseElements"]["tasks"] = []
    with World(Stack(), NOW, at_most=2) as world:
        world.ecs.late_errors = [ECSException("ServerException", "oops")]
        world.begin(event)
        world.run()
    assert [outcome["outcome"] for outcome in world.outcomes] == [
        "SCHEDULED",
        "SCHEDULED",
        "FAILED_AGAIN",
        "SCHEDULED",
        "LAUNCHED",
    ]
    assert [call["count"] for call in world.calls] == [5, 5, 3, 1]
    assert len(world.tasks) == 5


def test_a_token_that_is_spent_at_the_end_of_the_budget_ends_the_chain(world: World) -> None:
    world.ecs.failures = 1
    world.call_handler(load_event(FARGATE))
    world.deploy(Stack({"MaxAttempts": "1"}))
    outcome = world.call_handler(load_event(FARGATE))
    assert (outcome["outcome"], outcome["attempt"]) == ("EXHAUSTED", "1/1")


def test_a_partly_placed_attempt_is_continued_until_every_task_runs() -> None:
    event = load_event("left-alone.partial-placement")
    event["detail"]["responseElements"]["tasks"] = []
    with World(Stack(), NOW, at_most=2) as world:
        world.begin(event)
        world.run()
    assert [call["count"] for call in world.calls] == [5, 3, 1]
    assert [outcome["outcome"] for outcome in world.outcomes] == [
        "FAILED_AGAIN",
        "SCHEDULED",
        "FAILED_AGAIN",
        "SCHEDULED",
        "LAUNCHED",
    ]
    names = [entry.text for entry in world.timeline if entry.actor == "Scheduler"]
    origin = event["detail"]["eventID"]
    assert [name.split("-", 2)[2] for name in names] == [
        f"{origin}-2 is due",
        f"{origin}-3 is due",
    ]
    assert [call["clientToken"] for call in world.calls] == [f"{origin}-{n}" for n in (1, 2, 3)]
    assert (len(world.tasks), world.missing) == (5, 0)


@pytest.mark.parametrize("message", ["no", "Rate exceeded", "RequestLimitExceeded"])
@pytest.mark.parametrize("code", ["AccessDeniedException", "ClusterNotFoundException"])
def test_what_ecs_rejects_escapes_whatever_it_says(code: str, message: str, world: World) -> None:
    world.ecs.errors = [ECSException(code, message)]
    with pytest.raises(ClientError, match=code):
        world.call_handler(load_event(FARGATE))


TRANSIENT = [
    ECSException("ServerException", "oops"),
    ECSException("ThrottlingException", "Rate exceeded"),
    ECSException("ClientException", "Tasks provisioning capacity limit exceeded."),
    ECSException("InvalidParameterException", "Rate exceeded (ErrorCode: Throttling)"),
    ECSException("InvalidParameterException", "EC2 said RequestLimitExceeded, sorry"),
    ECSException("Throttling", "slow down"),
    ECSException("RequestLimitExceeded", "slow down"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=str)
def test_an_error_that_passes_schedules_the_next_attempt(error: ECSException, world: World) -> None:
    world.ecs.errors = [error]
    outcome = world.call_handler(load_event(FARGATE))
    assert (outcome["outcome"], outcome["attempt"]) == ("SCHEDULED", "2/10")
    assert outcome["detail"].startswith(f"RunTask ended in {error.code}. Pending until 2026")


@pytest.mark.parametrize("error", TRANSIENT, ids=str)
def test_an_attempt_after_an_error_that_passes_can_not_start_a_second_task(
    error: ECSException, world: World
) -> None:
    """The event comes twice, and the twin is not thrown back: it starts the job."""
    event = load_event(FARGATE)
    world.ecs.errors = [error]
    assert world.call_handler(event)["outcome"] == "SCHEDULED"
    world.ecs.errors.clear()
    started = world.call_handler(event)
    assert started["outcome"] == "LAUNCHED"
    world.watch_schedules()
    world.run()
    assert [(o["outcome"], o["attempt"], o["tasks"]) for o in world.outcomes] == [
        ("ALREADY_LAUNCHED", "2/10", started["tasks"])
    ]
    assert world.ecs.tasks == started["tasks"]


def test_an_attempt_whose_answer_is_lost_is_made_again_and_starts_one_task(world: World) -> None:
    """By a schedule, with the same token: the SDK tries once."""
    world.ecs.lost_answers = 1
    world.begin(load_event(FARGATE))
    world.run()
    outcome = world.outcomes[-1]
    assert (outcome["outcome"], outcome["tasks"]) == ("ALREADY_LAUNCHED", world.ecs.tasks)
    assert len(world.ecs.tasks) == 1
    assert [call["clientToken"] for call in world.calls] == [f"{ORIGIN}-1"] * 2


def test_errors_that_pass_use_up_the_budget_if_they_do_not(world: World) -> None:
    world.deploy(Stack({"BackoffCapSeconds": "120"}))
    world.ecs.errors = [ECSException("ServerException", "oops")] * 999
    world.begin(load_event(FARGATE))
    world.run()
    assert [outcome["outcome"] for outcome in world.outcomes] == ["SCHEDULED"] * 9 + ["EXHAUSTED"]
    assert {call["clientToken"] for call in world.calls} == {f"{ORIGIN}-1"}


def test_errors_that_do_not_pass_for_55_minutes_end_the_chain_because_the_token_may_have_died(
    world: World,
) -> None:
    world.ecs.errors = [ECSException("ServerException", "oops")] * 999
    world.begin(load_event(FARGATE))
    world.run()
    assert [outcome["outcome"] for outcome in world.outcomes] == ["SCHEDULED"] * 7 + ["EXPIRED"]
    assert world.outcomes[-1]["detail"] == (
        "RunTask ended in ServerException. The next attempt would use a client token that may be "
        "in use since 2026-11-23T00:00:04Z, and may have died by then. An attempt may have started "
        "the job: see whether it runs or has run, and replay it if not."
    )
    assert world.now - datetime(2026, 11, 23, 0, 0, 4, tzinfo=UTC) < timedelta(minutes=55)


def test_an_error_that_passes_on_a_request_too_large_to_wait_escapes(world: World) -> None:
    event = load_event(FARGATE)
    container = event["detail"]["requestParameters"]["overrides"]["containerOverrides"][0]
    container["command"] = ["x" * 256_000]
    world.ecs.errors = [TRANSIENT[2]]
    with pytest.raises(NotContinued, match="RunTask ended in ClientException"):
        world.call_handler(event)


def test_a_replay_goes_on_past_spent_tokens_while_time_is_left_and_then_in_a_schedule(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECS takes a second for each of its answers, of the three minutes that Lambda gives."""
    answer = world.ecs.answer

    def spent_up_to_300(parameters: Any, place: Any) -> Any:
        world.wait(timedelta(seconds=1))
        if int(parameters["clientToken"].rpartition("-")[2]) <= 300:
            world.calls.append(dict(parameters))
            raise ConflictException([])
        return answer(parameters, place)

    monkeypatch.setattr(world.ecs, "answer", spent_up_to_300)
    letter = load_event("exhausted.last-attempt") | DUE_NOW | {"replay-name": "monday"}
    world.invoke(letter)
    assert len(world.calls) == 161
    (outcome,) = world.outcomes
    assert (outcome["outcome"], outcome["attempt"]) == ("SCHEDULED", "172/181")
    (schedule,) = world.schedules()
    # printf %s monday/171/180 | sha256sum | head -c 8
    assert schedule["Name"].endswith(f"-{outcome['origin']}-c4729d3a")
    # It gets as far as it takes, some minutes later, with its whole budget.
    world.run()
    outcome = world.outcomes[1]
    assert (outcome["outcome"], outcome["attempt"]) == ("LAUNCHED", "301/310")
    assert world.now - NOW < timedelta(minutes=20)


def test_a_replay_that_is_too_large_to_wait_fails_where_no_time_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conflict(*_: object) -> None:
        world.wait(timedelta(seconds=170))
        raise ConflictException([])

    monkeypatch.setattr(world.ecs, "answer", conflict)
    letter = load_event("exhausted.last-attempt") | DUE_NOW | {"replay-name": "monday"}
    container = letter["detail"]["requestParameters"]["overrides"]["containerOverrides"][0]
    container["command"] = ["x" * 256_000]
    with pytest.raises(NotContinued, match="used before"):
        world.call_handler(letter)


def test_what_scheduler_would_fill_in_is_asked_for_as_it_was() -> None:
    event = load_event(FARGATE)
    (container,) = event["detail"]["requestParameters"]["overrides"]["containerOverrides"]
    container["command"] = ["put-target", '{"time": "<aws.scheduler.scheduled-time>"}', "a<b>&c"]
    with World(Stack(), NOW, failures=2) as world:
        world.begin(event)
        world.run()
    sent = [call["overrides"]["containerOverrides"][0]["command"] for call in world.calls]
    assert sent == [container["command"]] * 3


def test_an_attempt_waits_in_a_schedule_that_leaves_nothing_behind(world: World) -> None:
    outcome = world.call_handler(load_event("launched.second-attempt"))
    scheduler, group = boto3.client("scheduler"), world.stack.environment["SCHEDULE_GROUP"]
    schedule = scheduler.get_schedule(GroupName=group, Name=f"948cbdc2-8b5-{ORIGIN}-2")
    assert (outcome["outcome"], outcome["attempt"], outcome["tasks"]) == ("SCHEDULED", "2/10", [])
    assert outcome["detail"] == "Pending until 2026-11-23T00:03:03Z."
    assert schedule["ScheduleExpression"] == "at(2026-11-23T00:03:03)"
    assert schedule["ScheduleExpressionTimezone"] == "UTC"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert schedule["ActionAfterCompletion"] == "DELETE"
    target = schedule["Target"]
    assert target["Arn"] == world.stack.function_arn
    assert target["RoleArn"] == world.stack.environment["SCHEDULER_ROLE_ARN"]
    assert target["DeadLetterConfig"] == {"Arn": world.stack.environment["DEAD_LETTER_QUEUE_ARN"]}
    assert target["RetryPolicy"] == {
        "MaximumRetryAttempts": 185,
        "MaximumEventAgeInSeconds": 86400,
    }
    again = world.call_handler(load_event("launched.second-attempt"))
    assert (again["outcome"], again["detail"]) == (
        "ALREADY_SCHEDULED",
        "A duplicate is pending already.",
    )


def test_a_throttled_call_is_one_call_and_the_next_attempt_waits_a_minute_or_two() -> None:
    waits = []
    for n in range(10):
        with World(Stack(), NOW) as world:
            world.ecs.errors = [ECSException("ThrottlingException", "Rate exceeded")]
            event = load_event(FARGATE)
            event["detail"]["eventID"] = f"event-{n}"
            assert world.call_handler(event)["outcome"] == "SCHEDULED"
            assert len(world.calls) == 1
            (schedule,) = world.schedules()
        until = datetime.fromisoformat(f"{schedule['ScheduleExpression'][3:-1]}+00:00")
        waits.append((until - NOW).total_seconds())
    assert 60 <= min(waits) < 75
    assert 105 < max(waits) <= 120


def test_lambda_tries_three_times_and_then_the_event_is_a_dead_letter(world: World) -> None:
    world.ecs.errors = [ECSException("AccessDeniedException", "no")] * 3
    world.begin(load_event(FARGATE))
    world.run()
    assert world.outcomes == []
    (letter,) = world.bus.archive
    assert letter["detail"]["requestPayload"] == load_event(FARGATE)
    assert letter["detail"]["responsePayload"]["errorType"] == "AccessDeniedException"


@pytest.mark.parametrize("failures", [[], [{"arn": "an instance"}]])
def test_an_answer_without_tasks_and_reasons_is_an_error(
    failures: list[Any], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule would not match its event: the chain would end there, unseen."""
    monkeypatch.setattr(world.ecs, "answer", lambda *_: {"tasks": [], "failures": failures})
    with pytest.raises(NoReason):
        world.call_handler(load_event(FARGATE))


def test_one_log_line_tells_the_outcome_under_the_origin(world: World) -> None:
    outcome = world.call_handler(load_event(FARGATE))
    line, _metrics = log_lines(world)
    assert {key: line[key] for key in outcome} == outcome
    assert line["correlation_id"] == ORIGIN


def test_no_value_of_the_users_request_is_logged(world: World) -> None:
    for name in (FARGATE, "launched.ec2-mixed-reasons", "not-replayable.hidden-environment"):
        world.call_handler(load_event(name))
    for value in ("yesterday", "finance", "subnet-", "attribute:ecs.instance-type"):
        assert value not in world.logs.getvalue()


def test_each_outcome_is_a_metric_and_a_launch_tells_how_long_it_took(world: World) -> None:
    world.call_handler(load_event(FARGATE))
    world.call_handler(load_event("exhausted.last-attempt"))
    launched, exhausted = (line for line in log_lines(world) if "_aws" in line)
    assert (launched["LAUNCHED"], launched["DeadLetters"]) == ([1.0], [0.0])
    assert (launched["SecondsToLaunch"], launched["AttemptsToLaunch"]) == ([86.0], [1.0])
    assert (exhausted["EXHAUSTED"], exhausted["DeadLetters"]) == ([1.0], [1.0])
    assert not {"SecondsToLaunch", "AttemptsToLaunch"} & exhausted.keys()
    for line in (launched, exhausted):
        (metrics,) = line["_aws"]["CloudWatchMetrics"]
        assert metrics["Namespace"] == "RetryRunTask"
        assert metrics["Dimensions"] == [["FunctionName", "service"]]
        assert line["FunctionName"] == world.stack.function_name


def test_a_payload_that_is_no_failed_call_asks_nothing(world: World) -> None:
    with pytest.raises(NotAFailedCall):
        world.call_handler({"detail": {}})
    assert world.calls == []


def test_every_try_of_the_clients_fits_into_the_functions_timeout(stack: Stack) -> None:
    longest = 0
    for config in (launch.CLIENT_CONFIG, wait.CLIENT_CONFIG):
        options: dict[str, Any] = vars(config)
        tries = options["retries"]["total_max_attempts"]
        assert options["retries"]["mode"] == "standard"
        # Standard mode waits up to 1, 2, 4, … s between tries (botocore's retries guide).
        waits = sum(2**i for i in range(tries - 1))
        longest += tries * (options["connect_timeout"] + options["read_timeout"]) + waits
    assert longest == 15 + 21
    assert longest < stack.function["Timeout"]


def test_importing_the_function_needs_no_environment() -> None:
    code = "from retry_run_task.handler import ecs_client; print(ecs_client.cache_info().currsize)"
    command = [sys.executable, "-c", code]
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}  # beside what is deployed
    result = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout == "0\n"
