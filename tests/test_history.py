"""`history`: what was lost in an account, each run once, and what the stack would have done."""

import gzip
import io
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import EndpointConnectionError, MissingDependencyException
from botocore.httpsession import URLLib3Session
from botocore.stub import Stubber
from hypothesis import given, settings
from hypothesis import strategies as st
from ministack.services import cloudtrail
from moto.core.botocore_stubber import MockRawResponse
from moto.iam.access_control import IAMRequestBase

from account import bench, generate
from account.event_history import event_history
from account.history import main
from account.logs import Read, events_in, read_log
from account.runs import STACK, Runs
from account.session import TRIES
from account.summary import as_json, judge
from account.verdict import Verdict
from conftest import NOW, enforcing, looked_up, run_command
from rehearsal import EVENT_NAMES, EVENTS, load_definitions, load_event, verdict_of
from rehearsal.cli import main as rehearse
from rehearsal.pattern import _events, in_process
from rehearsal.policies import CAPACITY
from rehearsal.records import event_of, held_in, is_run_task, moment_of, parse, read_moment
from rehearsal.template import Stack
from rehearsal.world import World, stay_here

HISTORY = Path(sys.executable).with_name("history")
FARGATE = "launched.fargate-capacity-rule"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of these profiles have credentials: what they would send stays here."""
    monkeypatch.setattr(URLLib3Session, "send", stay_here)
    monkeypatch.setattr(time, "sleep", lambda _: None)


def history(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, dict[str, Any], str]:
    """Exit status, the object that `--json` prints, and standard error."""
    status, out, error = run_command(main, *map(str, arguments), "--json", stdin=stdin)
    return status, json.loads(out) if out else {}, error


def shown(*arguments: str | Path) -> str:
    """What it prints for people."""
    return run_command(main, *map(str, arguments))[1]


def log(*events: Mapping[str, Any]) -> str:
    """A log file of CloudTrail's with the records of these events."""
    return json.dumps({"Records": [event["detail"] for event in events]})


def call(
    number: int, *, rule: str = "nightly", moment: datetime = NOW, **options: Any
) -> dict[str, Any]:
    """The event of a rule's call with this number (see generate.rule_call)."""
    return generate.rule_call(rule, f"00000000-0000-0000-0000-{number:012}", moment, **options)


# What people hold.

