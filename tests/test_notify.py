"""The message at night: which job, what happened, and what helps; one for forty jobs."""

import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest import mock

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.model import StructureShape
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st

from conftest import NOW, enforcing
from notify import handler as notify
from notify import remedy
from notify.letter import (
    DEAD_LETTERS,
    LONGEST_STARTED_BY,
    MAY_RUN,
    PREFIXES,
    RULES,
    Kind,
    Letter,
    line,
    read_letter,
)
from notify.message import LONGEST_DESCRIPTION, MOST_BYTES, MOST_LISTED, compose
from notify.settings import Settings
from rehearsal import EVENT_NAMES, ROOT, iam, load_event
from rehearsal.bus import message_of, result_of
from rehearsal.iam import as_list
from rehearsal.lost_jobs import READERS, LostJobs, Message, NotAllowed, arrived
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task import decision, source
from retry_run_task.caller import OURS, RULE_PREFIX, SCHEDULE_PREFIX, job_of
from retry_run_task.failed_call import NotAFailedCall, read_failed_call
from retry_run_task.outcome import Outcome

FARGATE = "launched.fargate-capacity-rule"
CAPACITY = "Capacity is unavailable at this time. Please try again later"
HOME = "arn:aws:ecs:eu-west-1:123456789012"
STACK = Stack()


def settings(**parameters: str) -> Settings:
    stack = Stack(parameters)
    return Settings.read(stack.environment_of("Notify"), stack.attribute("Notify", "Arn"))


def outcome(number: int = 1, **members: Any) -> dict[str, Any]:
    """A dead letter of the retrying function."""
    return {
        "outcome": "EXHAUSTED",
        "time": "2026-11-23T00:06:04Z",
        "job": "nightly-report",
        "startedBy": "events-rule/nightly-report",
        "caller": {"kind": "retry-run-task", "role": None},
        "event": f"event-{number}",
        "origin": f"origin-{number}",
        "attempt": "10/10",
        "since": "2026-11-23T00:00:04Z",
        "cluster": f"{HOME}:cluster/jobs",
        "taskDefinition": f"{HOME}:task-definition/nightly-report:42",
        "reasons": [CAPACITY],
        "tasks": [],
        "detail": "The budget of 10 attempts is used up.",
    } | members


def failed(**members: Any) -> dict[str, Any]:
    """What the template passes of an invocation that failed."""
    facts = {
        "time": "2026-11-23T00:06:04Z",
        "condition": "RetriesExhausted",
        "request": "request-1",
        "errorType": "AccessDeniedException",
        "errorMessage": "no",
        "event": "event-9",
        "called": "2026-11-23T00:00:04Z",
        "startedBy": "events-rule/hourly",
        "taskDefinition": "hourly:3",
    } | members
    return {name: [] if value is None else [value] for name, value in facts.items()}


def letter(body: Any) -> Letter:
    text = body if isinstance(body, str) else json.dumps(body)
    return read_letter("message-1", text, NOW)


def letters(*bodies: Any) -> list[Letter]:
    return notify.one_for_each_job(list(map(letter, bodies)))


def subject(*bodies: Any) -> str:
    return compose(letters(*bodies), settings()).subject


def text(*bodies: Any) -> str:
    return compose(letters(*bodies), settings()).body


# The subject.


def test_the_subject_names_one_job_and_counts_several() -> None:
    lost = "[retry-run-task] nightly-report did not start (eu-west-1)"
    assert subject(outcome()) == lost
    forty = [outcome(number) for number in range(40)]
    assert subject(*forty) == "[retry-run-task] 40 jobs did not start (eu-west-1)"
    assert subject(failed()) == "[retry-run-task] failed: hourly may not have started (eu-west-1)"
    assert subject(failed(), failed(event="event-10")) == (
        "[retry-run-task] failed: 2 jobs may not have started (eu-west-1)"
    )
    assert subject(outcome(), failed(), "{") == (
        "[retry-run-task] failed: 1 job did not start, 2 may not have started (eu-west-1)"
    )
    assert subject(outcome(job="ünï 🚀")) == "[retry-run-task] ?n? ? did not start (eu-west-1)"
    early = outcome(time="2026-11-23T00:00:04Z")
    assert subject(early, failed()).startswith("[retry-run-task] failed: 1 job did not start, 1 ")
    assert subject("{") == "[retry-run-task] failed: 1 job may not have started (eu-west-1)"
    # Where an attempt may have started the job, nobody reads that it did not.
    doubtful = outcome(2, detail=decision.MAY_RUN)
    assert subject(doubtful) == "[retry-run-task] nightly-report may not have started (eu-west-1)"
    assert subject(outcome(), doubtful) == (
        "[retry-run-task] 1 job did not start, 1 may not have started (eu-west-1)"
    )


@given(job=st.text())
def test_a_subject_is_less_than_100_printable_ascii_characters(job: str) -> None:
    for body in (outcome(job=job), failed(startedBy=RULE_PREFIX + job)):
        shown = subject(body)
        assert re.fullmatch("[ -~]{1,99}", shown)
        assert shown.startswith("[retry-run-task] ")
        assert shown.endswith((" start (eu-west-1)", " started (eu-west-1)"))


def test_a_long_name_is_shortened_and_the_rest_of_the_subject_is_not() -> None:
    shown = subject(outcome(job="n" * 200))
    assert shown == f"[retry-run-task] {'n' * 53}... did not start (eu-west-1)"
    assert len(shown) == 99


# The text.


