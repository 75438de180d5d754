"""The desk takes what people hold, says what it cannot take, and never shows a traceback."""

import copy
import gzip
import json
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import looked_up, run_command
from rehearsal import EVENT_NAMES, EVENTS, load_definitions, load_event
from rehearsal.cli import main
from rehearsal.records import BadInput, event_of, read_bytes, read_moment
from test_uncached import REHEARSE

FARGATE = "launched.fargate-capacity-rule"
DEFINITIONS = EVENTS / "definitions"


def run(*arguments: str, encoding: str = "utf-8", stdin: bytes = b"") -> tuple[int, str, str]:
    """What `rehearse` comes to."""
    return run_command(main, *arguments, encoding=encoding, stdin=stdin)


# What people hold.

EVENT = load_event(FARGATE)
RECORD = EVENT["detail"]
SUCCESS = load_event("unmatched.success")["detail"]
STOP_TASK = RECORD | {"eventName": "StopTask", "requestParameters": {"task": "1"}}


def data(held: Any, encoding: str = "utf-8") -> bytes:
    return json.dumps(held).encode(encoding)


ONE = {
    "an event": data(EVENT),
    "a record": data(RECORD),
    "lookup-events": data(looked_up(RECORD)),
    "lookup-events --query Events[0]": data(looked_up(RECORD)["Events"][0]),
    "lookup-events --query Events[0].CloudTrailEvent": data(json.dumps(RECORD)),
    "lookup-events --query Events[].CloudTrailEvent": data([json.dumps(RECORD)]),
    "a log file": data({"Records": [RECORD]}),
    "a compressed log file": gzip.compress(data({"Records": [RECORD]})),
    "a log file in two members": gzip.compress(b'{"Records": [')
    + gzip.compress(data(RECORD) + b"]}"),
    "arrays": data([[], [EVENT], {"Records": []}]),
    "with a BOM": data(RECORD, "utf-8-sig"),
    "PowerShell": data(RECORD, "utf-16"),
    "UTF-16 without a BOM": data(RECORD, "utf-16-be"),
}


@pytest.fixture(scope="module")
def plain() -> Any:
    """What the event comes to as it is."""
    status, out, _ = run(str(EVENTS / f"{FARGATE}.json"), "--json")
    assert status == 0
    return json.loads(out)


@pytest.mark.parametrize("held", ONE.values(), ids=ONE.keys())
def test_what_people_hold_is_rehearsed_as_the_event_itself(
    held: bytes, plain: Any, tmp_path: Path
) -> None:
    file = tmp_path / "held"
    file.write_bytes(held)
    status, out, error = run(str(file), "--json")
    assert (status, json.loads(out), error) == (0, plain, "")


def test_a_record_gets_the_envelope_that_eventbridge_gives_it() -> None:
    event = event_of(RECORD)
    assert {k: v for k, v in event.items() if k != "id"} == {
        k: v for k, v in EVENT.items() if k != "id"
    }
    assert event["id"] == RECORD["eventID"]


def test_a_time_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert read_moment("2026-11-23T00:00:04") == read_moment("2026-11-23T01:00:04+01:00")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_standard_input_is_taken(plain: Any) -> None:
    status, out, _ = run("-", "--json", stdin=data(RECORD))
    assert (status, json.loads(out)) == (0, plain)


SEVERAL = {"Records": [RECORD, SUCCESS, STOP_TASK, load_event("left-alone.cli")["detail"]]}


