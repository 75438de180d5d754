"""The rehearsal: what its user sees, and that its AWS errs as AWS does."""

import json
from datetime import timedelta
from typing import Any

import boto3
import pytest

from conftest import NOW
from rehearsal import EVENT_NAMES, EVENTS, load_event, verdict_of
from rehearsal.cli import main
from rehearsal.cloudtrail import hide_environment
from rehearsal.policies import LEFT_ALONE
from rehearsal.template import BadParameter, Stack
from rehearsal.world import World

FARGATE = str(EVENTS / "launched.fargate-capacity-rule.json")


def rehearsed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main([*arguments, "--json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, result


def test_a_job_fails_three_times_and_is_then_launched(capsys: pytest.CaptureFixture[str]) -> None:
    status, result = rehearsed(capsys, FARGATE)
    timeline = result.pop("timeline")
    (task,) = result.pop("tasks")
    assert task.startswith("arn:aws:ecs:eu-west-1:123456789012:task/jobs/")
    assert (status, result) == (
        0,
        {
            "event": "228595a9-a5a3-55d8-85a0-ba4e14b36f4c",
            "job": "nightly-report",
            "outcome": "LAUNCHED",
            "runtask_calls": 4,
            "attempts": 3,
            "messages": [],
            "virtual_seconds": 632.0,
        },
    )
    assert [entry["outcome"] for entry in timeline if "outcome" in entry] == [
        "FAILED_AGAIN",
        "SCHEDULED",
        "FAILED_AGAIN",
        "SCHEDULED",
        "LAUNCHED",
    ]


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_each_event_file_rehearses_to_its_verdict(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, result = rehearsed(capsys, str(EVENTS / f"{name}.json"))
    verdict = verdict_of(name)
    assert result["outcome"] == verdict
    assert status == {"LAUNCHED": 0, **dict.fromkeys(LEFT_ALONE, 3)}.get(verdict, 1)


def test_capacity_that_stays_away_ends_the_chain_at_its_budget(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, result = rehearsed(capsys, FARGATE, "--failures", "99")
    assert (status, result["outcome"], result["attempts"]) == (1, "EXHAUSTED", 10)
    assert (result["runtask_calls"], result["tasks"]) == (11, [])


def test_an_outage_of_75_minutes_is_outlasted(capsys: pytest.CaptureFixture[str]) -> None:
    _, result = rehearsed(capsys, FARGATE, "--outage", "75m")
    assert (result["outcome"], result["attempts"]) == ("LAUNCHED", 9)
    assert 75 * 60 < result["virtual_seconds"] < 90 * 60


def test_an_outage_that_is_over_lets_the_first_attempt_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, result = rehearsed(capsys, FARGATE, "--outage", "0s")
    assert (result["outcome"], result["attempts"]) == ("LAUNCHED", 1)


def test_a_job_that_would_be_too_late_expires(capsys: pytest.CaptureFixture[str]) -> None:
    old = ("--outage", "75m", "--parameter", "MaxAgeMinutes=30")
    status, result = rehearsed(capsys, FARGATE, *old)
    assert (status, result["outcome"]) == (1, "EXPIRED")
    assert result["virtual_seconds"] <= 30 * 60


def test_duplicate_events_start_one_task(capsys: pytest.CaptureFixture[str]) -> None:
    _, result = rehearsed(capsys, FARGATE, "--duplicates", "--failures", "6")
    assert (result["outcome"], len(result["tasks"])) == ("LAUNCHED", 1)
    # Twins wait under one name: the calls double once and not at every attempt.
    assert (result["attempts"], result["runtask_calls"]) == (6, 1 + 6 * 2)


def test_a_permanent_reason_ends_the_chain(capsys: pytest.CaptureFixture[str]) -> None:
    status, result = rehearsed(capsys, FARGATE, "--reason", "ATTRIBUTE")
    assert (status, result["outcome"], result["attempts"]) == (1, "NOT_RETRYABLE", 1)


def test_parameters_of_the_stack_can_be_tried(capsys: pytest.CaptureFixture[str]) -> None:
    status, result = rehearsed(capsys, FARGATE, "--parameter", "MaxAttempts=1")
    assert (status, result["outcome"], result["runtask_calls"]) == (1, "EXHAUSTED", 2)


def test_the_exact_request_can_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    _, result = rehearsed(capsys, FARGATE, "--show-request")
    asked = load_event("launched.fargate-capacity-rule")["detail"]["requestParameters"]
    sent = result["request"]
    assert {k: v for k, v in sent.items() if k not in ("tags", "clientToken")} == {
        k: v for k, v in asked.items() if k != "tags"
    }
    main([FARGATE, "--show-request"])
    assert json.loads(capsys.readouterr().out.partition("received it:\n")[2]) == sent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MaxAttempts", "0"),
        ("MaxAttempts", "101"),
        ("MaxAttempts", "x"),
        ("RetryPartialFailures", "yes"),
        ("ClusterArns", "jobs"),
        ("TaskDefinitionArns", "arn:aws:ecs:eu-west-1:123456789012:task-definition/nightly"),
        ("PassRoleArns", "nightly-role"),
        ("LogRetentionDays", "2"),
        ("Colour", "red"),
    ],
)
def test_a_parameter_that_cloudformation_would_refuse_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadParameter, match=f"^{name} is "):
        Stack({name: value})


def test_cloudtrail_hides_environment_overrides_and_nothing_else() -> None:
    secret = {"name": "report", "environment": [{"name": "TOKEN", "value": "x"}], "cpu": 1}
    shown = hide_environment({"overrides": {"containerOverrides": [secret]}, "count": 1})
    hidden = {"name": "report", "environment": "HIDDEN_DUE_TO_SECURITY_REASONS", "cpu": 1}
    assert shown == {"overrides": {"containerOverrides": [hidden]}, "count": 1}


def ask(token: str, group: str = "nightly") -> Any:
    return boto3.client("ecs").run_task(
        taskDefinition="nightly", launchType="FARGATE", clientToken=token, group=group
    )


@pytest.mark.parametrize("binds_failures", [True, False])
def test_a_token_answers_as_the_first_call_did(binds_failures: bool) -> None:
    with World(Stack(), NOW, failures=1, binds_failures=binds_failures) as world:
        failed, again = ask("a"), ask("a")
        assert (failed["tasks"], len(failed["failures"])) == ([], 1)
        assert again["tasks"] == [] if binds_failures else len(again["tasks"]) == 1
        launched = ask("b")["tasks"]
        assert ask("b")["tasks"] == launched
        (task,) = launched
        with pytest.raises(boto3.client("ecs").exceptions.ConflictException) as conflict:
            ask("b", group="other")
        response: dict[str, Any] = {**conflict.value.response}
        assert response["resourceIds"] == [task["taskArn"]]
        assert len(world.calls) == 5


def test_what_the_rehearsal_says_runs_is_what_moto_runs() -> None:
    with World(Stack(), NOW, at_most=2) as world:
        boto3.client("ecs").run_task(
            taskDefinition="n:3", launchType="FARGATE", count=3, clientToken="a"
        )
        assert boto3.client("ecs").list_tasks()["taskArns"] == world.ecs.tasks
        assert len(world.ecs.tasks) == 2


def test_an_outage_ends_with_the_clock() -> None:
    with World(Stack(), NOW, outage_ends=NOW + timedelta(minutes=1)) as world:
        assert ask("a")["tasks"] == []
        world._sleep(60)
        assert len(ask("b")["tasks"]) == 1
