"""`drill`: one job through the deployed function, and the probe; the rehearsal's world answers."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from moto.iam.access_control import IAMRequestBase

from account import (
    chain,
    fire_drill,
    probe,
    session,
    terminal,
)  # with annotations that need boto3 as it is
from account.chain_log import Entry
from account.drill import DRILL, PROBE, main, policy_of
from account.followed import Followed
from conftest import NOW, enforcing, run_command
from deployed_account import INVOCATION, Answer, UserAccount, user_account
from rehearsal.records import BadInput
from rehearsal.world import World
from test_check import (
    MAY_TAG,
    environment,
    every_night,
    function_is,
    nightly,
    output_is,
    stack_is,
)

assert probe

SEARCH = (
    "The job may start, or run already. Its tasks: `aws resourcegroupstaggingapi get-resources "
    "--tag-filters Key=retry-run-task:origin,Values="
)
TASK = "arn:aws:ecs:eu-west-1:123456789012:task/jobs/"
NOT_VERIFIED = (
    "Not verified: that CloudTrail sends the event of a failed call to the rule, and that the rule"
)


@contextmanager
def account_with(*definitions: dict[str, Any], **options: Any) -> Iterator[UserAccount]:
    """An account with these rules and schedules, their task definition and their caller's role."""
    kinds: dict[str, list[Any]] = {"Rules": [], "Schedules": []}
    for definition in definitions:
        kinds["Rules" if "Targets" in definition else "Schedules"].append(definition)
    with user_account(options.pop("parameters", None), kinds, **options) as account:
        account.define_task("nightly:42")
        account.allow("caller", [MAY_TAG])
        yield account