def test_each_failed_call_of_several_records_is_rehearsed_on_its_own(
    plain: Any, tmp_path: Path
) -> None:
    file = tmp_path / "log.json.gz"
    file.write_bytes(gzip.compress(data(SEVERAL)))
    status, out, error = run(str(file), "--json")
    result = json.loads(out)
    first, second = result.pop("rehearsals")
    assert (first, second["outcome"], error) == (plain, "LEFT_ALONE", "")
    verdicts = {"LAUNCHED": 1, "LEFT_ALONE": 1}
    assert (status, result) == (3, {"records": 4, "ignored": 2, "verdicts": verdicts})

    _, out, _ = run(str(file))
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["LAUNCHED", "LEFT_ALONE"]
    assert [line.split()[-1] for line in lines[:2]] == ["nightly-report", "backfill"]
    assert lines[2:] == [
        "",
        "4 records: 2 failed RunTask calls, 2 ignored.",
        "1 LAUNCHED, 1 LEFT_ALONE.",
    ]


# Nothing that may be a failed call is passed over in silence.
DOUBTFUL: list[tuple[Any, str]] = [
    ({"CloudTrailEvent": json.dumps(RECORD)[:-9]}, "text that is no JSON"),
    ({"EventName": "RunTask", "CloudTrailEvent": None}, "without its 'CloudTrailEvent'"),
    ({"e": json.dumps(RECORD)}, "not an event: its keys are 'e'"),
    ({"eventSource": "aws:sqs", "body": json.dumps(EVENT)}, "'eventSource', 'body'"),
    ({"detail-type": "x", "detail": {"requestPayload": EVENT}}, "in detail.requestPayload"),
    (RECORD | {"eventSource": None}, "CloudTrail's record of 'RunTask' of None"),
    ({k: v for k, v in EVENT.items() if k != "detail"}, "an event without 'detail'"),
    ("hello", "text that is no JSON: 'hello'"),
    (None, "not an event: null"),
]