FAILED = load_event(FARGATE)
FORMS = {
    "event": json.dumps(FAILED).encode(),
    "record": json.dumps(FAILED["detail"], indent=2).encode(),
    "array": json.dumps([FAILED, FAILED["detail"]]).encode(),
    "log file": log(FAILED).encode(),
    "log file, pretty": json.dumps(json.loads(log(FAILED)), indent=1).encode(),
    "log file, compressed": gzip.compress(log(FAILED).encode()),
    "log file, compressed in two members": gzip.compress(log(FAILED)[:50].encode())
    + gzip.compress(log(FAILED)[50:].encode()),
    "log file, UTF-16": log(FAILED).encode("utf-16"),
    "lookup-events": json.dumps(looked_up(FAILED["detail"])).encode(),
}
FOUND = {
    "records": 1,
    "failed": 1,
    "partly_placed": 0,
    "rejected": 0,
    "would_retry": 1,
    "first": "2026-11-23T00:00:04Z",
    "last": "2026-11-23T00:00:04Z",
    "jobs": [
        {
            "job": "nightly-report",
            "caller": "events-rule",
            "records": 1,
            "failed": 1,
            "partly_placed": 0,
            "rejected": 0,
            "reasons": {CAPACITY: 1},
            "first": "2026-11-23T00:00:04Z",
            "last": "2026-11-23T00:00:04Z",
            "verdicts": {"RETRY": 1},
        }
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_record_is_read(form: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(FORMS[form])
    assert history(tmp_path / "x.json", "--offline") == (1, FOUND, "")
    assert history("-", "--offline", stdin=FORMS[form]) == (1, FOUND, "")


def test_a_directory_is_read_with_all_below_it(tmp_path: Path) -> None:
    contents = generate.write_logs(tmp_path, 3_000_000, share=0.2)
    (tmp_path / "CloudTrail-Digest").mkdir()
    (tmp_path / "CloudTrail-Digest" / "digest.json.gz").write_bytes(
        gzip.compress(b'{"digestStartTime": "2026-11-23T00:00:00Z", "logFiles": []}')
    )
    (tmp_path / "notes.txt").write_text("no log file")
    status, found, error = history(tmp_path, "--offline")
    assert (status, error) == (1, "")
    assert contents == {key: found[key] for key in contents}
    assert min(contents.values()) > 0
    assert found["would_retry"] == contents["failed"] + contents["partly_placed"]


def test_what_names_no_run_task_is_not_parsed(tmp_path: Path) -> None:
    """The records are taken apart exactly as by the reader of whole files."""
    generate.write_logs(tmp_path, 1_000_000, share=0.2)
    for path in tmp_path.rglob("*.gz"):
        data = gzip.decompress(path.read_bytes())
        read = events_in(read_log(path))
        assert list(read) == [event_of(held) for held in held_in(parse(data)) if is_run_task(held)]


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ({}, "not an event: its keys are none"),
        ({"tasks": [], "failures": []}, "RunTask's answer, without the call"),
        ({"Rules": []}, "not an event: its keys are 'Rules'"),
        ("RunTask", "text that is no JSON: 'RunTask'"),
        ([{"Target": "RunTask"}], "not an event: its keys are 'Target'"),
    ],
)
def test_a_file_of_something_else_is_no_clean_history(
    held: Any, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text(json.dumps(held))
    status, out, error = run_command(main, str(tmp_path), "--offline")
    assert (status, out) == (2, "No RunTask call could be read.\n")
    assert error.startswith(f"history: {tmp_path / 'x.json'}: {problem}")


@pytest.mark.parametrize(
    "held",
    [
        {"Records": []},
        {"Events": []},
        {"Records": [load_event("unmatched.success")["detail"] | {"eventName": "StopTask"}]},
        {"Records": [{"eventCategory": "Insight", "insightDetails": {"eventName": "RunTask"}}]},
    ],
)
def test_a_log_without_a_call_is_a_clean_history(held: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(held))
    assert run_command(main, str(tmp_path), "--offline") == (0, "No RunTask call was found.\n", "")


# Each run once.


def test_a_record_that_is_seen_twice_counts_once(tmp_path: Path) -> None:
    addendum = call(2)
    addendum["detail"]["addendum"] = {"originalEventID": call(1)["detail"]["eventID"]}
    (tmp_path / "a.json").write_text(log(call(1), call(1)))
    (tmp_path / "b.json").write_text(log(call(1), addendum))
    status, found, _ = history(tmp_path, tmp_path / "a.json", "--offline")
    assert (status, found["records"], found["failed"]) == (1, 1, 1)


def addendum_to(event: Mapping[str, Any], number: int, **detail: Any) -> dict[str, Any]:
    """CloudTrail repeats a record later, with what it had not known."""
    original = event["detail"]["eventID"]
    own = {"eventID": f"00000000-0000-0000-0000-{number:012}"}
    added = {"addendum": {"reason": "UPDATED_DATA", "originalEventID": original}}
    return {**event, "detail": event["detail"] | own | added | detail}


@pytest.mark.parametrize("is_late", [True, False])
def test_an_addendum_is_no_call_of_its_own_and_what_it_adds_counts(
    is_late: bool, tmp_path: Path
) -> None:
    unanswered, failed, placed = call(1), call(2), call(3, placed=1)
    answer = unanswered["detail"]["responseElements"]
    unanswered["detail"]["responseElements"] = None
    events = [
        unanswered,
        addendum_to(unanswered, 11, responseElements=answer),
        failed,
        addendum_to(failed, 12),
        placed,
        addendum_to(placed, 13),
        rejected := call(4, error=("ThrottlingException", "Rate exceeded")),
        addendum_to(rejected, 14),
        thought_lost := call(5),
        addendum_to(
            thought_lost, 15, responseElements=call(5, placed=1)["detail"]["responseElements"]
        ),
    ]
    (tmp_path / "a.json").write_text(log(*(events if is_late else reversed(events))))
    status, found, error = history(tmp_path, "--offline")
    assert (status, error.count("\n")) == (1, 1)
    assert error.startswith("1 run failed at first, and ")
    counts = ("records", "failed", "partly_placed", "rejected")
    assert [found[key] for key in counts] == [5, 2, 0, 1]


def attempt(number: int, made: int, origin: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The call of attempt `made` of a stack."""
    values = {
        "attempt": f"{made}/10",
        "origin": origin["detail"]["eventID"],
        "since": "2026-11-23T00:00:04Z",
    }
    tags = [{"key": f"retry-run-task:{key}", "value": value} for key, value in values.items()]
    event = call(number, tags=tags, **options)
    role = "assumed-role/jobs-RetryRunTaskRole-1A2B/jobs-RetryRunTask-3C4D"
    detail = event["detail"]
    detail["userIdentity"] = {"arn": f"arn:aws:sts::123456789012:{role}"}
    detail |= {"userAgent": "Boto3/1.40.4", "sourceIPAddress": "34.240.0.10"}
    return event


@pytest.mark.parametrize("seen", [(0, 1, 2), (2, 1, 0), (0, 2), (1, 2)])
def test_a_run_is_whole_when_all_of_an_attempt_is_placed(
    seen: tuple[int, ...], tmp_path: Path
) -> None:
    """An attempt asks for what is missing, and CloudTrail may have lost a record between."""
    origin = call(1, count=3, placed=1, startedBy=None)
    origin["detail"]["userIdentity"].pop("invokedBy")
    origin["detail"] |= {"userAgent": "AmazonEventBridgeScheduler", "sourceIPAddress": "3.2.1.0"}
    own = {"startedBy": None}
    events = [
        origin,
        attempt(2, 1, origin, count=2, placed=1, **own),
        attempt(3, 2, origin, placed=1, **own),
    ]
    (tmp_path / "a.json").write_text(log(*(events[n] for n in seen)))
    status, found, _ = history(tmp_path, "--offline")
    assert (status, found["partly_placed"]) == (0, 0)
    caller = "scheduler" if 0 in seen else "unknown"
    assert [(j["caller"], j["verdicts"]) for j in found["jobs"]] == [(caller, {"LAUNCHED": 1})]


def test_a_call_that_is_placed_when_the_sdk_repeats_it_is_not_lost(tmp_path: Path) -> None:
    token = "6f1c0000-0000-4000-8000-000000000000"  # noqa: S105 - no password
    throttled = call(1, clientToken=token, error=("ThrottlingException", "Rate exceeded"))
    failed, placed = call(2, clientToken=token), call(3, clientToken=token, placed=1)
    (tmp_path / "a.json").write_text(log(throttled, failed, placed))
    status, found, error = history(tmp_path, "--offline")
    assert (status, found["records"], found["failed"], found["rejected"]) == (0, 3, 0, 1)
    assert error == "1 run failed at first, and a retry or a repeated call started it.\n"


def test_jobs_and_days_are_in_order(tmp_path: Path) -> None:
    days = [NOW + timedelta(days=n) for n in range(5)]
    events = [
        *(call(n, rule="often", moment=days[n]) for n in (3, 1, 2)),
        *(call(n, rule="seldom", moment=days[4], placed=n - 10) for n in (10, 11, 12, 13, 14)),
        call(20, rule="rejected", moment=days[0], error=("AccessDenied", "no")),
    ]
    events[2]["detail"]["responseElements"]["failures"][0]["reason"] = "AGENT"
    (tmp_path / "a.json").write_text(log(*events))
    _, found, _ = history(tmp_path, "--offline")
    assert [job["job"] for job in found["jobs"]] == ["often", "seldom", "rejected"]
    often = found["jobs"][0]
    assert (often["first"], often["last"]) == ("2026-11-24T00:01:30Z", "2026-11-26T00:01:30Z")
    assert often["reasons"] == {CAPACITY: 2, "AGENT": 1}
    assert (found["first"], found["last"]) == ("2026-11-24T00:01:30Z", "2026-11-27T00:01:30Z")
    out = shown(tmp_path, "--offline")
    assert re.search(r"often .* 3 +0 +0 +2026-11-24 +2026-11-26\n", out)
    assert re.search(r"\nrejected +events-rule +1 +0 +0 +1 +- +-\n", out)
    assert " in 5 days; 4 would" in out


def test_a_call_that_an_sdk_repeats_is_one_run(tmp_path: Path) -> None:
    token = "6f1c0000-0000-4000-8000-000000000000"  # noqa: S105 - no password
    calls = [call(n, clientToken=token) for n in (1, 2)]
    others = [call(3, clientToken=token, cluster="other"), call(4, clientToken="no-uuid")]
    (tmp_path / "a.json").write_text(log(*calls, *others))
    _, found, _ = history(tmp_path, "--offline")
    assert (found["records"], found["failed"]) == (4, 3)


@pytest.mark.parametrize("shows_tokens", [True, False])
@pytest.mark.parametrize("stack_name", ["retry-run-task", "a"])
@pytest.mark.parametrize(
    ("failures", "lost", "verdict"), [(2, 0, "LAUNCHED"), (99, 1, "EXHAUSTED")]
)
def test_attempts_of_a_stack_count_under_their_origin(
    failures: int, lost: int, verdict: str, stack_name: str, shows_tokens: bool, tmp_path: Path
) -> None:
    world = World(Stack({"MaxAttempts": "3"}, name=stack_name), NOW, failures=failures)
    world.shows_tokens = shows_tokens
    with world:
        events = played(world, load_event(FARGATE))
    (tmp_path / "a.json").write_text(log(*reversed(events)))
    status, found, _ = history(tmp_path, "--offline")
    assert len(events) >= 3
    assert (status, found["failed"], found["would_retry"]) == (lost, lost, 0)
    (job,) = found["jobs"]
    assert (job["job"], job["caller"]) == ("nightly-report", "events-rule")
    assert (job["records"], job["verdicts"]) == (len(events), {verdict: 1})


def played(world: World, event: dict[str, Any]) -> list[Mapping[str, Any]]:
    """All events of RunTask calls that come of this one, itself included."""
    events: list[Mapping[str, Any]] = []
    deliver = world.deliver

    def delivered(event: Mapping[str, Any]) -> None:
        events.append(event)
        deliver(event)

    with mock.patch.object(world, "deliver", delivered):
        world.begin(event)
        world.run()
    return events


def test_the_reasons_are_those_of_the_callers_own_call(tmp_path: Path) -> None:
    origin = call(1)
    later = attempt(2, 1, origin)
    later["detail"]["responseElements"]["failures"] = [{"reason": "AGENT"}]
    (tmp_path / "a.json").write_text(log(later, origin))
    (job,) = history(tmp_path, "--offline")[1]["jobs"]
    assert (job["records"], job["failed"], job["reasons"]) == (2, 1, {CAPACITY: 1})


def test_tags_that_were_copied_from_an_attempt_make_no_attempt(tmp_path: Path) -> None:
    origin = call(1)["detail"]["eventID"]
    tags = [
        {"key": "retry-run-task:attempt", "value": "1/10"},
        {"key": "retry-run-task:origin", "value": origin},
        {"key": "retry-run-task:since", "value": "2026-11-23T00:00:04Z"},
    ]
    (tmp_path / "a.json").write_text(log(call(1), call(2, placed=1, tags=tags)))
    status, found, _ = history(tmp_path, "--offline")
    assert (status, found["failed"]) == (1, 1)


def test_a_run_is_partly_placed_until_all_its_tasks_run(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(log(call(1, count=3, placed=2), call(2, count=3)))
    _, found, _ = history(tmp_path, "--offline")
    assert (found["failed"], found["partly_placed"], found["would_retry"]) == (1, 1, 2)
    out = shown(tmp_path, "--offline")
    assert out.endswith(
        "1 run of 1 job never started in 1 day, and 1 run of 1 job started in part; "
        "2 would have been\nretried.\n"
    )


def test_calls_that_ecs_rejected_are_counted_and_nothing_more(tmp_path: Path) -> None:
    throttled = call(1, error=("ThrottlingException", "Rate exceeded"))
    nothing = call(2, error=("AccessDenied", "no"))
    nothing["detail"]["requestParameters"] = None
    (tmp_path / "a.json").write_text(log(throttled, nothing, call(3, placed=1)))
    status, found, _ = history(tmp_path, "--offline")
    assert (status, found["records"], found["rejected"], found["failed"]) == (0, 3, 2, 0)
    assert [(job["job"], job["rejected"]) for job in found["jobs"]] == [
        ("nightly", 1),
        ("unknown", 1),
    ]
    assert (found["first"], found["last"]) == (None, None)


@pytest.mark.parametrize("answer", [None, {"omitted": True}, "too large"])
def test_a_call_whose_answer_is_not_shown_is_neither_lost_nor_whole(
    answer: Any, tmp_path: Path
) -> None:
    unanswered = call(1)
    unanswered["detail"]["responseElements"] = answer
    (tmp_path / "a.json").write_text(log(unanswered))
    status, found, error = history(tmp_path, "--offline")
    assert (status, found["records"], found["failed"]) == (0, 1, 0)
    assert (
        error == "Of 1 call, CloudTrail does not show the answer: what ECS placed is not known.\n"
    )


@given(st.permutations(EVENT_NAMES), st.lists(st.sampled_from(EVENT_NAMES), max_size=9))
@settings(max_examples=30)
def test_the_order_of_records_does_not_matter(names: list[str], again: list[str]) -> None:
    def found(names: Sequence[str]) -> object:
        runs = Runs()
        for name in names:
            runs.add(load_event(name))
        jobs = [judge(job, lambda failure: Verdict(failure.event)) for job in runs.jobs()]
        return as_json(jobs), runs.records, runs.first, runs.last

    assert found([*names, *again]) == found(EVENT_NAMES)


@pytest.mark.parametrize("suffix", ["", "-1QZ7V3K2XY9AB"])
def test_a_stack_is_known_by_the_names_that_cloudformation_gives(suffix: str) -> None:
    for name in ("retry-run-task", "StackSet-jobs-0dab496a-1766-592f"):
        stack = Stack(name=name)
        role = stack.attribute("RetryRunTaskRole", "Arn").rpartition("/")[2]
        session = f"{role}{suffix}/{stack.function_name}{suffix}"
        assert STACK.fullmatch(f"arn:aws:sts::123456789012:assumed-role/{session}")
    for other in (f"{role}/5d41402abc4b2a76b9719d911017c592", "admin/retry-run-task-RetryRunTask"):
        assert not STACK.fullmatch(f"arn:aws:sts::123456789012:assumed-role/{other}")


# What the stack would have done.


@contextmanager
def account(
    events: Sequence[Mapping[str, Any]] = (),
    definitions: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator["Trail"]:
    """An account with these rules and schedules, and these events in its Event history."""
    now = max((moment_of(event) for event in events), default=NOW) + timedelta(hours=1)
    trail = Trail([event["detail"] for event in events], **options)
    with World(Stack(), now - timedelta(hours=1), definitions=definitions) as world:
        world.wait(timedelta(hours=1))

        make = boto3.Session

        def session(**given: Any) -> boto3.Session:
            made = make(**given)
            if trail.credentials is not None:
                made.get_credentials = lambda: trail.credentials  # type: ignore[method-assign]
            events: Any = made.events  # takes hooks that answer
            events.register("before-call.cloudtrail.LookupEvents", trail.answer)
            events.register_first("before-send", trail.count)  # moto's would be the last
            return made

        with mock.patch.object(boto3, "Session", session):
            yield trail


class Trail:
    """An Event history: pages of `page` records, the newest first. `errors` come in their turn."""

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        *,
        page: int = 50,
        errors: Mapping[int, str | BaseException] | None = None,
    ) -> None:
        records = sorted(records, key=lambda record: str(record["eventTime"]), reverse=True)
        self.pages = [records[i : i + page] for i in range(0, len(records), page)] or [[]]
        self.errors = errors or {}
        self.moments: list[float] = []
        self.asked: list[dict[str, Any]] = []
        self.sent: list[str] = []
        # In place of the session's.
        self.credentials: Any = None
        # Which other operations AWS refuses, with which code, and how often.
        self.refused: dict[str, str | BaseException] = {}
        self.times = 999

    def answer(self, params: Mapping[str, Any], **_: object) -> tuple[object, Any]:
        """In place of CloudTrail."""
        self.moments.append(time.time())
        self.asked.append(json.loads(params["body"]))
        error = self.errors.get(len(self.moments))
        if isinstance(error, BaseException):
            raise error
        if error:
            return SimpleNamespace(status_code=400), {
                "Error": {"Code": error, "Message": "said AWS"},
                "ResponseMetadata": {"HTTPStatusCode": 400},
            }
        number = int(self.asked[-1].get("NextToken", "0"))
        answer = looked_up(*self.pages[number])
        for shown, record in zip(answer["Events"], self.pages[number], strict=True):
            shown["EventTime"] = read_moment(record["eventTime"])
        if number + 1 < len(self.pages):
            answer["NextToken"] = str(number + 1)
        return SimpleNamespace(status_code=200), answer

    def count(self, request: AWSPreparedRequest, event_name: str, **_: object) -> Any:
        """Each other request that is sent."""
        self.sent.append(event_name.removeprefix("before-send."))
        code = self.refused.get(event_name.rpartition(".")[2])
        if isinstance(code, BaseException):
            raise code
        if code is None or not self.times:
            return None
        self.times -= 1
        error: str = json.dumps({"__type": code, "message": "said AWS"})
        if "sts" in event_name:
            error = f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>"
        body = MockRawResponse(error.encode())
        headers: Any = {"x-amzn-errortype": code}
        return AWSResponse(request.url, 400, headers, body)


def definitions_of(name: str) -> dict[str, Any]:
    has_some = (EVENTS / "definitions" / f"{name}.json").exists()
    return load_definitions(name) if has_some else {}


@pytest.mark.parametrize("name", [n for n in EVENT_NAMES if not n.startswith("unmatched")])
def test_the_verdict_is_what_the_stack_comes_to(name: str) -> None:
    event = load_event(name)
    with account([event], definitions_of(name)):
        status, found, _ = history()
    would = "RETRY" if verdict_of(name) == "LAUNCHED" else verdict_of(name)
    (job,) = found["jobs"]
    assert (status, job["verdicts"]) == (1, {would: 1})
    assert found["would_retry"] == (would == "RETRY")
    assert found["failed"] + found["partly_placed"] == 1
    assert job["job"]


HIDDEN_RULE = "launched.hidden-environment-rule"
HIDDEN_SCHEDULE = "launched.hidden-environment-schedule"


def copies(name: str, number: int) -> list[dict[str, Any]]:
    """So many calls like that of the event file, an hour apart."""
    events = []
    for n in range(number):
        event = load_event(name)
        moment = moment_of(event) + timedelta(hours=n)
        event["time"] = event["detail"]["eventTime"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        event["detail"]["eventID"] = f"00000000-0000-0000-0000-{n:012}"
        events.append(event)
    return events


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        (
            "launched.hidden-environment-rule",
            [
                "eventbridge.ListEventBuses",
                "eventbridge.ListRuleNamesByTarget",
                "eventbridge.ListTargetsByRule",
            ],
        ),
        (
            "launched.hidden-environment-schedule",
            ["scheduler.ListSchedules", "scheduler.GetSchedule"],
        ),
    ],
)
def test_each_definition_is_read_once(name: str, reads: list[str]) -> None:
    with account(copies(name, 5), definitions_of(name)) as trail:
        _, found, error = history()
    assert (found["failed"], found["would_retry"], error) == (5, 5, "")
    assert trail.sent == ["sts.GetCallerIdentity", *reads]


HIDDEN = "launched.hidden-environment-rule"


def test_without_a_connection_one_look_up_is_enough() -> None:
    with account(copies(HIDDEN, 3), definitions_of(HIDDEN)) as trail:
        trail.refused = {"ListEventBuses": EndpointConnectionError(endpoint_url="x")}
        _, found, error = history()
    assert trail.sent.count("eventbridge.ListEventBuses") == TRIES
    assert found["jobs"][0]["verdicts"] == {"NOT_REPLAYABLE": 3}
    assert "3 lost runs: the environment that CloudTrail hides was not looked up (it e" in error


def test_each_call_gets_the_answers_of_its_own_definition() -> None:
    """Two rules, two schedules, and a schedule that has changed since."""
    names = (HIDDEN, "launched.hidden-environment-schedule")
    events, definitions = [], {"Rules": [], "Schedules": []}  # type: ignore[var-annotated]
    for name in names:
        events.append(load_event(name))
        text = json.dumps(definitions_of(name))
        for kind, listed in json.loads(text).items():
            definitions[kind] += listed
    rule, schedule = definitions["Rules"][0]["Name"], definitions["Schedules"][0]["Name"]
    for kind, name, event in (("Rules", rule, events[0]), ("Schedules", schedule, events[1])):
        definitions[kind] += json.loads(json.dumps(definitions[kind][:1]).replace(name, "another"))
        other = json.loads(json.dumps(event).replace(name, "another"))
        other["detail"]["eventID"] = f"00000000-0000-0000-0000-{len(events):012}"
        events.append(other)
    with account(events, definitions):
        _, found, error = history()
    assert (found["would_retry"], error) == (4, "")
    definitions["Rules"][1]["Targets"][0]["EcsParameters"]["TaskCount"] = 9
    with account(events, definitions):
        _, found, _ = history()
    assert found["would_retry"] == 3


def test_a_denied_look_up_says_nothing_of_the_next_one() -> None:
    changed = definitions_of("launched.hidden-environment-schedule")
    changed["Schedules"][0]["Target"]["EcsParameters"]["TaskCount"] = 9
    events = [load_event(HIDDEN), load_event("launched.hidden-environment-schedule")]
    with account(events, changed) as trail:
        trail.refused = {"ListEventBuses": "AccessDeniedException"}
        error = history()[2]
    assert "1 lost run: the environment that CloudTrail hides was not looked up (you" in error
    assert "Rules and schedules were read as they are now." in error


def test_a_region_that_refuses_says_nothing_of_the_others(tmp_path: Path) -> None:
    here = load_event(HIDDEN)
    text = json.dumps(here).replace("eu-west-1", "cn-north-1").replace("arn:aws:", "arn:aws-cn:")
    there = json.loads(text)
    there["detail"]["eventID"] = "00000000-0000-0000-0000-000000000001"
    (tmp_path / "a.json").write_text(log(there, here))
    with account([], definitions_of(HIDDEN)) as trail:
        trail.refused, trail.times = {"GetCallerIdentity": "InvalidClientTokenId"}, 1
        _, found, error = history(tmp_path)
    assert (found["failed"], found["would_retry"]) == (2, 1)
    assert "1 lost run: the environment that CloudTrail hides was not looked up (AWS rej" in error


def test_a_region_narrows_what_files_hold(tmp_path: Path) -> None:
    elsewhere = json.loads(json.dumps(call(2)).replace("eu-west-1", "ap-southeast-2"))
    (tmp_path / "a.json").write_text(log(call(1), call(3), elsewhere))
    for region, records in {"eu-west-1": 2, "ap-southeast-2": 1, "us-east-1": 0}.items():
        assert history(tmp_path, "--offline", "--region", region)[1]["records"] == records


def test_offline_nothing_is_looked_up_and_the_verdict_says_so() -> None:
    with account(copies(HIDDEN, 2), definitions_of(HIDDEN)) as trail:
        status, found, error = history("--offline")
        out = shown("--offline")
    assert (status, trail.sent) == (1, [])
    assert found["jobs"][0]["verdicts"] == {"NOT_REPLAYABLE": 2}
    assert found["would_retry"] == 0
    note = "2 lost runs: the environment that CloudTrail hides was not looked up (--offline)."
    assert note in out
    assert error == f"{note}\n"
    flat = " ".join(out.split())
    assert "environment is hidden by CloudTrail, and was not looked up: --offline." in flat


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"account": "999999999999"}, "your credentials are those of account 123456789012"),
        ({"profile": "nobody"}, "The config profile (nobody) could not be found: "),
    ],
)
def test_files_are_judged_as_far_as_the_credentials_go(
    change: dict[str, str], problem: str, tmp_path: Path
) -> None:
    text = json.dumps(load_event(HIDDEN)).replace(
        "123456789012", change.get("account", "123456789012")
    )
    (tmp_path / "a.json").write_text(log(json.loads(text), call(1)))
    options = ["--profile", change["profile"]] if "profile" in change else []
    with account([], definitions_of(HIDDEN)):
        status, found, error = history(tmp_path, *options)
    assert (status, found["failed"], found["would_retry"]) == (1, 2, 1)
    assert f"was not looked up ({problem}" in error


@pytest.mark.parametrize(
    ("refused", "code", "problem"),
    [
        (
            "ListEventBuses",
            "AccessDeniedException",
            "you are not allowed to call events:ListEventBuses)",
        ),
        ("ListTargetsByRule", "ExpiredTokenException", "your credentials have expired: log in "),
        ("GetCallerIdentity", "ExpiredToken", "your credentials have expired: log in "),
    ],
)
def test_a_look_up_that_aws_refuses_is_not_tried_again(
    refused: str, code: str, problem: str
) -> None:
    with account(copies(HIDDEN, 3), definitions_of(HIDDEN)) as trail:
        trail.refused = {refused: code}
        _, found, error = history()
        assert sum(sent.endswith(refused) for sent in trail.sent) == 1
    assert found["jobs"][0]["verdicts"] == {"NOT_REPLAYABLE": 3}
    assert (
        f"3 lost runs: the environment that CloudTrail hides was not looked up ({problem}" in error
    )


@pytest.mark.parametrize(
    ("throttles", "verdicts"), [(TRIES - 1, {"RETRY": 3}), (TRIES, {"NOT_REPLAYABLE": 3})]
)
def test_a_throttled_look_up_is_tried_for_long_but_not_for_each_run(
    throttles: int, verdicts: dict[str, int]
) -> None:
    with account(copies(HIDDEN, 3), definitions_of(HIDDEN)) as trail:
        trail.refused, trail.times = {"ListEventBuses": "ThrottlingException"}, throttles
        _, found, error = history()
    assert found["jobs"][0]["verdicts"] == verdicts
    assert ("was not looked up (it ended in ThrottlingException)" in error) is (throttles == TRIES)


def test_what_was_changed_since_is_reported_as_the_judgement_of_today() -> None:
    definitions = definitions_of(HIDDEN)
    definitions["Rules"][0]["Targets"][0]["EcsParameters"]["TaskCount"] = 2
    with account([load_event(HIDDEN)], definitions):
        out = shown()
    assert "NOT_REPLAYABLE: The request cannot be repeated: " in out
    assert "Rules and schedules were read as they are now." in out


def test_its_policy_is_enough_and_all_of_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    # moto signs the query of a GET in another way than botocore does.
    monkeypatch.setattr(IAMRequestBase, "check_signature", lambda _: None)
    help_text = run_command(main, "--help")[1]
    policy = json.loads(help_text[help_text.index('{\n  "Version"') :])
    names = (HIDDEN, "launched.hidden-environment-schedule")
    definitions: dict[str, list[Any]] = {"Rules": [], "Schedules": []}
    for name in names:
        for kind, listed in definitions_of(name).items():
            definitions[kind] += listed
    events = [load_event(name) for name in names]
    (statement,) = policy["Statement"]
    actions = statement["Action"]
    with account(events, definitions) as trail, enforcing([statement]):
        _, found, error = history()
        called = {sent.replace("eventbridge", "events").replace(".", ":") for sent in trail.sent}
    assert (found["would_retry"], error) == (2, "")
    assert called - {"sts:GetCallerIdentity"} | {"cloudtrail:LookupEvents"} == set(actions)
    assert statement["Resource"] == "*"


# The Event history.


def at(number: int, *, hours: float, **options: Any) -> dict[str, Any]:
    """A call so many hours before the account's present."""
    return call(number, moment=NOW - timedelta(hours=hours), **options)


def test_the_event_history_is_read_in_pages_twice_a_second() -> None:
    events = [at(n, hours=n) for n in range(7)]
    with account(events, page=3) as trail:
        status, found, error = history()
    assert (status, found["records"], found["failed"], error) == (1, 7, 7, "")
    (first, *others) = trail.asked
    assert first["LookupAttributes"] == [{"AttributeKey": "EventName", "AttributeValue": "RunTask"}]
    assert first["MaxResults"] == 50
    assert first["EndTime"] - first["StartTime"] == 90 * 86400
    assert others == [first | {"NextToken": "1"}, first | {"NextToken": "2"}]
    gaps = [b - a for a, b in pairwise(trail.moments)]
    assert gaps == pytest.approx([0.5, 0.5], abs=0.01)


def test_the_days_are_the_users_choice_up_to_those_of_cloudtrail() -> None:
    with account([at(1, hours=1)]) as trail:
        out = shown("--days", "7")
    assert trail.asked[0]["EndTime"] - trail.asked[0]["StartTime"] == 7 * 86400
    assert out.endswith("1 run of 1 job never started in 7 days; 1 would have been retried.\n")
    status, _, error = run_command(main, "--days", "91")
    assert (status, error.startswith("history: --days: CloudTrail's Event history has 90")) == (
        2,
        True,
    )


def test_a_throttle_is_waited_out() -> None:
    errors = dict.fromkeys((2, 3, 4), "ThrottlingException")
    with account([at(1, hours=1), at(2, hours=2)], page=1, errors=errors) as trail:
        status, found, error = history()
    assert (status, found["records"], error) == (1, 2, "")
    gaps = [b - a for a, b in pairwise(trail.moments)]
    assert gaps == pytest.approx([0.5, 1, 2, 4], abs=0.01)


def test_requests_and_answers_are_those_of_botocores_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    # Each look at the clock is a tenth of a second later.
    looks = itertools.count(1)
    monkeypatch.setattr(time, "monotonic", lambda: sum(waits) + next(looks) / 10)
    client = boto3.client("cloudtrail", region_name="eu-west-1")
    answers = [looked_up(call(n)["detail"]) for n in (1, 2)]
    for answer in answers:
        answer["Events"][0]["EventTime"] = NOW
    wanted = {
        "LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "RunTask"}],
        "StartTime": NOW - timedelta(days=90),
        "EndTime": NOW,
        "MaxResults": 50,
    }
    with Stubber(client) as stub:
        throttled: Any = {"service_error_code": "ThrottlingException", "http_status_code": 400}
        stub.add_client_error("lookup_events", **throttled, expected_params=wanted)
        stub.add_response("lookup_events", answers[0] | {"NextToken": "next"}, wanted)
        stub.add_client_error("lookup_events", **throttled)
        stub.add_client_error("lookup_events", **throttled)
        stub.add_response("lookup_events", answers[1], wanted | {"NextToken": "next"})
        pages = list(event_history(client, NOW - timedelta(days=90), NOW))
        stub.assert_no_pending_responses()
    assert pages == [answer["Events"] for answer in answers]
    # Half a second from page to page, and the doubled waits of each.
    assert waits == pytest.approx([1, 0.4, 1, 2])


def test_without_a_connection_nothing_is_waited_for() -> None:
    error = EndpointConnectionError(endpoint_url="https://cloudtrail.mars-1.amazonaws.com/")
    with account([at(1, hours=1), at(2, hours=2)], page=1, errors={1: error}) as trail:
        status, out, shown_error = run_command(main)
    assert (status, out, len(trail.moments)) == (2, "", 1)
    assert shown_error.startswith("history: Could not connect to the endpoint URL: ")
    assert shown_error.endswith(": is the Region right, and are you online?\n")
    with account([at(1, hours=1), at(2, hours=2)], page=1, errors={2: error, 3: error}):
        assert history()[1]["records"] == 2


def test_throttles_without_end_end_the_look() -> None:
    errors = dict.fromkeys(range(1, 99), "ThrottlingException")
    with account([at(1, hours=1)], errors=errors) as trail:
        status, out, error = run_command(main)
    assert (status, out) == (2, "")
    assert error == "history: LookupEvents: ThrottlingException: said AWS\n"
    assert len(trail.moments) == 7


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("ExpiredTokenException", "your credentials have expired: log in again (`aws sso login`, "),
        ("UnrecognizedClientException", "AWS rejects your credentials (Unrecogn"),
        ("AccessDeniedException", "you are not allowed to call cloudtrail:LookupEvents: said AWS"),
        ("InvalidTimeRangeException", "LookupEvents: InvalidTimeRangeException: said AWS"),
    ],
)
def test_an_error_ends_the_look_with_what_was_read(code: str, problem: str) -> None:
    events = [at(1, hours=20), at(2, hours=72)]
    with account(events, errors={1: code}):
        status, out, error = run_command(main)
    assert (status, out) == (2, "")
    assert error.startswith(f"history: {problem}")
    assert error.count("\n") == 1
    with account(events, page=1, errors={2: code}):
        status, out, error = run_command(main)
    assert status == 1
    assert error.startswith(
        f"history: Event history: nothing was read from before 2026-11-22 04:01: {problem}"
    )
    assert error.count("\n") == 1
    assert out.endswith(
        "1 run of 1 job never started in 1 day of what could be read; 1 would have been retried.\n"
    )


def test_what_could_not_be_read_is_no_clean_history() -> None:
    events = [at(1, hours=24, placed=1), at(2, hours=72)]
    with account(events, page=1, errors={2: "ExpiredTokenException"}):
        status, found, _ = history()
    assert (status, found["records"], found["failed"]) == (2, 1, 0)


@pytest.mark.parametrize(("placed", "status"), [(0, 1), (1, 0)])
def test_an_interrupt_prints_what_is_there(placed: int, status: int) -> None:
    events = [at(1, hours=0, placed=1), at(2, hours=30, placed=placed), at(3, hours=72)]
    errors = {3: KeyboardInterrupt()}
    with account(events, page=1, errors=errors):
        assert history()[:2] == (status, mock.ANY)
    with account(events, page=1, errors=errors):
        out = shown()
    assert "\nInterrupted: this is what was read until then.\n" in out
    assert " in 2 days" in out.splitlines()[-1]


def test_an_interrupt_before_the_first_page_is_no_clean_history() -> None:
    with account([at(1, hours=1)], errors={1: KeyboardInterrupt()}):
        assert run_command(main) == (2, "", "history: interrupted, before anything was read\n")


def test_an_interrupt_of_a_look_up_ends_the_look_ups() -> None:
    with account(copies(HIDDEN, 3), definitions_of(HIDDEN)) as trail:
        trail.refused = {"ListEventBuses": KeyboardInterrupt()}
        _, found, error = history()
    assert found["jobs"][0]["verdicts"] == {"NOT_REPLAYABLE": 3}
    assert (
        "3 lost runs: the environment that CloudTrail hides was not looked up (interrupted)"
        in error
    )


def test_at_a_terminal_the_day_reached_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with account([at(n, hours=n * 24) for n in range(1, 46)], page=15):
        monkeypatch.setattr(sys, "stderr", terminal)
        with redirect_stdout(io.StringIO()) as out:
            assert main(["--json"]) == 1
    assert json.loads(out.getvalue())["records"] == 45
    shown_there = terminal.getvalue()
    for moment in (NOW - timedelta(days=n) for n in (15, 30, 45)):
        assert f"{moment:%Y-%m-%d}" in shown_there
    assert re.search(r"2026-10-24 .* 32%.*[0-9]:[0-9]{2}:[0-9]{2}", shown_there)


def test_an_account_without_a_call(capsys: pytest.CaptureFixture[str]) -> None:
    with account([]):
        assert main([]) == 0
    assert capsys.readouterr().out == "Event history of eu-west-1\n\nNo RunTask call in 90 days.\n"


def test_the_answers_of_ministack_have_the_shape_that_is_read() -> None:
    """A second opinion on LookupEvents, from a model of AWS that is not ours."""
    with mock.patch.object(cloudtrail, "_recording_enabled", True):
        cloudtrail.reset()
        request = {"cluster": "jobs", "taskDefinition": "nightly:1"}
        for name in ("RunTask", "DescribeTasks"):
            cloudtrail.record_event(
                "ecs", name, "me", "AKIA", [], "eu-west-1", "r", "boto3", request, "POST"
            )
    with World(Stack(), datetime.now(UTC)):
        client = boto3.client("cloudtrail", endpoint_url="http://ministack.invalid")
        client.meta.events.register_first("before-send", in_process(cloudtrail))
        (page,) = event_history(client, NOW - timedelta(days=999), NOW + timedelta(days=999))
    (event,) = events_in(Read("ministack", list(held_in({"Events": page}))))
    assert isinstance(event, dict)
    assert event["detail"]["requestParameters"] == request


# The user's own machine.


@pytest.mark.parametrize(
    ("variables", "config", "problem"),
    [
        ({}, "", "no credentials: give --profile, or log in again"),
        (
            {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": ""},
            "",
            "no Region: give --region, or set one in your profile or AWS_REGION",
        ),
        (
            {"AWS_PROFILE": "nobody"},
            "",
            "The config profile (nobody) could not be found: `aws configure list-profiles` names",
        ),
        ({}, "[default", "Unable to parse config file: "),
        (
            {},
            "[default]\nsso_session = x\nsso_account_id = 1\nsso_role_name = r\n"
            "[sso-session x]\nsso_region = eu-west-1\nsso_start_url = https://x.invalid\n",
            "your credentials cannot be loaded (Error loading SSO Token: ",
        ),
        (
            {},
            "[default]\ncredential_process = false\n",
            "your credentials cannot be loaded (Error when retrieving credentials from custom",
        ),
        (
            {},
            "[default]\ncredential_process = /nope/x\n",
            "your credentials cannot be loaded ([Errno 2] No such file or directory: '/nope/x'",
        ),
        (
            {},
            "[default]\ncredential_process = echo hi\n",
            "your profile, the environment (AWS_...) or AWS's answer cannot be used (JSONDecode",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": "no url"},
            "",
            "your profile, the environment (AWS_...) or AWS's answer cannot be used (ValueError:",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "bad region"},
            "",
            "Provided region_name 'bad region' doesn't match a supported format: is the Region ",
        ),
    ],
)
def test_what_is_missing_is_said_in_a_line(
    variables: dict[str, str],
    config: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not variables.get("AWS_REGION", "x"):
        monkeypatch.delenv("AWS_REGION")
    status, out, error = run_command(main)
    assert (status, out) == (2, "")
    assert error.startswith(f"history: {problem}")
    assert error.count("\n") == 1
    # What needs no account is judged all the same.
    (tmp_path / "a.json").write_text(log(call(1)))
    assert history(tmp_path / "a.json")[::2] == (1, "")
    (tmp_path / "b.json").write_text(log(call(1), load_event(HIDDEN)))
    status, found, error = history(tmp_path / "b.json")
    assert (status, found["failed"], found["would_retry"]) == (1, 2, 1)
    assert "1 lost run: the environment that CloudTrail hides was not looked up (" in error


def test_what_is_missing_is_one_line_of_the_process_as_well(tmp_path: Path) -> None:
    """botocore would log it, with a traceback."""
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-west-1\nsso_session = x\nsso_account_id = 1\nsso_role_name = r\n"
        "[sso-session x]\nsso_region = eu-west-1\nsso_start_url = https://x.invalid\n"
    )
    variables = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "HOME": str(tmp_path)}
    done = subprocess.run([HISTORY], env=os.environ | variables, capture_output=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert done.stderr.startswith(b"history: your credentials cannot be loaded (")


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (EOFError(), "your profile asks for a code, and there is no terminal to enter it"),
        (
            MissingDependencyException(msg="no CRT"),
            "your profile needs another package: put --with 'botocore[crt]' behind `uv run`",
        ),
        (KeyError("Events"), "your profile, the environment (AWS_...) or AWS's answer cannot be "),
    ],
)
def test_what_a_profile_lacks_has_a_way_out(error: Exception, problem: str) -> None:
    with account([at(1, hours=1)], errors={1: error}):
        status, out, shown_error = run_command(main)
    assert (status, out) == (2, "")
    assert shown_error.startswith(f"history: {problem}")


