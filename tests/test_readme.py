"""The README is true: its commands, its output, its tables, and the tests that it names."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import sqlglot
from botocore import xform_name

from account import check, checkup, drill, fire_drill, history  # with annotations
from account.runs import attempt_of, call_of
from conftest import DUE_NOW, NOW, run_command
from deployed_account import UserAccount, user_account
from rehearsal import EVENT_NAMES, EVENTS, ROOT, load_definitions, load_event
from rehearsal.cli import main
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task.caller import GROUPS, RULE_PREFIX, SCHEDULE_PREFIX
from retry_run_task.outcome import Outcome
from retry_run_task.recover import MOST_READ
from retry_run_task.source import LONGEST_STARTED_BY

assert checkup
assert fire_drill

README = (ROOT / "README.md").read_text("utf-8")
FARGATE = "events/launched.fargate-capacity-rule.json"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def table(heading: str) -> list[list[str]]:
    """The rows of a section's last table, cell by cell."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ?(.*?) ?\|$", section, re.MULTILINE)
    return [row.split(" | ") for row in rows]


def test_the_first_command_prints_what_the_readme_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"pip install uv && uv run rehearse {FARGATE}\n" in blocks("sh")
    monkeypatch.chdir(ROOT)
    assert main([FARGATE]) == 0
    assert capsys.readouterr().out in blocks("text")


def test_a_lost_job_comes_back_as_the_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--then-replay", "--parameter", "MaxAttempts=2"]
    assert f"uv run rehearse {FARGATE} {' '.join(options)}\n" in blocks("sh")
    assert main([str(ROOT / FARGATE), *options]) == 0
    assert capsys.readouterr().out in blocks("text")


def test_the_loop_puts_everything_in_the_dead_letter_queue_back(tmp_path: Path) -> None:
    """With an `aws` that keeps a queue in a file, and writes down what it invokes."""
    (loop,) = (block for block in blocks("sh") if "receive-message" in block)
    some = EVENT_NAMES[::6]  # three processes each
    bodies = [json.dumps(load_event(name)) for name in some] + ['{"x": "\\t$(touch y) \\" \'"}']
    (tmp_path / "queue").write_text(json.dumps(bodies))
    aws = tmp_path / "aws"
    aws.write_text(f"#!{sys.executable}\n{FAKE_AWS}")
    aws.chmod(0o755)
    script = f"output() {{ echo the-$1; }}\n{loop}"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HERE": str(tmp_path)}
    subprocess.run(["bash", "-ec", script], env=environment, cwd=tmp_path, check=True)  # noqa: S603, S607
    assert json.loads((tmp_path / "queue").read_text()) == []
    assert json.loads((tmp_path / "invoked").read_text()) == bodies
    assert not (tmp_path / "y").exists()


FAKE_AWS = """
import json, os, pathlib, sys
words = sys.argv[1:]
options = dict(zip(words[2::2], words[3::2]))
queue, invoked = (pathlib.Path(os.environ["HERE"], name) for name in ("queue", "invoked"))
messages = json.loads(queue.read_text())
if words[:2] == ["sqs", "receive-message"]:
    assert options["--queue-url"] == "the-DeadLetterQueueUrl"
    print(f"handle-of-{messages[0]}"[:20] + "\\t" + messages[0] if messages else "None")
elif words[:2] == ["lambda", "invoke"]:
    assert options["--function-name"] == "the-FunctionName"
    assert options["--invocation-type"] == "Event"
    done = json.loads(invoked.read_text()) if invoked.exists() else []
    invoked.write_text(json.dumps(done + [sys.stdin.read()]))
elif words[:2] == ["sqs", "delete-message"]:
    assert options["--receipt-handle"] == f"handle-of-{messages[0]}"[:20]
    queue.write_text(json.dumps(messages[1:]))
"""


def test_the_commands_name_outputs_that_the_stack_has(stack: Stack) -> None:
    named = re.findall(r"output ([A-Z]\w+)", "".join(blocks("sh"))) + re.findall(
        r"the (?:stack's )?output `(\w+)`", README
    )
    assert {"StartReplayCommand", "DeadLetterQueueUrl", "FunctionName"} <= set(named)
    assert set(named) <= stack.outputs.keys()


def test_the_storm_goes_as_the_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert "uv run rehearse --storm 1000 --policy all\n" in blocks("sh")
    main(["--storm", "1000", "--policy", "all"])
    assert capsys.readouterr().out in blocks("text")


def test_the_rehearsals_of_alerts_show_a_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    section = README.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^uv run rehearse (.*)$", section, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert main(shlex.split(command)) == 1
        shown = capsys.readouterr().out
        assert "The message, as it arrives by mail:\n\nSubject: [retry-run-task] " in shown
        assert ("And at https subscribers" in shown) is ("CHAT" in command)


def test_the_history_looks_as_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = re.findall(r"^uv run history (--offline .*)$", README, re.MULTILINE)
    monkeypatch.chdir(ROOT)
    assert history.main(shlex.split(command)) == 1
    assert capsys.readouterr().out in blocks("text")


