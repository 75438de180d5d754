"""`history`: what was lost in an account, each run once, and what the stack would have done."""

import gzip
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.core.botocore_stubber import MockRawResponse
from moto.iam.access_control import IAMRequestBase

from account import generate
from account.history import main
from account.logs import events_in, read_log
from account.look_ups import TRIES
from account.runs import STACK, Runs
from account.summary import as_json, judge
from account.verdict import Verdict
from conftest import NOW, enforcing, looked_up, run_command
from rehearsal import EVENT_NAMES, EVENTS, load_definitions, load_event, policies, verdict_of
from rehearsal.cloudtrail import run_task_event
from rehearsal.records import held_in, moment_of, parse, read_moment
from rehearsal.template import Stack
from rehearsal.world import World

FARGATE = "launched.fargate-capacity-rule"
CAPACITY = "Capacity is unavailable at this time. Please try again later"


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
    number: int,
    *,
    count: int = 1,
    placed: int = 0,
    rule: str = "nightly",
    moment: datetime = NOW,
    error: tuple[str, str] | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """The event of a rule's call with this number."""
    tasks = [
        {"taskArn": f"arn:aws:ecs:eu-west-1:123456789012:task/jobs/{number}-{n}"}
        for n in range(placed)
    ]
    answer = {"tasks": tasks, "failures": [{"reason": CAPACITY}] * (count - placed)}
    return run_task_event(
        {
            "cluster": "jobs",
            "taskDefinition": "nightly:1",
            "count": count,
            "startedBy": f"events-rule/{rule}",
        }
        | parameters,
        None if error else answer,
        event_id=f"00000000-0000-0000-0000-{number:012}",
        moment=moment,
        region="eu-west-1",
        account="123456789012",
        role_arn="arn:aws:iam::123456789012:role/events",
        session="5d41402abc4b2a76b9719d911017c592",
        user_agent="events.amazonaws.com",
        invoked_by="events.amazonaws.com",
        error=error,
    )


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
            "reasons": {policies.CAPACITY: 1},
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
        gzip.compress(b'{"awsAccountId": "123456789012", "logFiles": []}')
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
        assert read_log(path) == events_in(held_in(parse(data)), str(path))


# Each run once.


def test_a_record_that_is_seen_twice_counts_once(tmp_path: Path) -> None:
    addendum = call(2)
    addendum["detail"]["addendum"] = {"originalEventID": call(1)["detail"]["eventID"]}
    (tmp_path / "a.json").write_text(log(call(1), call(1)))
    (tmp_path / "b.json").write_text(log(call(1), addendum))
    status, found, _ = history(tmp_path, tmp_path / "a.json", "--offline")
    assert (status, found["records"], found["failed"]) == (1, 1, 1)


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
    world.deliver = lambda each: (events.append(each), deliver(each))[1]  # type: ignore[method-assign]
    world.begin(event)
    world.run()
    return events


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
            made.events.register("before-call.cloudtrail.LookupEvents", trail.answer)
            made.events.register_first("before-send", trail.count)  # moto's would be the last
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
        # Which other operations AWS refuses, with which code, and how often.
        self.refused: dict[str, str] = {}
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
        if code is None or not self.times:
            return None
        self.times -= 1
        error: str = json.dumps({"__type": code, "message": "said AWS"})
        if "sts" in event_name:
            error = f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>"
        body = MockRawResponse(error.encode())
        return AWSResponse(request.url, 400, {"x-amzn-errortype": code}, body)


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
            "you are not allowed to call ListEventBuses: said AWS",
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


def test_a_throttled_look_up_is_tried_again_for_the_next_run() -> None:
    with account(copies(HIDDEN, 3), definitions_of(HIDDEN)) as trail:
        trail.refused, trail.times = {"ListEventBuses": "ThrottlingException"}, TRIES
        _, found, error = history()
    assert found["jobs"][0]["verdicts"] == {"RETRY": 2, "NOT_REPLAYABLE": 1}
    assert "was not looked up (AWS answered ThrottlingException)" in error


def test_what_was_changed_since_is_told_as_the_judgement_of_today() -> None:
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