def test_a_code_is_asked_for_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for beside a progress bar would be overwritten by it."""
    credentials = mock.Mock(**{"get_frozen_credentials.side_effect": EOFError()})
    with account([at(1, hours=1)]) as trail:
        monkeypatch.setattr(trail, "credentials", credentials)
        assert run_command(main)[:2] == (2, "")
    assert trail.asked == []


def test_a_profile_that_is_given_wins_over_one_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pattern's own client is not the user's, and must not stumble either."""
    (tmp_path / "config").write_text(
        "[profile me]\nregion = eu-west-1\naws_access_key_id = me\naws_secret_access_key = x\n"
    )
    with account([at(1, hours=1)]):
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        _events.cache_clear()
        status, found, error = history("--profile", "me")
    assert (status, found["would_retry"], error) == (1, 1, "")


# Files that are none, and records that are no records.


def test_a_broken_file_does_not_stop_the_rest(tmp_path: Path) -> None:
    good = gzip.compress(log(call(1)).encode())
    (tmp_path / "b.json.gz").write_bytes(good)
    for name, data in {"a.json.gz": good[:-20], "c.json": b'{"Records": [', "d.json": b""}.items():
        (tmp_path / name).write_bytes(data)
    status, found, error = history(tmp_path, tmp_path / "none.json", "--offline")
    assert (status, found["failed"]) == (1, 1)
    lines = error.splitlines()
    assert len(lines) == 4
    for line, (name, problem) in zip(
        lines,
        [
            ("a.json.gz", "the compressed data is damaged: "),
            ("c.json", "not JSON: "),
            ("d.json", "empty"),
            ("none.json", "No such file or directory"),
        ],
        strict=True,
    ):
        assert line.startswith(f"history: {tmp_path / name}: {problem}")
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(log(call(1, placed=1)).encode()))
    assert history(tmp_path, "--offline")[0] == 2


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + "/x", "x\0y"])
def test_a_name_that_no_file_can_have_stops_no_other(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(log(call(1)))
    (tmp_path / "b.json").symlink_to("b" * 300)
    status, found, error = history(tmp_path, name, "--offline")
    assert (status, found["failed"]) == (1, 1)
    assert len(error.splitlines()) == 2


def test_without_standard_error_the_result_is_printed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(log(call(1)))
    command = f"{HISTORY} --offline --json {tmp_path} /none 2>/dev/full"
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, check=False)  # noqa: S603, S607
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("-", "-"), "standard input can be read once"),
        (("x", "--days", "99999"), "--days: CloudTrail's Event history has 90 days; log files, at"),
        (("x", "--failures", ""), "argument --failures: it is empty"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: tuple[str, ...], problem: str) -> None:
    status, out, error = run_command(main, *options, "--offline")
    assert (status, out) == (2, "")
    assert error.startswith(f"history: {problem}")