# Columns of the table that Athena's documentation has for CloudTrail ("Query AWS CloudTrail logs").
ATHENAS_COLUMNS = {
    "eventversion", "useridentity", "eventtime", "eventsource", "eventname", "awsregion",
    "sourceipaddress", "useragent", "errorcode", "errormessage", "requestparameters",
    "responseelements", "additionaleventdata", "requestid", "eventid", "readonly", "resources",
    "eventtype", "apiversion", "recipientaccountid", "serviceeventdetails", "sharedeventid",
    "vpcendpointid", "vpcendpointaccountid", "eventcategory", "addendum",
    "sessioncredentialfromconsole", "edgedevicedetails", "tlsdetails",
}  # fmt: skip


def test_athenas_query_finds_what_the_history_finds(tmp_path: Path) -> None:
    """It is run as well, in the SQL of SQLite, over the records of all event files."""
    (query,) = blocks("sql")
    parsed = sqlglot.parse_one(query, dialect="athena")
    columns = {column.name for column in parsed.find_all(sqlglot.exp.Column)}
    aliases = {alias.alias for alias in parsed.find_all(sqlglot.exp.Alias)}
    assert columns - aliases <= ATHENAS_COLUMNS
    events = [load_event(name) for name in EVENT_NAMES]
    # It counts attempts as well, which the history does not.
    records = [event["detail"] for event in events if attempt_of(call_of(event))[0] == 0]
    (tmp_path / "log.json").write_text(json.dumps({"Records": records * 2}))
    _, out, _ = run_command(history.main, str(tmp_path), "--offline", "--json")
    known = ("recipientAccountId", "awsRegion", "eventSource", "eventName", "eventTime", "eventID")
    rows = [
        [*(record[name] for name in known), record.get("errorCode"), *as_text(record)]
        for record in records * 2
    ]
    with closing(sqlite3.connect(":memory:")) as database:
        database.create_function("regexp_extract", 3, extracted)
        database.create_function("regexp_replace", 3, lambda t, p, r: t and re.sub(p, r, t))
        names = (*map(str.lower, known), "errorcode", "requestparameters", "responseelements")
        database.execute(f"CREATE TABLE cloudtrail_logs ({', '.join(names)})")
        insert = "INSERT INTO cloudtrail_logs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        database.executemany(insert, rows)
        found = database.execute(parsed.sql("sqlite")).fetchall()
    lost = Counter[str]()
    for job in json.loads(out)["jobs"]:
        lost[job["job"]] += job["failed"] + job["partly_placed"]
    by_query = Counter[str]()
    for _, _, job, count, first, last in found:
        by_query[job] += count
        assert first <= last
    assert by_query == +lost


def as_text(record: Mapping[str, Any]) -> list[str | None]:
    """Athena's table holds these members as text."""
    members = (record.get(name) for name in ("requestParameters", "responseElements"))
    return [None if member is None else json.dumps(member) for member in members]


def extracted(text: str | None, pattern: str, group: int) -> str | None:
    """Athena's regexp_extract."""
    match = None if text is None else re.search(pattern, text)
    return match and match[group]


# Of the AWS CLI itself: global options, and commands that are no operation of an API.
CLI_OPTIONS = {"query", "output", "region", "profile", "cli-binary-format", "cli-input-json"}
CLI_COMMANDS = {("logs", "tail"), ("s3", "sync"), ("sso", "login"), ("configure", "list-profiles")}


def cli_commands() -> list[str]:
    texts = [path.read_text("utf-8") for path in (ROOT / "README.md", EVENTS / "README.md")]
    texts += [
        run_command(command, "--help")[1]
        for command in (main, history.main, check.main, drill.main)
    ]
    text = "\n".join(texts).replace("\\\n", " ")
    return sorted(set(re.findall(r"\baws [a-z0-9]+ [a-z-]+[a-z](?!-)\b[^\n`|]*", text)))


@pytest.mark.parametrize("command", cli_commands())
def test_the_aws_cli_has_the_command(command: str) -> None:
    service, operation = command.split()[1:3]
    options = set(re.findall(r" --([a-z-]+)", command)) - CLI_OPTIONS
    if (service, operation) in CLI_COMMANDS:
        return
    model = botocore.session.get_session().get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    shape = model.operation_model(names[operation]).input_shape
    members = {xform_name(name, "-") for name in shape.members} if shape else set()
    assert options <= members


def test_the_aws_cli_commands_are_found() -> None:
    assert len(cli_commands()) > 12


def test_the_second_command_runs_the_tests() -> None:
    assert "pip install uv && uv run pytest\n" in blocks("sh")


def test_the_shown_options_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rule,) = load_definitions("launched.hidden-environment-rule")["Rules"]
    (schedule,) = load_definitions("launched.hidden-environment-schedule")["Schedules"]
    (tmp_path / "targets.json").write_text(json.dumps({"Targets": rule["Targets"]}))
    (tmp_path / "schedule.json").write_text(json.dumps(schedule))
    monkeypatch.chdir(tmp_path)
    section = README.partition("\n## See it on your desk\n")[2].partition("\n## ")[0]
    options = re.findall(r"`(--[a-z-]+(?: [^`]+)?)`", section)
    assert len(options) >= 10
    for option in options:
        assert main([str(ROOT / FARGATE), *shlex.split(option)]) == 0
    assert capsys.readouterr().err == ""