@pytest.mark.parametrize(("record", "problem"), DOUBTFUL, ids=[said for _, said in DOUBTFUL])
def test_what_may_be_a_failed_call_is_not_ignored(
    record: Any, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "log.json"
    file.write_bytes(data([record, STOP_TASK, EVENT | {"detail-type": "x", "detail": {}}]))
    status, out, _ = run(str(file), "--json")
    result = json.loads(out)
    assert (status, result["ignored"], result["verdicts"]) == (2, 2, {"BAD_INPUT": 1})
    assert problem in result["rehearsals"][0]["problem"]


def test_the_record_may_have_been_parsed(plain: Any, tmp_path: Path) -> None:
    file = tmp_path / "parsed.json"
    file.write_bytes(data({"Events": [{"CloudTrailEvent": RECORD}]}))
    assert json.loads(run(str(file), "--json")[1]) == plain


def test_the_requests_of_several_records_can_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    file.write_bytes(data(SEVERAL))
    _, out, _ = run(str(file), "--json", "--show-request")
    first, second = json.loads(out)["rehearsals"]
    assert first["request"]["clientToken"] == f"{RECORD['eventID']}-3"
    assert "request" not in second
    _, out, _ = run(str(file), "--show-request")
    assert json.dumps(first["request"], indent=2) in out


@pytest.mark.parametrize(
    ("names", "worst"),
    [
        (["launched.pipes", "launched.sleeper"], 0),
        (["launched.pipes", "left-alone.cli"], 3),
        (["left-alone.cli", "exhausted.last-attempt"], 1),
        (["exhausted.last-attempt", "bad"], 2),
        (["unmatched.success", "unmatched.throttled"], 0),
    ],
)
def test_the_exit_status_is_the_worst(names: list[str], worst: int, tmp_path: Path) -> None:
    bad = RECORD | {"recipientAccountId": None}
    records = [bad if name == "bad" else load_event(name)["detail"] for name in names]
    file = tmp_path / "log.json"
    file.write_bytes(data({"Records": records}))
    status, out, _ = run(str(file), "--json")
    assert status == worst
    result = json.loads(out)
    assert result["records"] == 2 == result["ignored"] + len(result["rehearsals"])
    if worst == 2:
        assert result["verdicts"] == {"EXHAUSTED": 1, "BAD_INPUT": 1}
        assert "'recipientAccountId'" in result["rehearsals"][1]["problem"]


OTHERS = {
    "CloudTrail's record of 'StopTask' of 'ecs.amazonaws.com'": STOP_TASK,
    "an event 'ECS Task State Change' of 'aws.ecs'": EVENT
    | {"detail-type": "ECS Task State Change"},
    "which holds the failed call in detail.requestPayload": {
        "detail-type": "Lambda Function Invocation Result - Success",
        "detail": {"requestPayload": EVENT},
    },
    "RunTask's answer, without the call": {"tasks": [], "failures": [{"reason": "x"}]},
    "not an event: its keys are 'Type', 'Message'": {"Type": "Notification", "Message": "x"},
    "not an event: its keys are none": {},
    "not an event: 7": [7],
    "'account' is '12', not the 12 digits": EVENT | {"account": "12"},
    "'region' is missing": {k: v for k, v in EVENT.items() if k != "region"},
    "without 'awsRegion'": {k: v for k, v in RECORD.items() if k != "awsRegion"},
    "'region' is 'mars-east-1', which is no Region of AWS": EVENT | {"region": "mars-east-1"},
    "'time' is no time": EVENT | {"time": "soon"},
    "'time' is not between 2000 and 2100": EVENT | {"time": "0001-01-01T00:00:00Z"},
    "holds no event and no record": {"Records": []},
    "text that is no JSON: '{": json.dumps(EVENT)[:-1],
    "an event 'RunTask' without its 'CloudTrailEvent'": {
        "Events": [{"EventName": "RunTask", "CloudTrailEvent": None}]
    },
    "an event without 'detail'": {k: v for k, v in EVENT.items() if k != "detail"},
}


@pytest.mark.parametrize(("sentence", "held"), OTHERS.items(), ids=OTHERS.keys())
def test_other_things_are_refused_with_a_sentence_that_says_what_they_are(
    sentence: str, held: Any, tmp_path: Path
) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(data(held))
    status, out, error = run(str(file))
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"rehearse: {file}: ")
    assert sentence in error


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{]", "not JSON"),
        (b"\xff\xfe\xd8", "not JSON in UTF-8 or UTF-16"),
        ('{"x": "é"}'.encode("latin-1"), "not JSON in UTF-8 or UTF-16"),
        ("\ufeff".encode("utf-16"), "empty"),
        (b'{"x": 1}\n{"x": 2}', "several JSON documents: put them into an array"),
        (b"[" * 99999, "not JSON"),
        (b'{"detail": NaN}', "NaN is no number"),
        (gzip.compress(data(EVENT))[:-9], "compressed data is damaged"),
        (b"\x1f\x8bnot gzip", "compressed data is damaged"),
        (b" " * (64 * 2**20 + 1), "more than 64 MB"),
        (gzip.compress(b" " * (64 * 2**20 + 1)), "more than 64 MB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unreadable_files_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "unreadable"
    file.write_bytes(content)
    status, _, error = run(str(file))
    assert (status, error.count("\n")) == (2, 1)
    assert sentence in error


def test_no_more_than_the_limit_is_ever_decompressed(tmp_path: Path) -> None:
    """A gigabyte in a megabyte: the time to decompress it all would be seconds, the memory all."""
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(bytes(2**20)) * 1024)
    tracemalloc.start()
    with pytest.raises(BadInput, match="more than 64 MB"):
        read_bytes(file)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200 * 2**20