def test_a_directory_without_log_files_is_no_history(tmp_path: Path) -> None:
    status, out, error = run_command(main, str(tmp_path), "--offline")
    assert (status, out) == (2, "No RunTask call could be read.\n")
    assert error == f"history: {tmp_path}: holds no file whose name ends in .json or .json.gz\n"
    assert history(tmp_path, "-", "--offline", stdin=FORMS["event"])[:2] == (1, FOUND)


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ({"eventID": None}, "CloudTrail's record of RunTask without 'eventID'"),
        ({"eventID": ""}, "detail.eventID is '', not CloudTrail's identifier"),
        ({"recipientAccountId": 1}, "CloudTrail's record of RunTask without 'recipientAccountId'"),
        ({"awsRegion": "mars-1"}, "'region' is 'mars-1', which is no Region of AWS"),
        ({"eventTime": "yesterday"}, "'time' is no time: 'yesterday'"),
        ({"requestParameters": "x"}, "detail.requestParameters is not a JSON object"),
        ({"eventName": None}, "not an event: its keys are "),
    ],
)
def test_a_record_that_cannot_be_read_is_reported(
    held: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    broken = call(1)
    broken["detail"] |= held | {"userAgent": "RunTask"}
    (tmp_path / "a.json").write_text(log(broken, call(2), broken))
    status, found, error = history(tmp_path, "--offline")
    assert (status, found["records"], found["failed"]) == (1, 1, 1)
    assert error.startswith(f"history: {tmp_path / 'a.json'}: {problem}")
    assert error.endswith(" (and 1 more)\n")
    assert "Nothing was launched" not in error  # which is for the function to say
    assert error.count("\n") == 1


@pytest.mark.parametrize("depth", [90, 960, 985, 1500, 10**5])
def test_a_file_that_is_nested_too_deeply_stops_no_other(depth: int, tmp_path: Path) -> None:
    text = log(call(1, tags="VALUE")).replace('"VALUE"', "[" * depth + "]" * depth)
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "b.json").write_text(log(call(2)))
    status, found, error = history(tmp_path, "--offline")
    assert status == 1
    assert found["failed"] == 2 - error.count("\n")
    assert found["failed"] > 0