def test_the_text_says_which_job_what_happened_and_what_helps() -> None:
    assert text(outcome()) == (
        "nightly-report did not start (account 123456789012, eu-west-1).\n"
        "\n"
        "EXHAUSTED: all attempts are used up\n"
        f"ECS said: {CAPACITY}\n"
        "The budget of 10 attempts is used up.\n"
        "- nightly-report\n"
        "  nightly-report:42, cluster jobs\n"
        "  first due 2026-11-23 00:00:04 UTC, 10 attempts\n"
        "  event event-1\n"
        "\n"
        "WHAT TO DO\n"
        "\n"
        "To retry it: when the cause is gone, and not before 2026-11-23 00:17 UTC (EventBridge "
        "needs ten minutes to archive), paste this into a shell, once. It retries every job that "
        "was lost in its time: read the other messages of that time first, and start none of those "
        "jobs by hand before it. Do not replay the same time later: a job that ended more than an "
        "hour ago would run again.\n"
        f"{command('2026-11-23T00:05:04Z', '2026-11-23T00:07:04Z')}"
    )


def command(start: str, end: str) -> str:
    output: str = STACK.outputs["StartReplayCommand"]["Value"]
    return output.replace("time START", f"time {start}").replace("time END", f"time {end}")


def test_jobs_with_one_cause_are_grouped_under_it() -> None:
    shown = text(
        outcome(1, job="a"),
        outcome(2, job="b", reasons=["RESOURCE:MEMORY"]),
        outcome(3, job="c"),
        outcome(4, job="d", outcome="EXPIRED", detail="Too late."),
        outcome(5, job="e", outcome="EXPIRED", detail="Much too late."),
    )
    jobs = shown.partition("\nWHAT TO DO\n")[0]
    titles = [line for line in jobs.splitlines() if re.match("[A-Z_]+: ", line)]
    assert [title.partition(":")[0] for title in titles] == ["EXHAUSTED", "EXPIRED", "EXHAUSTED"]
    assert titles[0].endswith("(2 jobs)")
    assert shown.count(f"ECS said: {CAPACITY}") == 2  # of EXHAUSTED, and of EXPIRED
    # What is said of all is said once; what differs is said of each.
    assert shown.count("The budget of 10 attempts is used up.") == 2
    assert "- d\n  nightly-report:42, cluster jobs\n" in shown
    assert "\n  Too late.\n  event event-4\n- e\n" in shown
    assert [line[2:] for line in shown.splitlines() if line.startswith("- ")] == list("acdeb")


def test_not_replayable_jobs_are_grouped_by_what_is_in_the_way() -> None:
    no_room, dynamic = "tags has no room", "the environment is dynamic"
    details = (no_room, dynamic, no_room)
    bodies = [outcome(n, outcome="NOT_REPLAYABLE", detail=d) for n, d in enumerate(details)]
    shown = text(*bodies)
    assert shown.count("\nNOT_REPLAYABLE: ") == 2
    assert (shown.count(no_room), shown.count(dynamic)) == (1, 1)


def test_twenty_jobs_are_listed_and_where_to_see_the_others() -> None:
    bodies = [outcome(number, job=f"job-{number}") for number in range(83)]
    shown = text(*bodies)
    assert shown.count("\n- job-") == MOST_LISTED == 20
    assert (
        "\nand 63 more. All of them: CloudWatch Logs Insights, saved query "
        '"retry-run-task/lost jobs".\n'
    ) in shown
    queries = [r["Properties"]["Name"] for r in STACK.resources.values() if "Query" in r["Type"]]
    assert STACK.environment_of("Notify")["LOST_JOBS_QUERY"] in queries
    assert "more. All of them" not in text(*bodies[:20])


def test_no_cause_is_hidden_behind_a_frequent_one() -> None:
    shown = text(*map(outcome, range(500)), outcome(501, job="rare", reasons=["AGENT"]), failed())
    assert "\n- rare\n" in shown
    assert "\n- hourly\n" in shown
    assert shown.count("\n- ") == 20


def test_frequent_causes_share_the_list() -> None:
    bodies = [outcome(n, job="a", cluster=f"c{n}") for n in range(30)]
    bodies += [outcome(n, job="b", outcome="EXPIRED") for n in range(31, 62)]
    shown = text(*bodies)
    assert (shown.count("\n- a\n"), shown.count("\n- b\n")) == (10, 10)
    titles = re.findall(r"^(?:EXHAUSTED|EXPIRED): .* \(.*$", shown, re.MULTILINE)
    assert [title.rpartition(" (")[2] for title in titles] == ["31 jobs)", "30 jobs)"]


def test_what_comes_twice_is_one_line() -> None:
    again = outcome(time="2026-11-23T00:06:06Z")  # a duplicate of the event had an end of its own
    assert text(outcome(), again).count("- nightly-report") == 1
    assert subject(outcome(), again).startswith("[retry-run-task] nightly-report did not")
    assert len(letters(failed(), failed(request="request-2"))) == 1
    assert len(letters("{", "{")) == 1
    # Two letters of one chain are one job: the last one, whichever comes first.
    last, first = outcome(event="b", detail="last"), outcome(event="a", time="2026-11-23T00:05:04Z")
    assert [found.detail for found in letters(last, first)] == ["last"]
    # A letter of it and an invocation that failed are two pieces of news.
    assert len(letters(outcome(origin="event-9"), failed())) == 2
    # Two clusters are two jobs, though one client token names both chains.
    assert len(letters(outcome(), outcome(cluster=f"{HOME}:cluster/other"))) == 2
    assert len(letters({"outcome": "EXHAUSTED"}, {"outcome": "EXPIRED"})) == 2


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-99-01T00:00:00Z"]
)
def test_a_time_that_cannot_be_is_none(time: str) -> None:
    (step,) = steps(outcome(time=time, since=time))
    assert step.command == command("2026-11-23T00:00:30Z", "2026-11-23T00:02:30Z")  # the queue's