def drill(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output in one line, and standard error."""
    status, out, error = run_command(main, *arguments)
    return status, " ".join(out.split()), error


def started(account: UserAccount) -> int:
    """How many tasks were placed."""
    return len(account.world.tasks)


# Launched.


def test_a_job_is_started_by_the_deployed_function() -> None:
    with account_with(nightly(Input=environment("secret"))) as account:
        status, out, error = drill("nightly", "--yes")
        assert started(account) == 1
        (call,) = account.world.calls
        assert call["overrides"] == json.loads(environment("secret"))
        assert call["startedBy"] == "events-rule/nightly"
    assert (status, error) == (0, "")
    assert out.startswith(
        "123456789012, eu-west-1, the stack retry-run-task "
        "This really starts rule nightly: 1 task of nightly:42 in the cluster jobs, as its call "
        "does, whether or not it runs already. If an attempt fails, it is retried as in an "
        "emergency, and people are alerted if the job is lost. "
        "+0:00:01 LAUNCHED, attempt 1/10: Environment recovered from the rule nightly on the bus "
        f"default: TOKEN. Launched: {TASK}"
    )
    assert NOT_VERIFIED in out
    assert "secret" not in out


def test_the_chain_is_followed_with_its_real_times_until_it_is_launched() -> None:
    with account_with(every_night(), failures=2) as account:
        status, out, _ = run_command(main, "every-night", "--yes")
        assert started(account) == 1
    assert status == 0
    lines = [line.split(": ")[0] for line in out.splitlines() if line.startswith("+")]
    assert [line.split("   ")[1] for line in lines] == [
        "FAILED_AGAIN, attempt 1/10",
        "SCHEDULED, attempt 2/10",
        "FAILED_AGAIN, attempt 2/10",
        "SCHEDULED, attempt 3/10",
        "LAUNCHED, attempt 3/10",
    ]
    times = [line[:8] for line in lines]
    assert times[:2] == ["+0:00:01", "+0:01:31"]
    assert "+0:03:01" <= times[2] <= "+0:04:02"  # a minute or two, and half a minute
    assert "Verified as well: an attempt failed, and its own event came back through" in out
    assert "Not verified" not in out


def said(*lines: Mapping[str, Any]) -> Answer:
    """What the log shows, line by line, each look one more."""
    shown: list[dict[str, Any]] = []
    left = list(lines)

    def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        if left and "filterPattern" in asked:
            message, stamp = json.dumps(left.pop(0)), int(NOW.timestamp() * 1000)
            shown.append({"eventId": str(len(shown)), "timestamp": stamp, "message": message})
        return {"events": shown}

    return answer


def outcome(name: str, attempt: str = "1/10", **members: Any) -> dict[str, Any]:
    return {"outcome": name, "attempt": attempt, **members}


@pytest.mark.parametrize(
    ("lines", "is_verified"),
    [
        ([outcome("FAILED_AGAIN", event="x"), outcome("LAUNCHED", event="y")], True),
        ([outcome("FAILED_AGAIN"), outcome("LAUNCHED")], False),
        ([outcome("SCHEDULED", event="x"), outcome("LAUNCHED", event="y")], False),
        ([outcome("LAUNCHED", event="y")], False),
    ],
)
def test_only_the_event_of_an_attempt_that_failed_verifies_the_way_back(
    lines: list[dict[str, Any]], is_verified: bool
) -> None:
    with account_with(nightly()) as account:
        account.answers["FilterLogEvents"] = said(*lines)
        status, out, _ = drill("nightly", "--yes")
    assert status == 0
    assert ("Verified as well" in out) is is_verified
    assert (NOT_VERIFIED in out) is not is_verified


def test_a_duplicate_is_not_taken_for_an_event_that_came_back() -> None:
    """Lambda may run the invocation twice: the second meets the token of the first."""
    with account_with(nightly(), failures=9) as account:
        invoke = account.answers["Invoke"]
        account.answers["Invoke"] = lambda asked: [invoke(asked), invoke(asked)][0]
        with mock.patch.object(World, "deliver"):  # no event of an attempt comes
            status, out, _ = drill("nightly", "--yes", "--timeout", "2m")
    assert status == 1
    assert out.count("FAILED_AGAIN, attempt 1/10") == 2
    assert "an attempt has failed, and its own event has not come back yet." in out
    assert NOT_VERIFIED in out


@pytest.mark.parametrize("name", ["request.json", "nightly"])
def test_a_request_in_a_file_is_started_as_well(name: str, tmp_path: Path) -> None:
    request = {"taskDefinition": "nightly:42", "count": 2, "group": "x"}
    (tmp_path / name).write_text(json.dumps(request))
    with account_with(nightly()) as account:
        status, out, _ = drill(str(tmp_path / name), "--yes", "--stop")
        assert (status, started(account)) == (0, 2)
        (call,) = account.world.calls
        assert request.items() <= call.items()
        stopped = boto3.client("ecs").list_tasks(desiredStatus="STOPPED")
        assert len(stopped["taskArns"]) == 2
    assert f"{name}: 2 tasks of nightly:42 in the cluster default, as its call does" in out
    assert out.count("Stopped: ") == 2


def test_the_tasks_of_all_attempts_are_stopped() -> None:
    rule = nightly(EcsParameters={"TaskCount": 3})
    with account_with(rule, at_most=2) as account:
        status, out, error = drill("nightly", "--yes", "--stop")
        assert (status, error, started(account)) == (0, "", 3)
        running = boto3.client("ecs").list_tasks(cluster="jobs", desiredStatus="RUNNING")
        assert running["taskArns"] == []
    assert out.count("Stopped: ") == 3
    assert "FAILED_AGAIN, attempt 1/10" in out


def test_a_launch_by_an_earlier_invocation_is_a_launch() -> None:
    with account_with(nightly()) as account:
        account.answers["FilterLogEvents"] = said(outcome("ALREADY_LAUNCHED", tasks=[]))
        assert drill("nightly", "--yes")[0] == 0
        account.answers["FilterLogEvents"] = said(outcome("ALREADY_LAUNCHED", tasks=[]))
        status, out, error = drill("nightly", "--yes", "--stop")
    assert status == 1
    assert "Launched: by an earlier invocation." in out
    assert error == "drill: the log does not name the task: stop it by hand\n"


def test_an_answer_that_was_lost_is_found_and_its_task_stopped() -> None:
    with account_with(nightly(), lost_answers=1) as account:
        status, out, error = drill("nightly", "--yes", "--stop")
        assert started(account) == 1
    assert (status, error, out.count("Stopped: ")) == (0, "", 1)


def test_a_token_that_a_definition_fixes_is_not_used() -> None:
    """All calls of such a schedule are one to ECS: the drill would meet those of the real job."""
    token = "0b1f1a40-5a5c-4d0e-9c3c-111111111111"  # noqa: S105 - no password
    schedule = every_night(
        Target={
            "Arn": "arn:aws:scheduler:::aws-sdk:ecs:runTask",
            "Input": json.dumps(
                {"TaskDefinition": "nightly:42", "Cluster": "jobs", "ClientToken": token}
            ),
        }
    )
    del schedule["Target"]["EcsParameters"]
    with account_with(schedule) as account:
        results = [drill("every-night", "--yes") for _ in range(2)]
        assert started(account) == 2
        assert all(token not in call["clientToken"] for call in account.world.calls)
    assert [status for status, _, _ in results] == [0, 0]
    assert all(NOT_VERIFIED in out for _, out, _ in results)


def test_a_task_that_cannot_be_stopped_is_named() -> None:
    with account_with(nightly()) as account:
        account.refused["StopTask"] = "AccessDeniedException"
        status, out, error = drill("nightly", "--yes", "--stop")
    assert status == 1
    assert "LAUNCHED" in out
    assert error.startswith(f"drill: not stopped: {TASK}")
    assert error.endswith(" (you are not allowed to call ecs:StopTask: said AWS)\n")


# Not launched.


def test_a_time_out_says_that_the_retries_go_on() -> None:
    with account_with(nightly(), failures=99) as account:
        status, out, _ = drill("nightly", "--yes", "--stop", "--timeout", "10m")
        assert account.world.now == NOW + timedelta(minutes=10)
        assert account.world.is_busy
    assert status == 1
    assert f"Not launched within 0:10:00: the next attempt is pending. {SEARCH}" in out
    assert "What starts from now on is not stopped." in out


def test_a_dead_letter_ends_the_drill() -> None:
    with account_with(nightly(), parameters={"MaxAttempts": "1"}, failures=9) as account:
        status, out, _ = drill("nightly", "--yes")
        assert account.world.now < NOW + timedelta(minutes=3)
    assert status == 1
    assert "EXHAUSTED, attempt 1/1: The budget of 1 attempt is used up." in out
    assert "Not launched: the chain has ended, and people are alerted." in out


def test_errors_of_the_function_are_shown_and_three_of_them_are_the_end() -> None:
    with account_with(nightly()) as account:
        account.world.refused = {"RunTask": "AccessDeniedException"}
        status, out, _ = drill("nightly", "--yes")
        assert account.world.now <= NOW + timedelta(minutes=4)
    assert status == 1
    assert out.count("The function failed: ClientError: An error occurred (AccessDenied") == 3
    assert f"The function has failed 3 times, and people are alerted. {SEARCH}" in out


def test_an_error_that_passes_is_not_the_end() -> None:
    with account_with(nightly()) as account:
        account.world.crashes = ["after RunTask"]
        status, out, _ = drill("nightly", "--yes", "--stop")
        assert started(account) == 1
    assert status == 0
    assert "The function failed: Crash: after RunTask +0:01:01 LAUNCHED, attempt 1/10" in out
    assert out.count("Stopped: ") == 1


def report(status: str) -> dict[str, Any]:
    """Lambda's own line about an invocation."""
    return {"type": "platform.report", "record": {"requestId": INVOCATION, "status": status}}


def test_what_lambda_itself_says_of_an_invocation_counts() -> None:
    """A time-out leaves no other line. An error that was said is not said twice."""
    failed = {"errorType": "X", "errorMessage": "y", "requestId": INVOCATION}
    lines = [report("timeout"), failed, report("error"), report("timeout")]
    with account_with(nightly()) as account:
        account.answers["FilterLogEvents"] = said(*lines)
        status, out, _ = drill("nightly", "--yes")
        assert account.world.now < NOW + timedelta(minutes=1)
    assert status == 1
    assert re.findall("The function failed: ([^+T]*) ", out) == ["timeout", "X: y", "timeout"]
    assert "The function has failed 3 times" in out


def entry(seconds: int = 0, **line: Any) -> Entry:
    return Entry(NOW + timedelta(seconds=seconds), line)


def test_a_task_that_two_lines_name_is_one_task() -> None:
    followed = Followed("x", tries=3)
    for name in ("LAUNCHED", "ALREADY_LAUNCHED"):
        followed.take(entry(**outcome(name, tasks=["t"])), NOW)
    assert followed.tasks == ("t",)


def test_errors_after_an_outcome_are_not_those_of_the_first_invocation() -> None:
    followed = Followed("x", tries=2)
    followed.take(entry(**outcome("SCHEDULED")), NOW)
    for _ in range(2):
        followed.take(entry(errorType="X"), NOW)
    assert not followed.is_over


def test_a_clock_that_is_ahead_shows_no_time_before_the_beginning() -> None:
    followed = Followed("x", tries=3)
    assert followed.take(entry(-2, **outcome("SCHEDULED")), NOW) == (
        "+0:00:00   SCHEDULED, attempt 1/10"
    )


def test_lines_of_another_kind_are_no_outcomes() -> None:
    lines = [report("success"), {"message": "x"}, outcome("LAUNCHED", "", tasks=None)]
    with account_with(nightly()) as account:
        account.answers["FilterLogEvents"] = said(*lines)
        status, out, _ = drill("nightly", "--yes")
    assert status == 0
    assert out.count("+0:00:00") == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("LEFT_ALONE", "Not launched: the function leaves the job alone."),
        ("OPTED_OUT", "Not launched: the function leaves the job alone."),
        ("NOT_RETRYABLE", "Not launched: the chain has ended, and people are alerted."),
        ("OF_ANOTHER_VERSION", "Not launched: the chain has ended, and people are alerted."),
    ],
)
def test_every_other_outcome_is_the_end(name: str, sentence: str) -> None:
    with account_with(nightly()) as account:
        account.answers["FilterLogEvents"] = said(outcome(name))
        status, out, _ = drill("nightly", "--yes")
    assert status == 1
    assert sentence in out