def test_a_number_that_is_too_long_stops_no_other_record() -> None:
    text = log(call(1, count=123456), call(2)).replace("123456,", "9" * 5000 + ",", 1)
    status, found, error = history("-", "--offline", stdin=text.encode())
    assert (status, found["records"]) == (1, 1)
    assert error.startswith("history: standard input: not JSON: Exceeds the limit")


def test_links_and_pipes_in_a_directory_are_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(log(call(1)))
    for name in ("b", "c"):
        (tmp_path / name).symlink_to(".")
    os.mkfifo(tmp_path / "d.json")
    status, found, error = history(tmp_path, "--offline")
    assert (status, found["records"], error) == (1, 1, "")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("RunTask"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(EVENT_NAMES), st.data())
@settings(max_examples=300)
def test_whatever_a_record_holds_is_counted_or_reported(name: str, data: st.DataObject) -> None:
    record = load_event(name)["detail"]
    for _ in range(data.draw(st.integers(1, 3))):
        parent = record
        key = data.draw(st.sampled_from(sorted(parent)))
        while isinstance(parent[key], dict) and parent[key] and data.draw(st.booleans()):
            parent = parent[key]
            key = data.draw(st.sampled_from(sorted(parent)))
        parent[key] = data.draw(ANYTHING)
    text = json.dumps({"Records": [record, call(1)["detail"]]})
    status, found, error = history("-", "--offline", stdin=text.encode())
    is_counted = found["records"] == 2
    is_other = (record["eventSource"], record["eventName"]) != ("ecs.amazonaws.com", "RunTask")
    assert is_counted or is_other or "history: standard input: " in error
    assert status == 1
    assert "Traceback" not in error
    losses = found["failed"] + found["partly_placed"]
    verdicts = sum((Counter(job["verdicts"]) for job in found["jobs"]), Counter[str]())
    assert losses == verdicts.total()