@pytest.mark.parametrize(
    ("counter", "words"),
    [
        ("10/10", "10 attempts"),
        ("1/10", "1 attempt"),
        ("0/10", "not retried"),
        ("unknown/10", "attempts unknown"),
        (None, "attempts unknown"),
    ],
)
def test_how_often_it_was_tried(counter: str | None, words: str) -> None:
    shown = text(outcome(attempt=counter))
    # Without its counter, nobody knows since when.
    since = "" if "unknown" in words else "first due 2026-11-23 00:00:04 UTC, "
    assert f"\n  {since}{words}\n" in shown


def test_text_of_others_stays_on_its_line_and_prints_everywhere() -> None:
    shown = text(
        outcome(
            job='say "hi"\n- forged\x1b[31m',
            reasons=['a "quoted"\r\n\nWHAT TO DO\u2028x', "ünïcödé 🚀 \ud800"],
            detail="one\u202etwo\x00",
        )
    )
    assert '- say "hi" - forged [31m\n' in shown
    assert 'ECS said: a "quoted" WHAT TO DO x; ünïcödé 🚀\n' in shown
    assert "\none two\n" in shown
    assert shown.count("\nWHAT TO DO\n") == 1
    shown.encode()


def test_a_line_is_at_most_600_characters() -> None:
    assert line("x" * 600) == "x" * 600
    assert line("x" * 601) == "x" * 599 + "…"


@pytest.mark.parametrize(
    "time",
    [None, 3, "2026-11-23", "20261123T000004Z", "2026-11-23T00:00:04+02:00", "2026-11-23T00:04Z"],
)
def test_without_a_time_that_can_be_read_it_is_the_queues(time: object) -> None:
    assert letter(outcome(time=time)).time == NOW
    assert letter(failed(time=time)).time == NOW


def test_many_or_long_reasons_are_shortened() -> None:
    shown = text(outcome(reasons=[f"reason {number} {'x' * 5000}" for number in range(200)]))
    (said,) = re.findall("ECS said: (.*)", shown)
    assert said.endswith("; and 195 more reasons")
    assert said.count("…") == 5
    assert len(said) < 5 * 602 + 30


# What helps.


def steps(*bodies: Any) -> list[remedy.Step]:
    return remedy.steps(letters(*bodies), settings())


@pytest.mark.parametrize("kind", ["EXHAUSTED", "EXPIRED"])
def test_what_can_be_replayed_gets_one_command(kind: str) -> None:
    bodies = [
        outcome(n, outcome=kind, time=f"2026-11-23T00:{minute}:00Z")
        for n, minute in enumerate((20, 10, 15))
    ]
    *careful, step = remedy.steps(list(map(letter, bodies)), settings())
    late = "EXPIRED: retry these only if a late run does no harm."
    assert [one.text for one in careful] == ([late] if kind == "EXPIRED" else [])
    assert step.text.startswith(
        "To retry all 3: when the cause is gone, and not before 2026-11-23 "
    )
    assert " 00:30 UTC" in step.text
    # From a minute before the first letter to a minute after the last.
    assert step.command == command("2026-11-23T00:09:00Z", "2026-11-23T00:21:00Z")


def test_the_command_is_the_output_and_botocore_takes_it() -> None:
    (step,) = steps(outcome())
    words = shlex.split(step.command.replace("$(date +%s)", "1"))
    assert words[:3] == ["aws", "events", "start-replay"]
    assert_takes("StartReplay", words[3:])


def assert_takes(operation: str, options: list[str]) -> None:
    """The options of a command of `aws events` are those of the operation's model."""
    model = get_session().get_service_model("events").operation_model(operation)
    shape = cast("StructureShape", model.input_shape)
    given = {option.removeprefix("--") for option in options[::2]} - {"region"}
    members = {"-".join(re.findall("[A-Z][a-z]+", name)).lower() for name in shape.members}
    assert given <= members
    required = {
        "-".join(re.findall("[A-Z][a-z]+", name)).lower() for name in shape.required_members
    }
    assert required <= given


def test_what_no_replay_can_start_gets_what_helps_instead() -> None:
    body = outcome(
        outcome="NOT_REPLAYABLE", detail="Put the value into the command.", attempt="0/10"
    )
    by_hand, source_event = steps(body)
    assert by_hand == remedy.Step(
        "Not replayable: nightly-report. What is said above helps the next run. For this one, see "
        "whether the job runs, and start it by hand if not. If anybody replays this time, wait "
        "first: what did not start then comes back in a new message."
    )
    assert "an event (and no schedule) triggers the rule nightly-report, and" in source_event.text
    home = "arn:aws:events:eu-west-1:123456789012"
    assert source_event.command == (
        "aws events start-replay --region eu-west-1 --replay-name source-$(date +%s) "
        "--event-source-arn ARCHIVE_ARN "
        f"--destination Arn={home}:event-bus/default,FilterArns={home}:rule/nightly-report "
        "--event-start-time 2026-11-22T23:59:04Z --event-end-time 2026-11-23T00:00:05Z"
    )
    assert_takes("StartReplay", shlex.split(source_event.command.replace("$(date +%s)", "1"))[3:])
    assert "To retry" not in text(body)