# Options.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--failures", "0"), "argument --failures: '0' is not a whole number from 1 to 999999"),
        (("--outage", "soon"), "argument --outage: 'soon' is not a time like 90s, 25m or 1h15m"),
        (("--outage", ""), "argument --outage: '' is not a time like 90s, 25m or 1h15m"),
        (("--parameter", "MaxAttempts"), "argument --parameter: 'MaxAttempts' is not NAME=VALUE"),
        (("--parameter", "=1"), "argument --parameter: '=1' is not NAME=VALUE"),
        (("--parameter", "MaxAttempts=0"), "--parameter: MaxAttempts is '0', not a number from 1"),
        (("--parameter", "Max=1"), "--parameter: Max is none of MaxAttempts, "),
        (("--parameter=MaxAttempts=1",) * 2, "--parameter MaxAttempts is given twice"),
        (("-", "--definitions", "-"), "--definitions: standard input can be taken once"),
        (("--definitions", "/none"), "/none: No such file or directory"),
        (("--reason", ""), "argument --reason: it is empty"),
        (("--definitions", ""), "argument --definitions: it is empty"),
        (("--definitions", "x="), "--definitions x=: names no file"),
        (("--colour",), "unrecognized arguments: --colour"),
        (("--policy", "dagster"), "--policy goes with --storm only"),
        (("--storm", "3", "--policy", "x"), "argument --policy: invalid choice: 'x'"),
        (("--storm", "3", "--then-replay"), "--then-replay does not go with --storm"),
        (("--storm", "3", "--duplicates"), "--duplicates does not go with --storm"),
        (("--storm", "3", "--failures", "2"), "--failures does not go with --storm"),
        (("--storm", "3", "--show-request"), "--show-request does not go with --storm"),
        (("--then-replay", "--failures", "2"), "--then-replay: no job was lost"),
    ],
)
def test_bad_options_are_refused_by_name(arguments: tuple[str, ...], said: str) -> None:
    status, out, error = run(*arguments)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"rehearse: {said}")