def test_tasks_that_were_placed_before_the_end_are_named() -> None:
    rule = nightly(EcsParameters={"TaskCount": 3})
    with account_with(rule, parameters={"MaxAttempts": "1"}, at_most=2):
        status, out, _ = drill("nightly", "--yes")
    assert status == 1
    assert out.count(TASK) == 2
    assert "Not launched: the chain has ended, and people are alerted. These tasks were pl" in out


def test_a_log_that_cannot_be_read_stops_a_drill_before_it_starts_anything() -> None:
    with account_with(nightly()) as account:
        account.refused["FilterLogEvents"] = "AccessDeniedException"
        status, _, error = drill("nightly", "--yes")
        assert started(account) == 0
    assert status == 2
    assert error == (
        "drill: nothing was started: you are not allowed to call logs:FilterLogEvents: said AWS\n"
    )


@pytest.mark.parametrize(
    ("error", "is_followed"),
    [
        ("ThrottlingException", True),
        (EndpointConnectionError(endpoint_url="https://logs"), True),
        ("ExpiredTokenException", False),
    ],
)
def test_a_log_that_cannot_be_read_for_a_while_does_not_end_a_drill(
    error: str | Exception, is_followed: bool
) -> None:
    with account_with(nightly()) as account:
        read, looks = account.answers["FilterLogEvents"], iter("123456789")

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            if next(looks) != "2":
                return read(asked)
            if isinstance(error, Exception):
                raise error
            raise ClientError({"Error": {"Code": error}}, "FilterLogEvents")

        account.answers["FilterLogEvents"] = answer
        status, out, problem = drill("nightly", "--yes", "--stop")
    assert (status, problem) == (0 if is_followed else 1, "")
    assert ("Launched: " in out) is is_followed
    assert ("The log cannot be read: your credentials have expired" in out) is not is_followed
    assert (SEARCH in out) is not is_followed


def test_a_log_that_was_never_readable_is_not_taken_for_no_outcome() -> None:
    with account_with(nightly()) as account:
        looks = iter(range(99))

        def answer(_: object) -> Mapping[str, Any]:
            if not next(looks):
                return {"events": []}
            throttled: Any = {"Error": {"Code": "ThrottlingException", "Message": "slow down"}}
            raise ClientError(throttled, "FilterLogEvents")

        account.answers["FilterLogEvents"] = answer
        status, out, _ = drill("nightly", "--yes", "--timeout", "1m")
        assert account.world.now == NOW + timedelta(minutes=1)
    assert status == 1
    assert "The log cannot be read: FilterLogEvents: ThrottlingException: slow down. The job" in out


def test_an_interrupt_says_how_to_find_what_may_run() -> None:
    with account_with(nightly(), failures=9) as account:

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            if "filterPattern" in asked:
                raise KeyboardInterrupt
            return {"events": []}

        account.answers["FilterLogEvents"] = answer
        status, out, _ = drill("nightly", "--yes")
    assert status == 1
    assert f"Interrupted. {SEARCH}" in out


def test_a_second_interrupt_ends_it_and_says_what_is_known() -> None:
    with account_with(nightly()) as account:
        shown = iter(range(99))

        def show(_: str) -> None:
            if next(shown) >= 2:  # after the warning, and the line of the launch
                raise KeyboardInterrupt

        with mock.patch.object(chain, "show", show), mock.patch.object(fire_drill, "show", show):
            status, _, error = run_command(main, "nightly", "--yes")
        assert started(account) == 1
    assert status == 1
    assert error.startswith(f"drill: interrupted; placed: {TASK}")
    assert SEARCH in error


def test_a_task_is_stopped_before_anything_more_is_said() -> None:
    with account_with(nightly()) as account:
        told = []

        def show(text: str) -> None:
            told.append(text)
            if "Launched" in text:
                raise KeyboardInterrupt

        with mock.patch.object(chain, "show", show):
            status, _, _ = run_command(main, "nightly", "--yes", "--stop")
        assert "ecs:StopTask" in account.sent
    assert status == 1
    assert [text.partition(":")[0].strip() for text in told][1:] == ["Stopped", "Launched"]


def test_an_interrupt_while_it_stops_names_what_still_runs() -> None:
    with account_with(nightly()) as account:
        account.refused["StopTask"] = KeyboardInterrupt()
        status, _, error = drill("nightly", "--yes", "--stop")
    assert status == 1
    assert error.startswith(f"drill: interrupted; not stopped: {TASK}")


def test_nobody_has_to_read_what_it_prints_for_a_task_to_be_stopped() -> None:
    with account_with(nightly()) as account, mock.patch("builtins.print", side_effect=OSError):
        with mock.patch.object(terminal, "print_nowhere") as nowhere:
            status, _, _ = drill("nightly", "--yes", "--stop")
        stopped = boto3.client("ecs").list_tasks(cluster="jobs", desiredStatus="STOPPED")
        assert len(stopped["taskArns"]) == started(account) == 1
    assert status == 0
    assert nowhere.called