@pytest.mark.parametrize(
    "members",
    [
        {"startedBy": "chronos-schedule/nightly"},
        {"startedBy": None},
        {"startedBy": "events-rule/$(reboot)"},
        {"startedBy": "events-rule/a b"},
        {"caller": {"kind": "unknown"}},  # whose `startedBy` is anybody's choice
        {"caller": None},
        {"since": None},
        {"attempt": "unknown/10"},  # then `since` is that of an attempt
    ],
)
def test_no_command_is_made_of_what_does_not_name_a_rule(members: dict[str, Any]) -> None:
    (step,) = steps(outcome(outcome="NOT_REPLAYABLE", **members))
    assert step.command == ""


def test_a_name_that_was_cut_is_to_be_filled_in() -> None:
    for rule, is_cut in (("r" * 23, False), ("r" * 24, True)):
        body = outcome(outcome="NOT_REPLAYABLE", startedBy=f"events-rule/{rule}")
        _, source_event = steps(body)
        name = f"whose name begins with {rule}" if is_cut else rule
        assert f"triggers the rule {name}, and if its bus has an archive" in source_event.text
        shown = "RULE_NAME" if is_cut else rule
        assert f":rule/{shown} --event-start-time" in source_event.command


def test_several_that_are_not_replayable_get_one_command_as_an_example() -> None:
    bodies = [outcome(n, outcome="NOT_REPLAYABLE", job=f"job-{n}") for n in range(8)]
    bodies.append(outcome(9, outcome="NOT_REPLAYABLE", job="job-1", startedBy="events-rule/x"))
    by_hand, source_event = steps(*bodies)
    assert ":rule/nightly-report --event" in source_event.command  # of the first one
    assert "job-0, job-1, job-2, job-3, job-4 and 3 more" in by_hand.text
    assert source_event.text.endswith("The others: the same with their rule and time.")
    _, source_event = steps(bodies[0], bodies[1] | {"startedBy": None})
    assert "The others" not in source_event.text


def test_a_mix_promises_a_start_only_of_what_can_be_replayed() -> None:
    found = steps(
        outcome(1, job="a", outcome="NOT_REPLAYABLE", startedBy=None, time="2026-11-23T00:01:00Z"),
        outcome(2, job="b", time="2026-11-23T00:05:00Z"),
        outcome(3, job="c", time="2026-11-23T00:06:00Z"),
    )
    assert [step.text[:26] for step in found] == [
        "To retry b, c: when the ca",
        "Not replayable: a. What is",
    ]
    assert found[0].command == command("2026-11-23T00:04:00Z", "2026-11-23T00:07:00Z")


def test_a_stack_that_was_narrowed_has_to_be_widened_first() -> None:
    with World(Stack(), NOW, failures=1) as world:
        world.begin(load_event(FARGATE))
        world.step()
        other = f"{HOME}:cluster/other"
        world.deploy(Stack({"ClusterArns": other}))
        world.run()
    assert remedy.NARROWED in world.outcomes[-1]["detail"]
    widen, retry = remedy.steps([letter(world.outcomes[-1])], settings())
    assert widen.text.startswith("Widen ClusterArns or TaskDefinitionArns")
    assert retry.command


@pytest.mark.parametrize("reason", [*decision.PERMANENT, "The CPU is above your limit"])
def test_what_no_retry_helps_against_says_what_to_change(reason: str) -> None:
    change, retry = steps(outcome(outcome="NOT_RETRYABLE", reasons=[reason]))
    (known,) = (known for known in remedy.CHANGES if known in reason)
    assert change.text.startswith(f"{remedy.CHANGES[known]} A replay sends the old request. ")
    assert retry.command


def test_all_reasons_of_all_jobs_are_answered() -> None:
    change, _ = steps(
        outcome(1, outcome="NOT_RETRYABLE", reasons=["ATTRIBUTE", "somewhere above", "INACTIVE"]),
        outcome(2, outcome="NOT_RETRYABLE", reasons=["MISSING"]),
    )
    helps = [remedy.CHANGES[known] for known in ("ATTRIBUTE", "MISSING", "INACTIVE")]
    assert change.text.startswith(f"{' '.join(helps)} A replay ")


def test_a_failed_invocation_says_what_failed_and_where_its_log_is() -> None:
    shown = text(failed())
    assert shown.startswith("retry-run-task failed: hourly may not have started (account 1234567")
    assert (
        "FAILED: retry-run-task could not handle the call\n"
        "Error: AccessDeniedException: no\n"
        "Request request-1 (RetriesExhausted).\n"
        "- hourly\n"
        "  hourly:3, cluster default\n"
        "  called at 2026-11-23 00:00:04 UTC\n"
        "  event event-9\n"
    ) in shown
    assert "the log group retry-run-task-LogGroup, under the request's id" in shown
    assert command("2026-11-23T00:05:04Z", "2026-11-23T00:07:04Z") in shown


def test_a_function_that_did_not_run_has_no_log_to_look_at() -> None:
    stopped = steps(failed(errorType=None, errorMessage=None))
    assert stopped[0].text.startswith("Lambda did not run the function: look at its reserved ")
    assert len(stopped) == 3
    assert len(steps(failed(errorType=None, errorMessage=None), failed(event="x"))) == 4