@pytest.mark.parametrize("option", ["--then-replay", "--storm=3"])
def test_some_options_take_one_failed_call(option: str, tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    file.write_bytes(data(SEVERAL))
    status, _, error = run(str(file), option)
    assert status == 2
    name = option.partition("=")[0]
    assert error == f"rehearse: {file}: {name} takes one failed call, and this holds 4 records\n"


@pytest.mark.parametrize(
    "room", ["rehearsal.cli", "account.history", "account.check", "account.drill"]
)
def test_help_takes_no_time(room: str) -> None:
    """What takes seconds to import is imported by what plays the command alone."""
    script = f"import sys; sys.argv = ['x', '--help']\nfrom {room} import main\n"
    script += "try: main()\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    shown, _, modules = done.stdout.rstrip().rpartition("\n")
    slow = {"boto3", "botocore", "moto", "ministack", "rich", "time_machine", "samtranslator"}
    assert not slow & set(modules.split())
    assert max(map(len, shown.splitlines())) <= 100
    assert "exit status" in shown


# It reads well.


@pytest.mark.parametrize("columns", ["", "77", "160", "40"])
def test_nothing_is_wider_than_the_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("COLUMNS")  # without it and without a terminal, it is 100
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    file = tmp_path / "log.json"
    file.write_bytes(data(SEVERAL))
    timelines = [(str(EVENTS / f"{name}.json"),) for name in EVENT_NAMES[::8]]
    for arguments in (*timelines, (str(file),), ("--storm", "2", "--policy", "all")):
        _, out, _ = run(*arguments)
        # ARNs and commands stay whole, to be copied.
        shown = re.split("\n  arn:|\nThe message, as it arrives", out)[0]
        assert "…" not in shown or columns == "40"  # figures and names stay whole, too
        assert max(map(len, shown.splitlines())) <= int(columns or 100)


def test_what_would_steer_a_terminal_is_shown_and_not_sent(tmp_path: Path) -> None:
    event = load_event(FARGATE)
    reason = "\x1b]0;owned\x07 \u202e"
    event["detail"]["responseElements"]["failures"] = [{"reason": reason}]
    file = tmp_path / "event.json"
    file.write_bytes(data(event))
    _, out, _ = run(str(file))
    assert r"\x1b]0;owned\x07 \u202e" in " ".join(out.split())
    assert out.isascii()


def test_one_is_not_many() -> None:
    _, out, _ = run(str(EVENTS / "left-alone.cli.json"))
    assert out.endswith("\nLEFT_ALONE after 0:01:30: 1 RunTask call, 0 tasks run\n")
    _, out, _ = run(str(EVENTS / f"{FARGATE}.json"), "--parameter", "MaxAttempts=1")
    assert "The budget of 1 attempt is used up." in out
    assert "2 RunTask calls, 0 tasks run" in out
    _, out, _ = run("--storm", "1", "--outage", "1m")
    assert out.startswith("1 job fails; capacity is missing for 0:01:00.\n")


def test_a_terminal_that_knows_no_blocks_gets_other_bars() -> None:
    _, out, _ = run("--storm", "2", encoding="ascii")
    assert "@@@@" in out
    assert "^ capacity is back" in out


FULL = b"rehearse: standard output: No space left on device\n"
CLOSED = b"rehearse: standard input: closed\n"


@pytest.mark.parametrize(
    ("shell", "status", "said"),
    [
        ("| true", 2, b""),
        (">/dev/full", 2, FULL),
        (">&-", 3, b""),
        ("2>&- >&-", 3, b""),
        ("<&-", 2, CLOSED),
    ],
)
def test_streams_that_are_closed_or_full_are_no_traceback(
    shell: str, status: int, said: bytes
) -> None:
    script = f"set -o pipefail; {sys.executable} -c '{REHEARSE}' - {shell}"
    done = subprocess.run(  # noqa: S603
        ["bash", "-c", script],  # noqa: S607
        input=data(load_event("left-alone.cli")),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, said)


def test_an_interrupt_is_no_traceback() -> None:
    with mock.patch("rehearsal.cli.isolate", side_effect=KeyboardInterrupt):
        assert run() == (2, "", "rehearse: interrupted\n")


# Definitions.

RULE = "launched.hidden-environment-rule"
SCHEDULE = "launched.hidden-environment-schedule"


@pytest.fixture
def exported(tmp_path: Path) -> dict[str, Path]:
    """What the AWS CLI prints of a rule's targets and of a schedule, and other files."""
    (rule,) = load_definitions(RULE)["Rules"]
    (schedule,) = load_definitions(SCHEDULE)["Schedules"]
    dates = {
        "CreationDate": "2026-01-01T01:00:00.123000+01:00",
        "LastModificationDate": "2026-11-22T01:00:00.123000+01:00",
    }
    contents = {
        "targets": {"Targets": rule["Targets"]},
        "schedule": schedule | dates | {"Arn": "arn:aws:scheduler:eu-west-1:123456789012:x"},
        "version 1": schedule | {"CreationDate": 1767225600.123},
        "changed since": schedule | dates | {"LastModificationDate": "2026-11-23T01:00:05+01:00"},
        "made since": schedule | {"CreationDate": "2026-11-23T00:00:05Z"},
        "no date": schedule | {"CreationDate": "soon"},
        "of AWS's youth": schedule | {"CreationDate": 0},
        "schedule of nothing": {k: v for k, v in schedule.items() if k != "Name"},
        "twice": {"Schedules": [schedule, schedule]},
        "other": {"Name": "x"},
        "list": [schedule],
        "more": {"Targets": rule["Targets"], "NextToken": "x"},
        "described": {**rule, "Arn": "arn:x", "State": "ENABLED", "CreatedBy": "123456789012"},
        "queried": rule["Targets"],
        "without targets": {"Name": "nightly-report", "Targets": []},
        "nowhere": schedule | {"GroupName": "a b/c"},
        "endless": schedule | {"Name": "x" * 65},
        "no text": schedule | {"Name": "\ud800"},
        "no groups": load_definitions(SCHEDULE),
    }
    configuration = contents["no groups"]["Schedules"][0]["Target"]["EcsParameters"]
    configuration["NetworkConfiguration"]["awsvpcConfiguration"]["Subnets"] = []
    for name, content in contents.items():
        encoding = "utf-8" if name == "no text" else "utf-16"
        (tmp_path / name).write_bytes(data(content, encoding))
    return {name: tmp_path / name for name in contents}


def with_definitions(event: str, *given: str) -> tuple[int, str, str]:
    options = [word for text in given for word in ("--definitions", text)]
    status, out, error = run(str(EVENTS / f"{event}.json"), *options)
    return status, " ".join(out.split()), error


def test_definitions_are_taken_as_the_aws_cli_prints_them(exported: dict[str, Path]) -> None:
    name = load_definitions(RULE)["Rules"][0]["Name"]
    targets = f"{name}={exported['targets']}"
    assert with_definitions(RULE, targets)[0] == 0
    odd = exported["targets"].rename(exported["targets"].with_name("a=b.json"))
    assert with_definitions(RULE, f"{name}={odd}")[0] == 0
    odd.rename(exported["targets"])
    assert with_definitions(RULE, f"other={exported['targets']}")[0] == 1
    assert with_definitions(RULE, str(exported["described"]))[0] == 0
    assert with_definitions(RULE, f"{name}={exported['queried']}")[0] == 0
    assert with_definitions(RULE, str(exported["without targets"]))[0] == 1
    assert with_definitions(SCHEDULE, str(exported["schedule"]))[0] == 0
    assert with_definitions(SCHEDULE, str(exported["version 1"]))[0] == 0
    for event in (RULE, SCHEDULE):
        assert with_definitions(event, targets, str(exported["schedule"]))[0] == 0
    status, out, _ = with_definitions(RULE, f"jobs/{targets}")
    assert status == 0
    assert f"Environment recovered from the rule {name} on the bus jobs: " in out


@pytest.mark.parametrize("name", ["changed since", "made since"])
def test_a_schedule_that_was_changed_since_the_call_proves_nothing(
    name: str, exported: dict[str, Path]
) -> None:
    status, out, _ = with_definitions(SCHEDULE, str(exported[name]))
    assert status == 1
    assert "NOT_REPLAYABLE" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("targets", "the targets of which rule? Give NAME=FILE, or BUS/NAME=FILE"),
        ("no date", "Schedules[0].CreationDate is no date"),
        ("of AWS's youth", "Schedules[0].CreationDate is not between 2000 and 2100"),
        ("schedule of nothing", "Schedules[0].Name is missing"),
        ("other", "not a rule or schedule: give what `aws scheduler get-schedule` prints"),
        ("list", "not a rule or schedule: give what `aws scheduler get-schedule` prints"),
        ("queried", "not a rule or schedule: give what `aws scheduler get-schedule` prints"),
        ("more", "not all targets of the rule: leave out --limit and --max-items"),
        ("nowhere", "Schedules[0].GroupName is no name that AWS takes: 'a b/c'"),
        ("no text", "Schedules[0].Name is no name that AWS takes: '\\ud800'"),
        ("endless", "Schedules[0].Name is no name that AWS takes: 'xxx"),
    ],
)
def test_other_definitions_are_refused(name: str, said: str, exported: dict[str, Path]) -> None:
    status, _, error = with_definitions(SCHEDULE, str(exported[name]))
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith(f"rehearse: {exported[name]}: {said}")