# What it writes.


def test_the_failures_are_events_that_the_rehearsal_takes(tmp_path: Path) -> None:
    names = [FARGATE, "left-alone.airflow-operator", "launched.partial-placement-rule"]
    events = [load_event(name) for name in names]
    events[0]["detail"]["requestParameters"]["startedBy"] = "events-rule/../a b"
    (tmp_path / "a.json").write_text(log(*events, call(9, placed=1)))
    status, _, _ = history(tmp_path / "a.json", "--offline", "--failures", tmp_path / "x" / "lost")
    files = sorted((tmp_path / "x" / "lost").iterdir())
    assert status == 1
    assert len(files) == len(names)
    assert {json.loads(f.read_text())["detail"]["eventID"] for f in files} == {
        event["detail"]["eventID"] for event in events
    }
    outcomes = {json.loads(run_command(rehearse, str(f), "--json")[1])["outcome"] for f in files}
    assert outcomes == {"LAUNCHED", "LEFT_ALONE"}
    assert re.fullmatch(r"2026-11-23T000004Z\.---a-b\.[0-9a-f-]{36}\.json", files[0].name)


def test_a_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(log(call(1)))
    command = (str(tmp_path / "a.json"), "--offline", "--failures", str(tmp_path / "a.json" / "x"))
    status, _, error = run_command(main, *command)
    assert (status, error) == (2, f"history: --failures: {command[-1]}: Not a directory\n")