def test_what_may_have_run_is_to_be_looked_at_before_a_replay() -> None:
    look, _ = steps(outcome(detail=f"Used up. {decision.MAY_RUN}"))
    assert look.text.startswith("See whether these run or have run: nightly-report. If one has, ")
    long = f"{'x' * 700} {decision.MAY_RUN}"  # however much of it is shown
    assert len(steps(outcome(detail=long))) == 2
    many = [outcome(n, job=f"job-{n}", detail=decision.MAY_RUN) for n in range(23)]
    assert "job-18, job-19 and 3 more. If one has" in steps(*many)[0].text
    _, look, _ = steps(failed(), outcome(2))
    assert " run: hourly. " in look.text  # and not those of which all is known
    _, look, _ = steps(failed(startedBy=None, taskDefinition=None), failed(event="event-10"))
    assert " run: a job without a name, hourly. " in look.text


def test_a_letter_that_cannot_be_read_is_reported_beside_the_others() -> None:
    bad = ["", "{", "[]", "null", '"x"', "{}", '{"outcome": "LAUNCHED"}', '{"outcome": []}']
    bad += ["[" * 100_000, '{"outcome": "FAILED"}']
    shown = text(outcome(), *bad)
    assert shown.count("Message message-1 of the queue LostJobs, ") == len(bad)
    assert "- nightly-report\n" in shown
    # Nobody knows whether a replay starts it.
    assert command("2026-11-23T00:05:04Z", "2026-11-23T00:07:04Z") in shown
    (step,) = steps("{")
    assert step == remedy.Step(
        'A letter cannot be read. Open the saved query "retry-run-task/lost jobs" at about '
        "2026-11-23 00:01 UTC, and look for a job that no message names."
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_whatever_is_in_a_letter_it_becomes_a_line(data: st.DataObject) -> None:
    body = data.draw(st.sampled_from([outcome(), failed()]))
    names = data.draw(st.lists(st.sampled_from(list(body)), max_size=4))
    # Its kind is what makes it a letter.
    body |= {name: data.draw(json_values) for name in names if name != "outcome"}
    shown = text(body)
    assert shown.count("\n- ") == 1
    assert all(character.isprintable() for line in shown.splitlines() for character in line)


# What is said of a job is what the retrying function says.


def test_the_kinds_are_the_outcomes_of_lost_jobs() -> None:
    assert list(DEAD_LETTERS) == [o.value for o in Outcome if o.is_dead_letter]


def test_the_words_and_limits_that_both_functions_know_are_the_same() -> None:
    assert (RULE_PREFIX, SCHEDULE_PREFIX) == PREFIXES
    assert source.LONGEST_STARTED_BY == LONGEST_STARTED_BY
    assert RULES == ("events-rule", OURS)
    assert MAY_RUN in decision.MAY_RUN


def calls() -> Iterator[Any]:
    for name in EVENT_NAMES:
        event = load_event(name)
        try:
            yield pytest.param(event, read_failed_call(event, "123456789012", "eu-west-1"), id=name)
        except NotAFailedCall:
            continue


@pytest.mark.parametrize(("event", "call"), list(calls()))
@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_failed_invocation_names_the_job_as_its_outcome_would(
    event: dict[str, Any], call: Any, times: int
) -> None:
    payload = event
    for _ in range(times):
        error = {"errorType": "Crash", "errorMessage": "no"}
        inner = result_of(STACK, "Failure", "RetriesExhausted", payload, error, NOW, 1)
        payload = inner | {"replay-name": "one"}
    found = letter(record(payload))
    assert found.job == job_of(call)
    assert found.event == event["detail"]["eventID"]
    # When it was first due, only its tags tell.
    assert (found.since, found.called) == (None, call.event_time)


def record(payload: dict[str, Any], condition: str = "RetriesExhausted") -> str:
    """What the rule sends of an invocation with this payload that failed."""
    error = {"errorType": "Crash", "errorMessage": 'a "crash"\n', "stackTrace": ["x"]}
    event = result_of(STACK, "Failure", condition, payload, error, NOW, 7)
    (target,) = STACK.rules["FailedInvocations"]["Targets"]
    return message_of(target, event)


def test_a_replayed_letter_that_failed_is_known_by_the_outcome_that_it_was() -> None:
    payload = result_of(STACK, "Success", "Success", load_event(FARGATE), outcome(), NOW, 1)
    for name in ("one", "two", "three"):
        payload |= {"replay-name": name}
        found = letter(record(payload))
        assert (found.kind, found.job, found.event) == (Kind.FAILED, "nightly-report", "event-1")
        assert (found.attempts, found.called) == ("10 attempts", None)
        assert found.said == ('Crash: a "crash"',)
        error = {"errorType": "Crash", "errorMessage": "no"}
        payload = result_of(STACK, "Failure", "RetriesExhausted", payload, error, NOW, 1)


def test_an_invocation_that_never_ran_has_no_error() -> None:
    found = letter(record(load_event(FARGATE), "EventAgeExceeded"))
    assert found.job == "nightly-report"
    assert found.said == ("none: Lambda did not run the function",)
    assert found.detail.endswith("(EventAgeExceeded).")


def test_an_invocation_with_anything_else_is_a_job_without_a_name() -> None:
    for payload in ({}, {"detail": 3}, {"FunctionName": "x", "Payload": "{}"}):
        found = letter(record(payload))
        assert (found.kind, found.job, found.cluster) == (Kind.FAILED, "", "")
        assert found.identity == (Kind.FAILED, "00000000-0000-0000-0000-000000000007")
    assert len(letters(*({"condition": [], "x": n} for n in range(2)))) == 2


def test_a_value_that_aws_refuses_is_not_shown() -> None:
    message = "1 error: Value 'se\ncret' and 'x' at 'target.input' failed to satisfy constraint"
    assert letter(failed(errorMessage=message)).said == (
        "AccessDeniedException: 1 error: Value at 'target.input' failed to satisfy constraint",
    )
    assert letter(failed(errorMessage=["secret"])).said == ("AccessDeniedException",)


def test_failed_invocations_are_grouped_by_the_type_of_their_error() -> None:
    timeouts = [
        failed(event=f"event-{n}", errorType="Sandbox.Timedout", errorMessage=f"RequestId: {n}")
        for n in range(3)
    ]
    shown = text(*timeouts, failed(event="x"))
    assert shown.count("\nFAILED: ") == 2
    assert "\nError, for example: Sandbox.Timedout: RequestId: 0\n" in shown
    assert "\nError: AccessDeniedException: no\n" in shown


def test_a_job_that_runs_in_part_says_so() -> None:
    event = load_event("launched.partial-placement-rule")
    response = event["detail"]["responseElements"]
    for failure in response["failures"]:
        failure["reason"] = "ATTRIBUTE"
    asked = event["detail"]["requestParameters"]["count"]
    with World(Stack(), NOW) as world:
        world.begin(event)
        world.run()
    (message,) = world.messages
    missing = asked - len(response["tasks"])
    assert f" Tasks missing: {missing}. Others may run; a replay starts the " in message.text


def test_a_job_whose_last_attempt_asked_for_several_tasks_may_run_in_part() -> None:
    with World(Stack({"MaxAttempts": "1"}), NOW, failures=10**9) as world:
        world.begin(load_event("launched.partial-placement-rule"))
        world.run()
    assert world.calls[-1]["count"] == 2
    (message,) = world.messages
    assert " used up. Tasks missing: 2. Others may run; " in message.text


# The form of a chat.


def test_a_chat_gets_amazon_qs_custom_notification_and_mail_gets_text() -> None:
    body = outcome(job="a <!channel> & co")
    message = compose([letter(body)], settings(NotificationFormat="CHAT"))
    assert message.is_json
    variants = json.loads(message.body)
    assert variants.keys() == {"default", "https"}
    assert variants["default"] == text(body)
    notification = json.loads(variants["https"])
    assert (notification["version"], notification["source"]) == ("1.0", "custom")
    content = notification["content"]
    assert content["textType"] == "client-markdown"
    assert (
        content["title"] == "[retry-run-task] a &lt;!channel&gt; &amp; co did not start (eu-west-1)"
    )
    assert "- a &lt;!channel&gt; &amp; co\n" in content["description"]
    assert "WHAT TO DO" not in content["description"]
    assert content.keys() == {"textType", "title", "description", "nextSteps"}
    (step,) = content["nextSteps"]
    assert step.endswith(f"\n```{command('2026-11-23T00:05:04Z', '2026-11-23T00:07:04Z')}```")


def test_what_a_chat_shows_is_escaped_everywhere() -> None:
    lost = outcome(outcome="NOT_REPLAYABLE", job="<!channel>", startedBy=None)
    message = compose(letters(lost), settings(NotificationFormat="CHAT"))
    assert "<" not in json.loads(message.body)["https"]


def test_mail_lists_twenty_jobs_where_a_chat_has_room_for_fewer() -> None:
    many = [outcome(n, job=f"{n} {'x' * 500}") for n in range(1000)]
    variants = json.loads(compose(letters(*many), settings(NotificationFormat="CHAT")).body)
    description = json.loads(variants["https"])["content"]["description"]
    assert (listed_in(variants["default"]), listed_in(description)) == (20, 12)


LONG = dict.fromkeys(("job", "detail", "taskDefinition", "cluster"), "<😀>" * 300)


@pytest.mark.parametrize("form", ["TEXT", "CHAT"])
def test_a_message_that_is_too_long_lists_fewer_jobs(form: str) -> None:
    many = [outcome(n, reasons=[f"{n}{'🚀' * 600}"] * 9, **LONG) for n in range(1000)]
    message = compose(letters(*many), settings(NotificationFormat=form))
    assert len(message.body.encode()) <= MOST_BYTES == 256 * 1024
    shown = json.loads(message.body)["default"] if message.is_json else message.body
    assert shown.splitlines()[-1].startswith("aws events start-replay ")
    assert 0 < listed_in(shown) < 20
    if message.is_json:
        content = json.loads(json.loads(message.body)["https"])["content"]
        assert len(content["description"]) <= LONGEST_DESCRIPTION
        assert listed_in(content["description"]) == 0  # one alone is too long


def listed_in(shown: str) -> int:
    """How many of a thousand jobs are listed; the others are counted."""
    listed = shown.count("\n- ")
    assert f"and {1000 - listed:,} more. All of them: " in shown
    return listed


@given(data=st.data())
def test_no_message_is_longer_than_sns_takes(data: st.DataObject) -> None:
    texts = st.text(st.characters(), min_size=200, max_size=300)
    bodies = [
        outcome(n, reasons=[data.draw(texts)] * 4, detail=data.draw(texts) * 4) for n in range(3)
    ]
    message = compose(letters(*bodies), settings(NotificationFormat="CHAT"))
    assert len(message.body.encode()) <= MOST_BYTES


# The function, its queue and its topic.


@pytest.fixture
def world() -> Iterator[World]:
    """No capacity, and a budget of one attempt."""
    with World(Stack({"MaxAttempts": "1"}), NOW, failures=10**9) as world:
        yield world


@pytest.fixture
def queue(world: World) -> LostJobs:
    return world.letters[world.stack.name]


def put(queue: LostJobs, *bodies: Any) -> None:
    rule = queue.stack.attribute("DeadLetters", "Arn")
    for body in bodies:
        queue.send(rule, body if isinstance(body, str) else json.dumps(body))


def test_what_is_lost_within_a_minute_is_one_message_for_each_reader(
    world: World, queue: LostJobs
) -> None:
    put(queue, *(outcome(n) for n in range(40)))
    world.run()
    assert world.now == NOW + timedelta(seconds=60)
    assert [message.subject for message in world.messages] == [
        "[retry-run-task] 8 jobs did not start (eu-west-1)"
    ] * READERS


def test_a_full_batch_is_not_held_back(world: World, queue: LostJobs) -> None:
    put(queue, *(outcome(n) for n in range(1000 * READERS)))
    assert [m.subject for m in world.messages] == [
        "[retry-run-task] 1,000 jobs did not start (eu-west-1)"
    ] * READERS
    world.run()
    assert len(world.messages) == READERS


def test_a_failed_batch_is_delivered_again_and_kept_in_the_end(
    world: World, queue: LostJobs
) -> None:
    put(queue, outcome())
    with mock.patch.object(notify, "publish", side_effect=RuntimeError("SNS is away")):
        world.run()
    assert (world.messages, len(queue.unsent)) == ([], 1)
    (kept,) = queue.unsent
    assert kept["attributes"]["ApproximateReceiveCount"] == "5"
    queue.redrive()
    world.run()
    assert [m.subject for m in world.messages] == [
        "[retry-run-task] nightly-report did not start (eu-west-1)"
    ]
    assert queue.unsent == []


def test_a_batch_that_failed_once_is_one_message(world: World, queue: LostJobs) -> None:
    real, tries = notify.publish, iter([RuntimeError("SNS is away")])

    def publish(*arguments: Any) -> str:
        for error in tries:
            raise error
        return real(*arguments)

    put(queue, outcome())
    with mock.patch.object(notify, "publish", publish):
        world.run()
    assert len(world.messages) == 1
    # It is visible again four minutes after it was received, and is collected for another one.
    assert world.now == NOW + timedelta(seconds=240 + 60)


@pytest.mark.parametrize(("broken", "place"), [("read_letter", 1), ("compose", 0)])
def test_a_letter_that_breaks_the_code_is_kept_and_does_not_block_the_others(
    broken: str, place: int, queue: LostJobs, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    real = getattr(notify, broken)

    def breaks(*arguments: Any) -> Any:
        if "poison" in str(arguments[place]):
            raise ZeroDivisionError
        return real(*arguments)

    bodies = [outcome(1), *["{"] * (READERS - 1), outcome(2, job="poison"), outcome(3)]
    put(queue, *bodies)  # to the readers in turn: the poison to the one with the first letter
    with mock.patch.object(notify, broken, breaks):
        world.run()
    assert [m.subject for m in world.messages if "failed" not in m.subject] == [
        "[retry-run-task] nightly-report did not start (eu-west-1)"
    ]
    assert [json.loads(record["body"])["job"] for record in queue.unsent] == ["poison"]
    assert "unhandled letter" in caplog.text


def test_the_log_has_a_line_for_each_job_that_only_this_function_knows(
    queue: LostJobs, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "notify")
    put(queue, outcome(detail=decision.MAY_RUN), failed(), "{")
    world.run()
    lines = [r for r in caplog.records if r.name == "notify"]
    lost = {vars(line)["outcome"]: vars(line)["job"] for line in lines if line.msg == "lost job"}
    assert lost == {"FAILED": "hourly", "UNREADABLE": ""}
    (line,) = (line for line in lines if vars(line).get("outcome") == "FAILED")
    assert (
        vars(line).items()
        >= {
            "job": "hourly",
            "taskDefinition": "hourly:3",
            "cluster": "default",
            "since": None,
            "reasons": ("AccessDeniedException: no",),
            "detail": "Request request-1 (RetriesExhausted).",
            "event": "event-9",
        }.items()
    )
    assert [vars(line)["jobs"] for line in lines if line.msg == "notified"] == [1, 1, 1]
    assert "{" not in [vars(line).get("detail") for line in lines]


def test_the_queue_gives_the_function_the_time_it_needs(stack: Stack) -> None:
    function = stack.resources["Notify"]["Properties"]
    letters_in = function["Events"]["Letters"]["Properties"]
    queue = stack.resources["LostJobs"]["Properties"]
    assert letters_in == {
        "Queue": stack.attribute("LostJobs", "Arn"),
        "BatchSize": 1000,
        "MaximumBatchingWindowInSeconds": 60,
        "ScalingConfig": {"MaximumConcurrency": 2},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }
    window = letters_in["MaximumBatchingWindowInSeconds"]
    assert queue["VisibilityTimeout"] >= 6 * function["Timeout"] + window
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": stack.attribute("UnsentLostJobs", "Arn"),
        "maxReceiveCount": 5,
    }
    for name in ("LostJobs", "UnsentLostJobs"):
        assert stack.resources[name]["Properties"]["MessageRetentionPeriod"] == 14 * 24 * 3600
    # All that boto3 may take is less than the function's time.
    config = vars(notify.CLIENT_CONFIG)
    tries = config["retries"]["total_max_attempts"]
    longest = tries * (config["connect_timeout"] + config["read_timeout"]) + 2 ** (tries - 2)
    assert longest < function["Timeout"]


def test_only_rules_of_the_outcome_bus_may_put_letters_into_the_queue(
    stack: Stack, queue: LostJobs
) -> None:
    for rule in ("DeadLetters", "FailedInvocations"):
        queue.send(stack.attribute(rule, "Arn"), "{}")
    for other in ("rule/other", "rule/retry-run-task-2/other"):
        with pytest.raises(NotAllowed):
            queue.send(f"arn:aws:events:eu-west-1:123456789012:{other}", "{}")
    policy = stack.resources["LostJobsPolicy"]["Properties"]["PolicyDocument"]
    (statement,) = policy["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}


# The function under its policy.


TOPIC = "arn:aws:sns:eu-west-1:123456789012:retry-run-task-NotificationTopic"
THEIRS = "arn:aws:sns:eu-west-1:123456789012:alarms"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"


def allowed(stack: Stack, action: str, resource: str, **context: str) -> bool:
    names = {key.replace("__", ":"): value for key, value in context.items()}
    return iam.allowed(stack.policy_of("NotifyRole"), action, resource, names)


def test_it_may_read_its_queue_and_publish_to_its_topic_and_nothing_else(stack: Stack) -> None:
    queue = stack.attribute("LostJobs", "Arn")
    assert allowed(stack, "sqs:ReceiveMessage", queue)
    assert not allowed(stack, "sqs:ReceiveMessage", stack.attribute("DeadLetterQueue", "Arn"))
    assert allowed(stack, "sns:Publish", TOPIC)
    assert not allowed(stack, "sns:Publish", THEIRS)
    actions = {action for s in stack.policy_of("NotifyRole") for action in as_list(s["Action"])}
    assert actions == {
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sns:Publish",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }
    assert "ManagedPolicyArns" not in stack.resources["NotifyRole"]["Properties"]


def test_a_topic_of_ones_own_may_be_encrypted_with_a_key_of_ones_own() -> None:
    stack = Stack({"NotificationTopicArn": THEIRS})
    assert allowed(stack, "sns:Publish", THEIRS)
    assert not allowed(stack, "sns:Publish", TOPIC)
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        via = {"kms__ViaService": "sns.eu-west-1.amazonaws.com"}
        assert allowed(stack, action, KEY, **via)
        assert not allowed(stack, action, KEY, kms__ViaService="s3.eu-west-1.amazonaws.com")
        assert not allowed(stack, action, KEY)
        assert not allowed(Stack(), action, KEY, **via)


@pytest.fixture
def enforced() -> Iterator[LostJobs]:
    """moto enforces the actions of the role (and not its resources, which are checked above)."""
    with World(Stack(), NOW) as world, enforcing(world.stack.policy_of("NotifyRole")):
        yield world.letters[world.stack.name]


def test_it_works_under_its_policy(enforced: LostJobs) -> None:
    body = {"messageId": "1", "body": "{}", "attributes": {"SentTimestamp": "1790000000000"}}
    assert enforced.invoke({"Records": [body]}) == {"batchItemFailures": []}
    assert len(enforced.messages) == 1
    for operation, arguments in (("list_topics", {}), ("create_topic", {"Name": "x"})):
        with pytest.raises(ClientError, match="AccessDenied"):
            getattr(boto3.client("sns"), operation)(**arguments)


# Settings.


@pytest.mark.parametrize(
    "variable",
    ["TOPIC_ARN", "NOTIFICATION_FORMAT", "START_REPLAY_COMMAND", "LOG_GROUP", "LOST_JOBS_QUERY"],
)
def test_a_variable_that_is_missing_is_named(variable: str) -> None:
    environment = STACK.environment_of("Notify")
    del environment[variable]
    with pytest.raises(KeyError, match=variable):
        Settings.read(environment, STACK.attribute("Notify", "Arn"))


def test_the_outcomes_that_can_come_are_all_reported(world: World) -> None:
    """Every event file that ends as a dead letter, through all of it."""
    for name in EVENT_NAMES:
        if name.startswith(("exhausted", "expired", "not-re")):
            world.deliver(load_event(name))
    world.run()
    reported = "".join(message.text for message in world.messages)
    for lost in world.outcomes:
        if lost["outcome"] in DEAD_LETTERS:
            assert f"event {lost['event']}\n" in reported


def test_a_message_arrives_in_its_form_at_each_subscriber(queue: LostJobs, world: World) -> None:
    world.deploy(Stack({"NotificationFormat": "CHAT"}))
    put(queue, outcome())
    world.run()
    (message,) = world.messages
    assert message.text == text(outcome())
    assert message.chat is not None
    assert message.chat["source"] == "custom"
    assert arrived("s", "x", is_json=False) == Message("s", "x")


def test_nobody_is_alerted_unless_somebody_is_named() -> None:
    alerts = {
        "": Stack(),
        "NotificationEmail": Stack({"NotificationEmail": "ops@example.com"}),
        "NotificationTopicArn": Stack({"NotificationTopicArn": THEIRS}),
    }
    silent = {name: stack.outputs["Alerts"]["Value"] for name, stack in alerts.items()}
    assert silent.pop("").startswith("Nobody is alerted of a lost job: ")
    assert {value[:27] for value in silent.values()} == {"The subscribers of the topi"}


def test_nothing_is_read_at_import() -> None:
    script = "import notify.handler as h; assert h.sns_client.cache_info().currsize == 0"
    environment = {"PYTHONPATH": str(ROOT / "functions")}  # neither a Region nor a variable of ours
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)  # noqa: S603


def test_the_time_of_a_message_is_whole_seconds_of_utc() -> None:
    sent = notify.sent_at({"attributes": {"SentTimestamp": "1795305690999"}})
    assert sent == datetime.fromtimestamp(1795305690, UTC)