def test_no_time_to_wait_is_no_verdict() -> None:
    with account_with(nightly()) as account:
        status, out, _ = drill("nightly", "--yes", "--timeout", "0s")
        account.world.run()
        assert started(account) == 1
    assert status == 1
    assert f"Not known: no outcome came within 0:00:00. {SEARCH}" in out


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url="https://lambda"),
        ConnectionClosedError(endpoint_url="https://lambda"),
        HTTPClientError(error="x"),
        SSLError(endpoint_url="https://lambda", error=OSError("EOF")),
        OSError("x"),
        ResponseParserError("no XML"),
        ClientError(
            {
                "Error": {"Code": "ServiceException", "Message": "x"},
                "ResponseMetadata": {"HTTPStatusCode": 500},  # type: ignore[typeddict-item]
            },
            "Invoke",
        ),
    ],
)
def test_no_answer_to_the_invocation_does_not_mean_that_nothing_runs(error: Exception) -> None:
    with account_with(nightly()) as account:
        invoke = account.answers["Invoke"]

        def lost(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            invoke(asked)
            raise error

        account.answers["Invoke"] = lost
        status, out, said = drill("nightly", "--yes")
        assert started(account) == 1
    assert status == 0
    assert "LAUNCHED, attempt 1/10" in out
    assert said.startswith("drill: no answer to Invoke (")
    assert said.endswith("): the function may run all the same\n")
    assert "log in" not in said or isinstance(error, OSError)


def test_an_answer_without_an_identifier_is_followed_by_its_origin() -> None:
    with account_with(nightly()) as account:
        invoke = account.answers["Invoke"]
        account.answers["Invoke"] = lambda asked: dict(invoke(asked)) | {"ResponseMetadata": {}}
        assert drill("nightly", "--yes")[0] == 0


def test_what_must_not_be_done_twice_is_tried_once() -> None:
    made = {}

    def client_of(session: Any, service: str, *_: Any, config: Any = None) -> Any:
        made[service] = config
        return real(session, service, config=config)

    real = session.client_of
    with account_with(nightly()), mock.patch.object(chain, "client_of", client_of):
        assert drill("nightly", "--yes")[0] == 0
    assert made["lambda"].retries == {"mode": "standard", "total_max_attempts": 1}
    with scarce(), mock.patch.object(probe, "client_of", client_of):
        assert probed("--yes")[0] == 0
    assert made["ecs"].retries == {"mode": "standard", "total_max_attempts": 1}


def test_the_pattern_of_the_log_is_the_one_that_cloudwatch_takes() -> None:
    with account_with(nightly()) as account:
        read, asked_for = account.answers["FilterLogEvents"], []

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            asked_for.append(asked)
            return read(asked)

        account.answers["FilterLogEvents"] = answer
        assert drill("nightly", "--yes")[0] == 0
        origin = account.world.outcomes[0]["origin"]
    first, *others = asked_for
    assert "filterPattern" not in first
    assert {asked["filterPattern"] for asked in others} == {
        f'{{ ($.origin = "{origin}") || ($.requestId = "{INVOCATION}") || '
        f'($.record.requestId = "{INVOCATION}") }}'
    }
    since = int((NOW - timedelta(minutes=5)).timestamp() * 1000)
    assert {asked["startTime"] for asked in others} == {since}


# Refused: nothing is started.

OVER = every_night(
    ScheduleExpression="at(2026-11-20T00:00:00)", CreationDate="2026-11-01T00:00:00Z"
)
REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "not replayable": (
        nightly(InputPath="$.detail"),
        "drill: rule nightly: Its overrides are filled in when it fires: a failed call is retried ",
    ),
    "hidden and dynamic": (
        nightly(
            InputTransformer={
                "InputPathsMap": {"b": "$.x"},
                "InputTemplate": environment("<b>"),
            }
        ),
        "drill: rule nightly: A failed call would end as NOT_REPLAYABLE: The request cannot be ",
    ),
    "opted out": (
        nightly(EcsParameters={"Tags": [{"Key": "retry-run-task:max-attempts", "Value": "0"}]}),
        "drill: rule nightly is not retried (opted out by a tag of the job): nothing was started",
    ),
    "not predictable": (
        nightly(Input="no JSON"),
        "drill: rule nightly: its call cannot be predicted: Input is not JSON",
    ),
    "wrong tags": (
        every_night(EcsParameters={"Tags": [{"Key": "team", "Value": "a"}]}) | {"Name": "nightly"},
        "drill: schedule nightly: A tag is named `Key`: Scheduler's tags are maps.",
    ),
    "over": (
        OVER | {"Name": "nightly"},
        "drill: schedule nightly is not retried (no more calls are due): nothing was started",
    ),
    "no task definition": (
        nightly(EcsParameters={"TaskDefinitionArn": "gone:1"}),
        "drill: rule nightly: The task definition gone:1 is not there: register it, or",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_job_that_is_not_retried_is_refused(name: str) -> None:
    definition, problem = REFUSALS[name]
    with account_with(definition) as account:
        status, out, error = drill("nightly", "--yes")
        assert started(account) == 0
        assert "lambda:InvokeFunction" not in account.sent
    assert (status, out) == (2, "")
    assert error.startswith(problem)


def test_a_job_outside_of_what_the_stack_covers_is_refused() -> None:
    cluster = "arn:aws:ecs:eu-west-1:123456789012:cluster/other"
    with account_with(nightly(), parameters={"ClusterArns": cluster}) as account:
        status, _, error = drill("nightly", "--yes")
        assert "lambda:InvokeFunction" not in account.sent
    assert status == 2
    assert "is not retried (outside the stack's ClusterArns or TaskDefinitionArns)" in error


def test_an_event_that_the_deployed_rule_does_not_match_is_refused() -> None:
    with account_with(nightly()) as account:
        boto3.client("events").put_rule(
            Name=account.output("RuleName"), EventPattern='{"source": ["x"]}'
        )
        status, _, error = drill("nightly", "--yes")
        assert "lambda:InvokeFunction" not in account.sent
    assert status == 2
    assert "The stack's rule does not match a failed call of it: deploy the stack again. N" in error


FILES = {
    "[]": "the file holds no RunTask request",
    "{}": "taskDefinition is missing",
    "no JSON": "not JSON",
    '{"taskDefinition": "nightly:42", "count": "2"}': "count is not of type integer",
    '{"taskDefinition": "nightly:42", "count": 11}': "It asks for 11 tasks, and ECS takes",
    '{"taskDefinition": "nightly:42", "TaskCount": 2}': "TaskCount is unknown to botocore's model",
    '{"taskDefinition": "nightly:42", "overrides": {"containerOverrides": [{"name": "main", '
    '"environment": [{"name": "A", "value": "secret"}]}]}}': "no EventBridge rule or schedule made",
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_that_holds_no_request_to_retry_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(text)
    with account_with() as account:
        status, out, error = drill(str(tmp_path / "request.json"), "--yes")
        assert "lambda:InvokeFunction" not in account.sent
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert FILES[text] in error
    assert "request.json" in error
    assert "secret" not in error


def test_a_name_that_is_a_file_as_well_has_to_be_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nightly").write_text('{"taskDefinition": "nightly:42", "group": "file"}')
    with account_with(nightly()) as account:
        status, _, error = drill("nightly", "--yes")
        assert (status, started(account)) == (2, 0)
        assert drill("./nightly", "--yes")[0] == 0
        assert account.world.calls[-1]["group"] == "file"
    assert error == (
        "drill: nightly is a file, and rule nightly as well: give ./nightly for the file, or the "
        "ARN\n"
    )


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (output_is("Version", "0.0.9"), "the version: Version 0.0.9 is deployed, and this check"),
        (stack_is(StackStatus="UPDATE_ROLLBACK_FAILED"), "the version: The last deployment fai"),
        (function_is(State="Pending"), "the function: It is being deployed: look again later."),
    ],
)
def test_a_stack_that_is_not_in_order_is_refused(damage: Any, problem: str) -> None:
    with account_with(nightly()) as account:
        damage(account)
        status, _, error = drill("nightly", "--yes")
        assert started(account) == 0
    assert status == 2
    assert error.startswith(f"drill: nothing was started: {problem}")


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError("x"), ResponseParserError("x"), KeyError("x")]
)
@pytest.mark.parametrize("operation", ["DescribeStacks", "DescribeRule", "ListRules"])
def test_an_odd_answer_before_it_starts_is_one_line(operation: str, error: Exception) -> None:
    with account_with(nightly()) as account:
        account.refused[operation] = error
        status, out, said = drill("nightly", "--yes")
        assert started(account) == 0
    assert (status, out, said.count("\n")) == (2, "", 1)
    assert said.startswith("drill: nothing was started: ")


def test_the_event_has_one_identifier_and_one_time() -> None:
    with account_with(nightly()) as account:
        invoke, sent = account.answers["Invoke"], []

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            sent.append(json.loads(asked["Payload"]))
            return invoke(asked)

        account.answers["Invoke"] = answer
        for _ in range(2):
            account.world.wait(timedelta(minutes=1))
            drill("nightly", "--yes")
    for event in sent:
        assert event["id"] == f"envelope-of-{event['detail']['eventID']}"
        assert event["time"] == event["detail"]["eventTime"]
    assert sent[0]["id"] != sent[1]["id"]
    assert sent[0]["time"] != sent[1]["time"]