@pytest.mark.parametrize("name", ["nightly report", "/x", "x/", "arn:aws:events:::rule/x"])
def test_what_is_no_name_of_a_rule_is_refused(name: str, exported: dict[str, Path]) -> None:
    status, _, error = with_definitions(RULE, f"{name}={exported['targets']}")
    assert status == 2
    said = "is no name of a rule: give NAME=FILE, or BUS/NAME=FILE"
    assert error == f"rehearse: {exported['targets']}: {name!r} {said}\n"


@pytest.mark.parametrize(("name", "i"), [("twice", 1), ("no groups", 0)])
def test_what_cannot_be_made_is_refused_and_leaves_no_mock_behind(
    name: str, i: int, exported: dict[str, Path]
) -> None:
    before = boto3.DEFAULT_SESSION, time.sleep
    status, _, error = with_definitions(SCHEDULE, str(exported[name]))
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith(f"rehearse: definitions: Schedules[{i}] is refused: ")
    assert (boto3.DEFAULT_SESSION, time.sleep) == before
    assert with_definitions(SCHEDULE, str(exported["schedule"]))[0] == 0


# Never a traceback.

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, -1, 11, 10**9, 10**30, 0.5, 1e300]),
    st.sampled_from(["", "x", "1", "\ud800", "\x1b[2J\n", "*", "HIDDEN_DUE_TO_SECURITY_REASONS"]),
    st.sampled_from(["FARGATE", "EC2", "EXTERNAL", "us-gov-west-1", "cn-north-1", "mars-east-1"]),
    st.sampled_from(
        ["eusc-de-east-1", "eu-south-9", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"]
    ),
    st.sampled_from(
        ["arn:aws:ecs:eu-west-1:123456789012:task-definition/x:y", "x/y:z:1", ":", "/"]
    ),
    st.text(max_size=40),
    st.sampled_from([[], {}, [None], [[]], [{}], {"key": "value"}, [1, "x", {}]]),
)
OPTIONS = st.sampled_from(
    [(), ("--json",), ("--storm", "3"), ("--then-replay",), ("--duplicates", "--show-request")]
)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """All members of a tree, each as what holds it and its key or index."""
    for key, member in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(member, dict | list):
            yield from places(member)