def test_callers_that_see_failures_are_named_with_their_lost_runs(tmp_path: Path) -> None:
    failed = load_event("left-alone.airflow-operator")
    placed = json.loads(json.dumps(failed))
    placed["detail"] |= {
        "eventID": "00000000-0000-0000-0000-000000000001",
        "responseElements": {"tasks": [{"taskArn": "x"}]},
    }
    (tmp_path / "a.json").write_text(log(failed, placed, call(1)))
    note = "1 lost run of callers that see failures (airflow): they may have started the task with"
    assert note in shown(tmp_path, "--offline")


def test_the_days_narrow_what_files_hold(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    recent, old = (call(n, moment=now - timedelta(days=n)) for n in (2, 20))
    (tmp_path / "a.json").write_text(log(recent, old))
    assert history(tmp_path, "--offline")[1]["records"] == 2
    assert history(tmp_path, "--offline", "--days", "7")[1]["records"] == 1
    assert " in 19 days; 2 would" in shown(tmp_path, "--offline")
    assert " in 7 days; 1 would" in shown(tmp_path, "--offline", "--days", "7")


@pytest.mark.parametrize("columns", [100, 60, 40])
def test_the_table_fits(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    group: dict[str, Any] = {"startedBy": "x", "group": "a\x1b[31m" + "long-name-" * 20}
    elsewhere = json.loads(json.dumps(call(2)).replace("eu-west-1", "ap-southeast-2"))
    hidden = load_event("not-replayable.hidden-environment")
    (tmp_path / "a.json").write_text(log(call(1, **group), elsewhere, hidden, call(3, placed=1)))
    out = shown(tmp_path, "--offline")
    assert max(map(len, out.splitlines())) <= columns
    assert "\x1b" not in out
    assert "\n123456789012, ap-southeast-2:\n" in out
    titles = ["job", "caller", "records", "failed", "partly", "rejected", "first", "last"]
    narrow = ["job", "failed", "partly", "last"]
    assert out.splitlines()[2].split() == (titles if columns == 100 else narrow)
    assert "nightly" in out


def test_reasons_verdicts_and_the_sentence_are_printed(tmp_path: Path) -> None:
    events = [load_event(n) for n in EVENT_NAMES if n.partition(".")[0] != "exhausted"]
    (tmp_path / "a.json").write_text(log(*events))
    out = shown(tmp_path, "--offline")
    assert "Capacity is unavailable at this time" in out
    assert "LEFT_ALONE: The stack leaves calls of airflow callers alone" in out
    assert re.search(r"\n1\d lost runs of callers that see failures \(airflow, batch, cli", out)
    assert re.search(r"\d+ runs of \d+ jobs never started in \d+ days?", " ".join(out.split()))


# How long it takes.


def test_the_benchmark_prints_a_ratio_of_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--megabytes", "2", "--runs", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["contents"]["records"] > 0
    assert result["ratio"] > 0
    assert 20 < result["memory_mb"] < 300
    assert bench.main(["--megabytes", "1", "--runs", "1"]) == 0
    assert re.search(r"\ngzip -dc +[0-9.]+ s\nhistory +[0-9.]+ s +x ", capsys.readouterr().out)