def test_a_name_has_to_mean_one_job() -> None:
    schedule = every_night(GroupName="g") | {"Name": "nightly"}
    with account_with(nightly(), nightly() | {"EventBusName": "b"}, schedule) as account:
        status, _, error = drill("nightly", "--yes")
        assert "lambda:InvokeFunction" not in account.sent
        assert drill("b/nightly", "--yes")[0] == 0
        assert account.world.calls[-1]["startedBy"] == "events-rule/nightly"
        assert drill("g/nightly", "--yes")[0] == 0
        assert account.world.calls[-1]["startedBy"] == "chronos-schedule/nightly"
        missing = drill("night", "--yes")
    assert (status, error.count("\n")) == (2, 1)
    assert "nightly means several (rule nightly, rule b/nightly, schedule g/nightly): give" in error
    assert missing[::2] == (
        2,
        "drill: night is neither a rule or schedule of eu-west-1 that starts an ECS task, nor a "
        "file\n",
    )


@pytest.mark.parametrize(
    ("answer", "is_terminal", "is_started"),
    [
        ("y\n", True, True),
        ("n\n", True, False),
        ("\n", True, False),
        ("", True, False),
        ("y\n", False, False),
    ],
)
def test_a_person_is_asked_first(
    answer: str, is_terminal: bool, is_started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with account_with(nightly()) as account:
        monkeypatch.setattr(terminal, "has_terminal", lambda: is_terminal)
        status, out, error = run_command(main, "nightly", stdin=answer.encode())
        assert started(account) == is_started
    assert status == (0 if is_started else 2)
    assert "This really starts rule nightly: 1 task of nightly:42" in out
    assert ("nothing was started" in error) is not is_started
    assert ("Start it? [y/n] (n): " in error) is is_terminal


@pytest.mark.parametrize("missing", ["stdin", "stderr"])
def test_who_does_not_see_a_question_cannot_be_asked(missing: str) -> None:
    streams = {name: mock.Mock(isatty=lambda: True) for name in ("stdin", "stderr")}
    with mock.patch.multiple(sys, **streams):
        assert terminal.has_terminal()
        with mock.patch.object(sys, missing, mock.Mock(isatty=lambda: False)):
            assert not terminal.has_terminal()


def test_an_answer_that_cannot_be_read_is_no_yes() -> None:
    undecodable = UnicodeDecodeError("utf-8", b"x", 0, 1, "x")
    with (
        mock.patch.object(terminal, "has_terminal", lambda: True),
        mock.patch("account.terminal.Confirm.ask", side_effect=undecodable),
        pytest.raises(BadInput, match="nothing was started"),
    ):
        terminal.confirm("Start it?", is_sure=False)


def test_without_standard_input_nobody_can_be_asked() -> None:
    with mock.patch.object(sys, "stdin", None):
        assert not terminal.has_terminal()


def test_an_event_is_made_anew_when_the_question_is_answered() -> None:
    with account_with(nightly(), parameters={"MaxAgeMinutes": "5"}) as account:

        def answered(*_: object, **__: object) -> None:
            account.world.wait(timedelta(minutes=40))

        with mock.patch.object(fire_drill, "confirm", answered):
            status, out, _ = drill("nightly")
    assert status == 0
    assert "+0:00:01 LAUNCHED, attempt 1/10" in out


@pytest.mark.parametrize(
    "error",
    [
        "ResourceNotFoundException",
        "AccessDeniedException",
        EndpointConnectionError(endpoint_url="https://lambda"),
        CredentialRetrievalError(provider="sso", error_msg="expired"),
        ConnectTimeoutError(endpoint_url="https://lambda"),
    ],
)
def test_a_function_that_takes_no_event_starts_nothing(error: str | Exception) -> None:
    with account_with(nightly()) as account:
        account.refused["Invoke"] = error
        status, _, error = drill("nightly", "--yes")
        assert started(account) == 0
    assert status == 2
    assert error.startswith("drill: nothing was started: ")


@pytest.mark.parametrize(
    "operation", ["DescribeStacks", "GetFunctionConfiguration", "ListEventBuses", "ListSchedules"]
)
def test_what_has_to_be_looked_at_first_is_named(operation: str) -> None:
    with account_with(nightly()) as account:
        account.refused[operation] = "AccessDeniedException"
        status, out, error = drill("nightly", "--yes")
        assert started(account) == 0
    assert (status, out) == (2, "")
    assert error.startswith("drill: nothing was started: ")
    assert re.search(f"you are not allowed to call [a-z]+:{operation}", error)


@pytest.mark.parametrize("operation", ["TestEventPattern", "ListRuleNamesByTarget"])
def test_what_has_to_be_known_of_the_job_is_named(operation: str) -> None:
    with account_with(nightly(Input=environment("x"))) as account:
        account.refused[operation] = "AccessDeniedException"
        status, out, error = drill("nightly", "--yes")
        assert started(account) == 0
    assert (status, out) == (2, "")
    assert f"you are not allowed to call events:{operation}. Nothing was started" in error


def test_a_rule_that_is_disabled_and_a_function_that_is_stopped_are_refused() -> None:
    with account_with(nightly()) as account:
        name = account.output("FunctionName")
        client = boto3.client("lambda")
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        stopped = drill("nightly", "--yes")
        client.delete_function_concurrency(FunctionName=name)
        boto3.client("events").disable_rule(Name=account.output("RuleName"))
        disabled = drill("nightly", "--yes")
        assert started(account) == 0
    assert (stopped[0], disabled[0]) == (2, 2)
    assert stopped[2].startswith("drill: nothing was started: the function: It is stopped: ")
    assert disabled[2].startswith("drill: nothing was started: the rule: It is disabled: ")


def test_a_disabled_schedule_is_started_and_said_to_be_disabled() -> None:
    with account_with(every_night(State="DISABLED")):
        status, out, _ = drill("every-night", "--yes")
    assert status == 0
    assert "whether or not it runs already. It is disabled otherwise. If" in out


def test_an_arn_of_another_account_or_region_starts_nothing_here() -> None:
    with account_with(nightly()) as account:
        for place in ("us-east-1:123456789012", "eu-west-1:999999999999"):
            status, _, error = drill(f"arn:aws:events:{place}:rule/nightly", "--yes")
            assert (status, started(account)) == (2, 0)
            assert "is neither a rule or schedule of eu-west-1 that starts an ECS task" in error
        assert drill("arn:aws:events:eu-west-1:123456789012:rule/nightly", "--yes")[0] == 0


@pytest.mark.parametrize("operation", ["SimulatePrincipalPolicy", "DescribeTaskDefinition"])
def test_what_nobody_could_look_at_is_said_and_does_not_stop_a_drill(operation: str) -> None:
    with account_with(nightly()) as account:
        account.refused[operation] = "AccessDeniedException"
        status, _, error = drill("nightly", "--yes")
        assert started(account) == 1
    assert status == 0
    assert f":{operation}." in error


def test_a_stack_has_to_be_there() -> None:
    with account_with(nightly()) as account:
        missing = drill("nightly", "--yes", "--stack", "x")
        stack_is(StackStatus="ROLLBACK_COMPLETE", Outputs=[])(account)
        failed = drill("nightly", "--yes")
    for name, (status, _, error) in {"x": missing, "retry-run-task": failed}.items():
        assert status == 2
        assert error == (
            f"drill: there is no stack {name} of this template in eu-west-1: deploy it, or give "
            "--stack\n"
        )


def test_a_stack_that_is_being_changed_is_refused() -> None:
    with account_with(nightly()) as account:
        stack_is(StackStatus="UPDATE_IN_PROGRESS")(account)
        status, _, error = drill("nightly", "--yes")
    assert status == 2
    assert "the stack retry-run-task is being changed (UPDATE_IN_PROGRESS): try it again" in error


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "give the job to start, or --probe CLUSTER TASK_DEFINITION"),
        (("nightly", "--probe", "a", "b"), "give the job to start, or --probe CLUSTER TASK_"),
        (("--probe", "a", "b", "--stop"), "--stop does not go with --probe, which starts nothing"),
        (("nightly", "--timeout", "soon"), "argument --timeout: 'soon' is not a time like 90s, "),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: tuple[str, ...], problem: str
) -> None:
    status, out, error = run_command(main, *arguments)
    assert (status, out) == (2, "")
    assert error.startswith(f"drill: {problem}")