def test_ci_runs_the_two_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert f"\npip install --quiet uv\nuv run rehearse {FARGATE}\n" in script
    assert "\nuv run pytest\n" in script


@contextmanager
def readers_account() -> Iterator[UserAccount]:
    """An account like a reader's: one job that is retried, and two that are not yet."""
    definitions = load_definitions("launched.hidden-environment-rule")
    for kind, name in (
        ("Rules", "not-replayable.dynamic-environment"),
        ("Schedules", "launched.hidden-environment-schedule"),
    ):
        (other,) = load_definitions(name)[kind]
        definitions[kind].append(other)
    definitions["Rules"][1]["Name"] = "on-upload"
    definitions["Schedules"][0] |= {"Name": "monthly-invoice", "GroupName": "default"}
    target = definitions["Schedules"][0]["Target"]
    target["EcsParameters"]["Tags"] = [{"Key": "team", "Value": "finance"}]
    with user_account(definitions=definitions) as account:
        for task in ("nightly-report:42", "copy:31"):
            account.define_task(task)
        may_tag = {"Effect": "Allow", "Action": "ecs:TagResource", "Resource": "*"}
        for role in ("nightly-report-events", "nightly-report-scheduler"):
            account.allow(role, [may_tag])
        yield account


def test_a_check_prints_what_the_readme_shows() -> None:
    assert "uv run check\n" in blocks("sh")
    with readers_account():
        status, out, error = run_command(check.main)
    assert (status, error) == (1, "")
    assert out in blocks("text")


def test_a_drill_prints_what_the_readme_shows() -> None:
    command = "uv run drill nightly-report --stop"
    assert f"{command}\n" in blocks("sh")
    with readers_account():
        status, out, error = run_command(drill.main, *command.split()[3:], "--yes")
    assert (status, error) == (0, "")
    assert out in blocks("text")


def test_the_probe_takes_what_the_readme_says() -> None:
    assert "uv run drill --probe CLUSTER TASK_DEFINITION\n" in blocks("sh")
    status, _, error = run_command(drill.main, "--probe", "CLUSTER")
    assert (status, "argument --probe: expected 2 arguments" in error) == (2, True)


def test_the_outcome_looks_as_shown() -> None:
    with World(Stack(), NOW) as world:
        outcome = world.call_handler(load_event("launched.second-attempt") | DUE_NOW)
    assert json.loads(blocks("json")[-1]) == outcome


def test_every_outcome_is_explained() -> None:
    assert [row[0] for row in table("What comes of it")[2:]] == [f"`{name}`" for name in OUTCOMES]


OUTCOMES = [outcome.value for outcome in Outcome]


def test_every_kind_of_caller_is_listed_with_its_verdict() -> None:
    rows = [row for row in table("Whose calls") if len(row) == 4][1:]
    listed = {name: row[3] for row in rows for name in re.findall(r"`([a-z-]+)`", row[1])}
    verdicts = {"SCHEDULED": "retries", "ATTENDED": "leaves alone"}
    assert listed == {name: verdicts[group] for name, group in GROUPS.items()}


def test_every_parameter_is_listed_with_its_default_and_description(stack: Stack) -> None:
    assert table("Parameters")[2:] == [
        [
            f"`{name}`",
            f"`{spec['Default']}`" if spec["Default"] != "" else "none",
            spec["Description"],
        ]
        for name, spec in stack.source["Parameters"].items()
    ]


def test_every_parameter_has_bounds_and_a_place_in_the_console(stack: Stack) -> None:
    metadata = stack.source["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in metadata["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(stack.source["Parameters"])
    for spec in stack.source["Parameters"].values():
        assert {"AllowedValues", "AllowedPattern", "MaxValue"} & spec.keys()


def test_the_tests_that_hold_the_safeguards_exist() -> None:
    rows = table("Safeguards")[2:]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6", "7"]
    assert all("::" in held_by for _, _, held_by in rows)
    for module, test in re.findall(r"`(\w+)::(\w+)`", README):
        source = (ROOT / "tests" / f"{module}.py").read_text("utf-8")
        assert f"def {test}(" in source, f"{module}::{test}"


def test_the_linked_files_exist() -> None:
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", README):
        path, _, anchor = target.partition("#")
        assert (ROOT / path).exists(), target
        assert not anchor or anchor in anchors, target


def test_the_lengths_of_cut_names_are_those_of_the_code() -> None:
    rule, schedule = (LONGEST_STARTED_BY - len(p) for p in (RULE_PREFIX, SCHEDULE_PREFIX))
    assert f"the same first {schedule} characters, and any name" in README
    assert f"the same first {rule} characters. Give" in README
    assert f"name such schedules with at most {schedule} characters" in README
    assert f"up to {MOST_READ:,}: such a call" in README
    assert f"more than {MOST_READ:,} schedules" in README