@st.composite
def mangled(draw: st.DrawFn, whole: Any) -> Any:
    """The tree with some of its members replaced, renamed, or gone."""
    tree = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(tree))
        if not found:
            break
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["replace", "replace", "drop", "rename", "move"])):
            case "replace":
                holder[key] = copy.deepcopy(draw(JUNK))
            case "drop":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.text(max_size=9))] = holder.pop(key)
            case _:
                other, place = found[draw(st.integers(0, len(found) - 1))]
                holder[key] = copy.deepcopy(other[place])
    return tree


def assert_no_traceback(arguments: list[str], encoding: str) -> None:
    status, _, error = run(*arguments, encoding=encoding)
    assert status in (0, 1, 2, 3)
    assert error.count("\n") == (status == 2)
    assert "usage:" not in error


@pytest.mark.parametrize("name", EVENT_NAMES)
@given(drawn=st.data(), options=OPTIONS, encoding=st.sampled_from(["utf-8", "ascii"]))
@settings(max_examples=3)
def test_whatever_is_in_the_file_there_is_no_traceback(
    name: str, drawn: st.DataObject, options: tuple[str, ...], encoding: str, tmp_path: Path
) -> None:
    event = load_event(name)
    # Half of the time, the envelope stays: what is inside is for the function to judge.
    if drawn.draw(st.booleans()):
        event["detail"] = drawn.draw(mangled(event["detail"]))
    else:
        event = drawn.draw(mangled(event))
    file = tmp_path / "event.json"
    file.write_text(json.dumps(event))
    assert_no_traceback([str(file), *options], encoding)


@pytest.mark.parametrize("name", sorted(path.stem for path in DEFINITIONS.glob("*.json")))
@given(drawn=st.data(), options=st.sampled_from([(), ("--storm", "2")]))
@settings(max_examples=3)
def test_whatever_is_in_the_definitions_there_is_no_traceback(
    name: str, drawn: st.DataObject, options: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "definitions.json"
    file.write_text(json.dumps(drawn.draw(mangled(load_definitions(name)))))
    event = str(EVENTS / f"{name}.json")
    assert_no_traceback([event, "--definitions", str(file), *options], "utf-8")