# Policies.


def policies() -> list[dict[str, Any]]:
    """Those in the help, of a drill and of a probe."""
    text, found, decoder = run_command(main, "--help")[1], [], json.JSONDecoder()
    while (start := text.find('{\n  "Version"')) >= 0:
        policy, end = decoder.raw_decode(text[start:])
        found.append(policy)
        text = text[start + end :]
    return found


def test_the_help_has_the_policies() -> None:
    assert policies() == [json.loads(policy_of(DRILL)), json.loads(policy_of(PROBE))]


def test_the_policy_of_a_drill_is_enough_and_all_of_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # moto signs the query of a GET in another way than botocore does.
    monkeypatch.setattr(IAMRequestBase, "check_signature", lambda _: None)
    jobs = (nightly(Input=environment("x")), every_night(Target={"Input": environment("y")}))
    with account_with(*jobs) as account:
        monkeypatch.setattr(World, "pass_time", World.wait)
        with enforcing(policies()[0]["Statement"]):
            results = [
                drill(name, "--yes", "--timeout", "0s") for name in ("nightly", "every-night")
            ]
        sent = {*account.sent, "ecs:StopTask"}
    assert all(status == 1 and error == "" for status, _, error in results)
    assert sent - {"sts:GetCallerIdentity"} == set(DRILL)


# The probe.


@contextmanager
def scarce(*, binds: bool = True, family: str = "big", **given: Any) -> Iterator[UserAccount]:
    """An account with a cluster on EC2, whose instance cannot hold the tasks of `big`."""
    big = {"big"}
    with user_account(
        reason="RESOURCE:CPU", binds_failures=binds, families_without_capacity=big
    ) as account:
        account.define_task(f"{family}:3", requiresCompatibilities=["EC2"], **given)
        boto3.client("ecs").create_cluster(clusterName="payroll")
        account.world.ecs.add_instance("payroll")
        yield account


def probed(*arguments: str) -> tuple[int, dict[str, str], str]:
    """Exit status, the report's facts, and standard error."""
    with mock.patch.dict("os.environ", COLUMNS="400"):
        status, out, error = run_command(main, "--probe", "payroll", "big:3", *arguments)
    lines = [re.split(r" {2,}", line, maxsplit=1) for line in out.splitlines()]
    return status, {line[0]: line[1] for line in lines if len(line) == 2}, error


FAILURE = 'HTTP 200, 0 tasks, failures [{"reason": "RESOURCE:CPU"}]'
FACTS = {
    "first call": FAILURE,
    "clientToken in its record": "shown",
    "members of requestParameters": (
        "clientToken, cluster, launchType, overrides, placementConstraints, startedBy, tags, "
        "taskDefinition"
    ),
    "an empty list of the request": "[]",
    "an empty environment": "hidden",
    "responseElements": '{"tasks": [], "failures": [{"reason": "RESOURCE:CPU"}]}',
    "its requestParameters": "shown",
    "seconds to the function": "90",
    "seconds to the Event history, about": "300",
}
BINDS = {
    "second call, with a group": "ConflictException",
    "so the token of a failed call": "is used up: other parameters are a conflict",
    "resourceIds of the conflict": "[]",
    "errorCode of the second record": "ConflictException",
    "its responseElements": "null",
}
BINDS_NOT = {
    "second call, with a group": FAILURE,
    "so the token of a failed call": (
        "is not used up, or other parameters are not compared: they fail as before"
    ),
    "errorCode of the second record": "absent",
    "its responseElements": '{"tasks": [], "failures": [{"reason": "RESOURCE:CPU"}]}',
}


@pytest.mark.parametrize("binds", [True, False])
def test_a_probe_shows_in_which_world_it_is(binds: bool) -> None:
    with scarce(binds=binds) as account:
        status, facts, error = probed("--yes")
        assert account.world.tasks == []
        assert not account.world.is_busy
        outcomes = [outcome["outcome"] for outcome in account.world.outcomes]
        assert outcomes == ["OPTED_OUT"] * (1 if binds else 2)
    assert (status, error) == (0, "")
    assert facts == FACTS | (BINDS if binds else BINDS_NOT)


@pytest.mark.parametrize(
    ("given", "overrides"),
    [
        (
            {},
            {"containerOverrides": [{"name": "main", "environment": [], "cpu": 196608}]},
        ),
        (
            {"cpu": "256", "memory": "512"},
            {"cpu": "196608", "containerOverrides": [{"name": "main", "environment": []}]},
        ),
    ],
)
def test_its_request_is_one_that_no_instance_can_hold(
    given: dict[str, Any], overrides: dict[str, Any]
) -> None:
    with scarce(**given) as account:
        assert probed("--yes")[0] == 0
        first, second = account.world.calls
    assert first["overrides"] == overrides
    assert first["launchType"] == "EC2"
    assert first["tags"] == [{"key": "retry-run-task:max-attempts", "value": "0"}]
    assert second == first | {"group": "retry-run-task-probe"}


def test_names_that_are_words_of_aws_are_not_shown_either() -> None:
    failures = [{"arn": "ACME_BANK", "reason": "RESOURCE:CPU", "detail": "PAYROLL"}]
    with scarce() as account, mock.patch.object(account.world.ecs, "_failures", lambda _: failures):
        _, facts, _ = probed("--yes")
    shown = '[{"arn": "…", "reason": "RESOURCE:CPU", "detail": "…"}]'
    assert facts["first call"] == f"HTTP 200, 0 tasks, failures {shown}"


def test_the_report_can_be_sent_to_anybody() -> None:
    arn = "arn:aws:ecs:eu-west-1:123456789012:container-instance/payroll/0123"
    failures = [{"arn": arn, "reason": "RESOURCE:CPU", "detail": "payroll"}]
    for columns in ("60", "100", "400"):
        with (
            scarce() as account,
            mock.patch.dict("os.environ", COLUMNS=columns),
            mock.patch.object(account.world.ecs, "_failures", lambda _: failures),
        ):
            status, out, _ = run_command(main, "--probe", "payroll", "big:3", "--yes")
        assert status == 0
        flat = "".join(out.split())
        assert "123456789012" not in flat
        assert "payroll" not in flat
        assert "big" not in flat
        assert '{"arn":"…","reason":"RESOURCE:CPU","detail":"…"}' in flat


def test_a_task_that_starts_after_all_is_stopped_and_nothing_is_concluded() -> None:
    with scarce() as account:
        account.world.ecs.families_without_capacity = set()
        status, facts, error = probed("--yes")
        assert len(account.world.calls) == 1
        stopped = boto3.client("ecs").list_tasks(cluster="payroll", desiredStatus="STOPPED")
        assert len(stopped["taskArns"]) == len(account.world.tasks) == 1
    assert status == 1
    assert "so the token of a failed call" not in facts
    assert error.startswith(
        "drill: the first call did not fail as it should: a task has started\n"
        "drill: a task has started, and is stopped: arn:aws:ecs:"
    )


def test_a_task_that_cannot_be_stopped_is_to_be_stopped_by_hand() -> None:
    with scarce() as account:
        account.world.ecs.families_without_capacity = set()
        account.refused["StopTask"] = "AccessDeniedException"
        status, _, error = probed("--yes")
    assert status == 1
    assert re.search(
        r"drill: a task has started: stop arn:aws:ecs:\S+ by hand \(you are not allowed", error
    )


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
def test_a_first_call_that_ecs_rejects_is_shown_with_its_reason(code: str) -> None:
    with scarce() as account:
        account.refused["RunTask"] = code
        status, facts, error = probed("--yes")
        assert account.world.now == NOW  # there may be no record of it
    assert status == 1
    assert facts["first call"] == code
    assert error.startswith("drill: the first call did not fail as it should: ")
    assert ("you are not allowed to call ecs:RunTask" in error) is (code.startswith("Access"))


LOST = [
    ReadTimeoutError(endpoint_url="https://ecs"),
    ResponseParserError("x"),
    ValueError("x"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", LOST)
@pytest.mark.parametrize("which", [1, 2])
def test_an_answer_that_is_lost_leaves_nothing_unsaid(which: int, error: BaseException) -> None:
    """The task may have started: how to find it is said, and what else is known."""
    with scarce(binds=False) as account:
        if which == 1:
            account.world.ecs.families_without_capacity = set()
        client, calls = boto3.client("ecs"), []

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            calls.append(asked)
            answered: Mapping[str, Any] = client.run_task(**asked)
            if len(calls) == which:
                raise error
            return answered

        account.answers["RunTask"] = answer
        status, facts, said = probed("--yes", "--timeout", "20m")
    assert status == 1
    started_by = calls[0]["startedBy"]
    command = f"aws ecs list-tasks --cluster payroll --started-by {started_by}"
    assert f"drill: a call was not answered. See that nothing runs: `{command}`\n" in said
    if which == 2:
        assert "not all records came in time" not in said
        assert facts["first call"] == FAILURE
        assert facts["so the token of a failed call"] == "is not known"


def test_an_interrupt_while_it_stops_or_prints_says_how_to_find_what_runs() -> None:
    with scarce() as account:
        account.world.ecs.families_without_capacity = set()
        account.refused["StopTask"] = KeyboardInterrupt()
        status, _, error = probed("--yes")
    assert status == 1
    assert "drill: interrupted. See that nothing runs: `aws ecs list-tasks --cluster pay" in error


@pytest.mark.parametrize(
    ("overrides", "environment_shown"),
    [
        (None, "absent"),
        ("text", "absent"),
        ({"containerOverrides": []}, "absent"),
        ({"containerOverrides": "HIDDEN"}, "absent"),
        ({"containerOverrides": [None]}, "absent"),
        ({"containerOverrides": [{"environment": []}]}, "[]"),
        ({"containerOverrides": [{"environment": None}]}, "null"),
    ],
)
def test_whatever_a_record_looks_like_is_reported(overrides: Any, environment_shown: str) -> None:
    with scarce() as account:
        look_up = account.answers["LookupEvents"]

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            page: dict[str, Any] = json.loads(json.dumps(look_up(asked), default=str))
            for event in page["Events"]:
                record = json.loads(event["CloudTrailEvent"])
                record["requestParameters"]["overrides"] = overrides
                del record["requestParameters"]["clientToken"]
                record["responseElements"] = {"failures": [{"reason": "AGENT"}], "omitted": True}
                event["CloudTrailEvent"] = json.dumps(record)
            return page

        account.answers["LookupEvents"] = answer
        status, facts, error = probed("--yes")
    assert (status, error) == (0, "")
    assert facts["an empty environment"] == environment_shown
    assert facts["clientToken in its record"] == "absent"
    assert facts["responseElements"] == '{"failures": [{"reason": "AGENT"}], "omitted": true}'


def test_records_that_do_not_come_in_time_are_missed() -> None:
    with scarce() as account:
        status, facts, error = probed("--yes", "--timeout", "4m")
        assert account.world.now < NOW + timedelta(minutes=10)
    assert status == 1
    assert error == "drill: not all records came in time: --timeout makes it longer\n"
    assert facts["so the token of a failed call"].startswith("is used up")
    assert facts["seconds to the function"] == "90"
    assert facts["seconds to the Event history, about"] == "-"
    assert "responseElements" not in facts


def test_an_interrupt_shows_what_was_seen_until_then() -> None:
    with scarce() as account:
        looks: Iterator[Mapping[str, Any]] = iter([{"Events": []}])

        def answer(_: object) -> Mapping[str, Any]:
            try:
                return next(looks)
            except StopIteration as end:
                raise KeyboardInterrupt from end

        account.answers["LookupEvents"] = answer
        status, facts, error = probed("--yes")
    assert (status, error) == (1, "drill: interrupted: this is what was seen until then\n")
    assert facts["so the token of a failed call"].startswith("is used up")


def test_without_a_stack_nobody_knows_when_the_event_came() -> None:
    with scarce():
        status, facts, error = probed("--yes", "--stack", "x")
    assert status == 0
    assert facts["seconds to the function"] == "-"
    assert error == "drill: there is no stack x, whose log would show when the event came\n"


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ("DescribeStacks", ResponseParserError("no XML")),
        ("FilterLogEvents", "AccessDeniedException"),
    ],
)
def test_a_stack_that_cannot_be_looked_at_does_not_lose_the_report(
    operation: str, error: Any
) -> None:
    with scarce() as account:
        account.refused[operation] = error
        status, facts, said = probed("--yes")
    assert status == 0
    assert facts["seconds to the function"] == "-"
    assert facts["so the token of a failed call"].startswith("is used up")
    assert said.count("\n") == 1


def test_a_look_that_fails_for_a_while_is_made_again() -> None:
    with scarce() as account:
        look_up, looks = account.answers["LookupEvents"], iter(range(999))

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            if next(looks) in (3, 5):
                raise ReadTimeoutError(endpoint_url="https://cloudtrail")
            return look_up(asked)

        account.answers["LookupEvents"] = answer
        status, facts, error = probed("--yes")
    assert (status, error) == (0, "")
    assert facts["seconds to the Event history, about"] == "300"


def test_an_event_that_comes_after_its_record_is_waited_for() -> None:
    with scarce() as account:
        late = timedelta(minutes=8)
        with mock.patch("rehearsal.world.CLOUDTRAIL_LATENCY", late):
            status, facts, _ = probed("--yes")
        assert account.world.now < NOW + timedelta(minutes=11)
    assert status == 0
    assert facts["seconds to the function"] == "480"


def test_the_time_of_the_event_is_the_one_that_the_function_says() -> None:
    with scarce() as account:
        read = account.answers["FilterLogEvents"]

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            events = read(asked)["events"]
            return {
                "events": [event | {"timestamp": event["timestamp"] + 9000} for event in events]
            }

        account.answers["FilterLogEvents"] = answer
        _, facts, _ = probed("--yes")
    assert facts["seconds to the function"] == "90"


def test_an_event_that_does_not_come_is_not_waited_for_for_ever() -> None:
    with scarce() as account:
        boto3.client("events").disable_rule(Name=account.output("RuleName"))
        with mock.patch.object(World, "deliver"):
            status, facts, error = probed("--yes")
        assert account.world.now < NOW + timedelta(minutes=11)
    assert (status, error) == (0, "drill: the stack's log has no outcome of the call\n")
    assert facts["seconds to the function"] == "-"


def fargate(account: UserAccount) -> None:
    account.answers["DescribeTaskDefinition"] = described(compatibilities=["FARGATE"])


def awsvpc(account: UserAccount) -> None:
    account.answers["DescribeTaskDefinition"] = described(networkMode="awsvpc")


def windows(account: UserAccount) -> None:
    system = {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}
    account.answers["DescribeTaskDefinition"] = described(runtimePlatform=system)


def inactive(account: UserAccount) -> None:
    account.answers["DescribeTaskDefinition"] = described(status="INACTIVE")


def described(**members: Any) -> Answer:
    usual = {"status": "ACTIVE", "compatibilities": ["EC2"]}
    found = {**usual, "containerDefinitions": [{"name": "main"}], **members}
    return lambda _: {"taskDefinition": found}


def providers(*pages: dict[str, Any]) -> Any:
    """Capacity providers, one a page; all are the cluster's."""

    def act(account: UserAccount) -> None:
        names = [page["name"] for page in pages]
        cluster = {"status": "ACTIVE", "capacityProviders": [*names, "FARGATE"]}
        account.answers["DescribeClusters"] = lambda _: {"clusters": [cluster]}

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            assert asked["cluster"] == "payroll"
            number = int(asked.get("nextToken", "0"))
            shown = [page for page in pages[number : number + 1] if len(page) > 1]
            more = {"nextToken": str(number + 1)} if number + 1 < len(pages) else {}
            return {"capacityProviders": shown, **more}

        account.answers["DescribeCapacityProviders"] = answer

    return act


def instances(*cpus: int, **members: Any) -> Any:
    def act(account: UserAccount) -> None:
        found = [
            {
                "registeredResources": [{"name": "CPU", "integerValue": cpu}],
                "agentConnected": True,
                **members,
            }
            for cpu in cpus
        ]
        account.answers["DescribeContainerInstances"] = lambda _: {"containerInstances": found}

    return act


def no_cluster(account: UserAccount) -> None:
    account.answers["DescribeClusters"] = lambda _: {"clusters": []}


def inactive_cluster(account: UserAccount) -> None:
    account.answers["DescribeClusters"] = lambda _: {"clusters": [{"status": "INACTIVE"}]}


def no_instance(account: UserAccount) -> None:
    account.answers["ListContainerInstances"] = lambda _: {"containerInstanceArns": []}


def not_allowed(operation: str) -> Any:
    def act(account: UserAccount) -> None:
        account.refused[operation] = "AccessDeniedException"

    return act


MANAGED = {"managedScaling": {"status": "ENABLED"}}
FIXED = {"managedScaling": {"status": "DISABLED"}}
NOT_FIT = "big:3 is not active, or not for EC2 and Linux without network mode awsvpc: take another"
NO_INSTANCE = "payroll has no active container instance of EC2: take another cluster"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (fargate, NOT_FIT),
        (awsvpc, NOT_FIT),
        (windows, NOT_FIT),
        (inactive, NOT_FIT),
        (
            providers({"name": "p", "autoScalingGroupProvider": MANAGED}),
            "payroll may scale (p): take another cluster",
        ),
        (
            providers({"name": "p", "managedInstancesProvider": {}}),
            "payroll may scale (p): take another cluster",
        ),
        (
            providers(
                {"name": "o", "autoScalingGroupProvider": FIXED},
                {"name": "p", "autoScalingGroupProvider": MANAGED},
            ),
            "payroll may scale (p): take another cluster",
        ),
        (providers({"name": "unknown"}), "payroll may scale (unknown): take another cluster"),
        (no_cluster, "there is no active cluster payroll"),
        (inactive_cluster, "there is no active cluster payroll"),
        (no_instance, NO_INSTANCE),
        (instances(4096, attributes=[{"name": "ecs.capability.external"}]), NO_INSTANCE),
        (instances(4096, agentConnected=False), NO_INSTANCE),
        (instances(200_000, 4096), "payroll has an instance that is too large: take another clu"),
        *(
            (not_allowed(operation), f"nothing was asked of ECS: you are not allowed to call {a}")
            for operation, a in (
                ("DescribeClusters", "ecs:DescribeClusters"),
                ("LookupEvents", "cloudtrail:LookupEvents"),
            )
        ),
    ],
)
def test_a_probe_that_might_start_something_is_refused(damage: Any, problem: str) -> None:
    with scarce() as account:
        damage(account)
        status, facts, error = probed("--yes")
        assert account.world.calls == []
    assert (status, facts) == (2, {})
    assert error.startswith(f"drill: {problem}")


def test_a_cluster_with_a_provider_that_does_not_scale_is_good_enough() -> None:
    with scarce() as account:
        fixed = ({"name": name, "autoScalingGroupProvider": FIXED} for name in "pq")
        providers(*fixed)(account)
        assert probed("--yes")[0] == 0


def test_a_probe_asks_first() -> None:
    with scarce() as account:
        status, _, error = probed()
        assert account.world.calls == []
    assert status == 2
    assert error == "drill: nothing was started: give --yes where no terminal can be asked\n"


def test_the_policy_of_a_probe_is_enough_and_all_of_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # moto signs the query of a GET in another way than botocore does.
    monkeypatch.setattr(IAMRequestBase, "check_signature", lambda _: None)
    with scarce() as account:
        providers({"name": "p", "autoScalingGroupProvider": FIXED})(account)
        monkeypatch.setattr(World, "pass_time", World.wait)
        with enforcing(policies()[1]["Statement"]):
            status, _, _ = probed("--yes", "--timeout", "6m")
        # StopTask is for what should not happen; the others are part of RunTask.
        sent = {*account.sent, "ecs:StopTask", "ecs:TagResource", "iam:PassRole"}
    assert status == 0
    assert sent - {"sts:GetCallerIdentity"} == set(PROBE)
