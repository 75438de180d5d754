"""The storm: its model agrees with the rehearsal of one chain, and this stack loses no job."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import NOW, run_command
from rehearsal import EVENT_NAMES, EVENTS, ROOT, load_event, quotas
from rehearsal import storm as model_of_storm
from rehearsal.cli import main
from rehearsal.policies import BEFORE, LEFT_ALONE, OURS, POLICIES, PUBLISHED
from rehearsal.quotas import Bucket
from rehearsal.storm import Storm
from rehearsal.template import Stack
from rehearsal.world import Entry, World
from retry_run_task.failed_call import write_time

README = (ROOT / "README.md").read_text("utf-8")
FARGATE = "launched.fargate-capacity-rule"
FIGURES = {
    "jobs",
    "launched",
    "dead_letters",
    "left_alone",
    "lost",
    "duplicates",
    "outcomes",
    "messages",
    "runtask_calls",
    "throttled_calls",
    "pulled_forward",
    "pull_forward_errors",
    "seconds_to_launch_p50",
    "seconds_to_launch_p95",
}


def storm(
    policy: str,
    jobs: int = 300,
    minutes: int = 25,
    trickle: int | None = None,
    **parameters: str,
) -> Storm:
    outage, event = timedelta(minutes=minutes), load_event(FARGATE)
    return Storm(event, Stack(parameters), jobs, outage, policy, trickle=trickle).run()


@pytest.mark.parametrize("minutes", [1, 4, 12, 40, 200])
def test_the_model_agrees_with_the_rehearsal_that_drives_the_whole_handler(minutes: int) -> None:
    model = storm("retry-run-task", jobs=1, minutes=minutes)
    (job,) = model.jobs
    event = load_event(FARGATE)
    with World(Stack(), model.start, outage_ends=model.outage_ends) as world:
        world.begin(event)
        world.run()
    ends = [entry.moment for entry in world.timeline if entry.data.get("outcome") in ENDS]
    assert [job.launches[0] if job.launches else job.ended] == ends
    assert model.runtask_calls == 1 + len(world.calls)
    assert len(job.launches) == len(world.tasks)


ENDS = ("LAUNCHED", "EXHAUSTED")


@pytest.mark.parametrize("pull_forward", ["true", "false"])
@pytest.mark.parametrize("minutes", [25, 40])
def test_ten_jobs_go_as_in_one_world_with_the_whole_handler(
    pull_forward: str, minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_of_storm, "TWICE", 0)
    model = storm(OURS, jobs=10, minutes=minutes, PullForward=pull_forward)
    stack = Stack({"PullForward": pull_forward})
    with World(stack, model.start, outage_ends=model.outage_ends) as world:
        for n, job in enumerate(model.jobs):
            event = model.event_of(n)
            event["detail"]["eventTime"] = write_time(job.failed_at)
            world.at(job.failed_at, partial(world.begin, event))
        world.run()
    launches = [(e.data["origin"], e.moment) for e in world.timeline if is_launch(e)]
    expected = [(model.event_of(n)["detail"]["eventID"], job) for n, job in enumerate(model.jobs)]
    assert dict(launches) == {origin: job.launches[0] for origin, job in expected}
    assert len(launches) == 10
    assert model.runtask_calls == 10 + len(world.calls)
    assert model.pulled_forward == len(world.moved)
    assert bool(world.moved) is (pull_forward == "true")


def is_launch(entry: Entry) -> bool:
    return entry.data.get("outcome") == "LAUNCHED"


# How soon the jobs run when capacity is back, and what it costs.


def figures_of(jobs: int, policy: str = OURS, minutes: int = 40, **more: Any) -> dict[str, Any]:
    return storm(policy, jobs, minutes, **more).summary()


def assert_that_it_is_soon(
    figures: Mapping[str, Any], p50: float, p95: float, calls: float
) -> None:
    assert figures["launched"] == figures["jobs"]
    assert (figures["duplicates"], figures["lost"], figures["dead_letters"]) == (0, 0, 0)
    assert figures["seconds_to_launch_p50"] <= p50
    assert figures["seconds_to_launch_p95"] <= p95
    assert figures["runtask_calls"] / figures["jobs"] <= calls


@pytest.mark.parametrize(
    ("jobs", "p50", "p95"),
    [
        (10, 420, 420),
        (100, 300, 300),
        (1000, 180, 240),
        pytest.param(10_000, 400, 640, marks=pytest.mark.large),
    ],
)
def test_jobs_run_soon_after_capacity_is_back(jobs: int, p50: float, p95: float) -> None:
    after = figures_of(jobs)
    assert_that_it_is_soon(after, p50, p95, calls=8.5)
    column = [10, 100, 1000, 10_000].index(jobs)
    (row,) = re.findall(r"^\| as deployed \| (.*) \|$", README, re.MULTILINE)
    assert cell_of(after) == row.split(" | ")[column]
    if jobs == 10_000:  # without, it takes as long once more
        return
    before = figures_of(jobs, BEFORE)
    (row,) = re.findall(r"^\| `PullForward=false` \| (.*) \|$", README, re.MULTILINE)
    assert cell_of(before) == row.split(" | ")[column]
    assert before["seconds_to_launch_p95"] > after["seconds_to_launch_p95"] * 1.5
    assert after["runtask_calls"] <= before["runtask_calls"] * 1.05


def cell_of(figures: Mapping[str, Any]) -> str:
    """In whole seconds."""
    return ", ".join(str(int(figures[f"seconds_to_launch_{p}"])) for p in ("p50", "p95"))


@pytest.mark.parametrize(
    ("jobs", "least", "parameters"),
    [(300, 300, {}), (1000, 850, {}), (300, 200, {"MaxAgeMinutes": "45"})],
)
def test_where_capacity_trickles_in_no_job_is_worse_off(
    jobs: int, least: int, parameters: dict[str, str]
) -> None:
    after = figures_of(jobs, minutes=20, trickle=10, **parameters)
    assert after["launched"] >= least
    if jobs <= 300:  # of 1,000, 769 are launched without: it takes 10 s
        before = figures_of(jobs, BEFORE, minutes=20, trickle=10, **parameters)
        assert after["launched"] >= before["launched"]
    assert (after["duplicates"], after["lost"]) == (0, 0)
    assert after["pulled_forward"] > jobs


def test_capacity_that_trickles_in_is_kept_until_it_is_used() -> None:
    played = storm(OURS, jobs=60, minutes=20, trickle=1)
    launches = sorted(job.launches[0] for job in played.jobs if job.launches)
    for n, launch in enumerate(launches):
        assert launch >= played.outage_ends + timedelta(minutes=n)
    assert len(launches) > 30


def test_throttles_of_scheduler_are_counted_and_lose_no_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for operation in ("GetSchedule", "UpdateSchedule", "ListSchedules"):
        monkeypatch.setitem(quotas.RATES, operation, 1)
    figures, before = figures_of(300), figures_of(300, BEFORE)
    assert figures["pull_forward_errors"] > 10
    p50, p95 = before["seconds_to_launch_p50"], before["seconds_to_launch_p95"]
    assert_that_it_is_soon(figures, p50, p95 + 30, calls=8.5)


def test_a_schedule_that_is_throttled_is_created_by_a_later_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(quotas.RATES, "CreateSchedule", 3)
    figures = figures_of(300, MaxAttempts="2")
    assert (figures["lost"], figures["dead_letters"]) == (0, 300)
    assert figures["outcomes"].keys() == {"EXHAUSTED"}
    monkeypatch.setitem(quotas.RATES, "CreateSchedule", 0.1)
    figures = figures_of(300)
    assert figures["lost"] == 0
    assert figures["outcomes"]["FAILED"] > 100


def test_trickle_is_said_above_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--storm", "20", "--outage", "5m", "--trickle", "10"]
    assert main(options) == 0
    shown = capsys.readouterr().out
    assert "capacity is missing for 0:05:00, and comes back for 10 tasks a minute.\n" in shown
    status, _, error = run_command(main, *options[2:])
    assert (status, error) == (2, "rehearse: --trickle goes with --storm only\n")


def test_jobs_that_outlast_their_budget_are_dead_letters_and_none_is_lost() -> None:
    figures = storm("retry-run-task", minutes=600).summary()
    assert (figures["launched"], figures["dead_letters"], figures["lost"]) == (0, 300, 0)
    # The caller's own call, and ten attempts; none of them for twins that came twice.
    assert 300 * 11 <= figures["runtask_calls"] <= 300 * 11 * 1.05


def test_the_seed_idea_starts_jobs_twice_and_loses_them() -> None:
    figures = storm("seed-idea", jobs=6000, minutes=25).summary()
    assert figures["duplicates"] > 0
    assert figures["lost"] > 0


@pytest.mark.parametrize("policy", PUBLISHED)
def test_retries_that_last_for_minutes_do_not_outlast_an_outage(policy: str) -> None:
    figures = storm(policy).summary()
    assert (figures["launched"], figures["dead_letters"]) == (0, 300)
    assert storm(policy, jobs=10, minutes=0).summary()["launched"] == 10


def test_a_storm_goes_the_same_way_each_time() -> None:
    assert storm("retry-run-task").summary() == storm("retry-run-task").summary()


def test_the_number_of_pending_jobs_falls_from_all_to_none() -> None:
    played = storm("retry-run-task")
    waiting = played.pending(60, played.start + timedelta(minutes=100))
    assert (waiting[0], waiting[-1]) == (300, 0)
    assert waiting == sorted(waiting, reverse=True)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(rate=2, burst=3)
    assert [bucket.take(NOW) for _ in range(4)] == [True, True, True, False]
    later = NOW + timedelta(seconds=1)
    assert [bucket.take(later) for _ in range(3)] == [True, True, False]
    assert sum(bucket.take(later + timedelta(hours=1)) for _ in range(9)) == 3


def test_the_table_shows_all_policies_and_json_all_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--storm", "20", "--policy", "all", "--json"]) == 1
    results: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert list(results) == list(POLICIES)
    assert all(figures.keys() == FIGURES | {"launched_by_outage"} for figures in results.values())
    assert results["retry-run-task"]["launched_by_outage"] == {"10m": 20, "40m": 20, "2h": 0}
    assert results["fixed-60s"]["launched_by_outage"] == {"10m": 0, "40m": 0, "2h": 0}
    main(["--storm", "20", "--policy", "all"])
    shown = capsys.readouterr().out
    assert all(f"\n{policy} " in shown for policy in POLICIES)
    assert "▲ capacity is back" in shown


SMALL = ("--storm", "3", "--outage", "4m", "--json")


def both_ways(
    capsys: pytest.CaptureFixture[str], event: str, *options: str
) -> list[tuple[int, dict[str, int]]]:
    """Exit status, and how many calls came to what: alone, and in a storm of three."""
    file = event if event.startswith("/") else str(EVENTS / f"{event}.json")
    alone = main([file, "--outage", "4m", "--json", *options])
    outcome = json.loads(capsys.readouterr().out)["outcome"]
    storm = main([file, *SMALL, *options])
    figures = json.loads(capsys.readouterr().out)["retry-run-task"]
    kinds = ("launched", "dead_letters", "left_alone")
    assert sum(figures[kind] for kind in kinds) == figures["jobs"] == 3
    kind = "launched" if outcome == "LAUNCHED" else "dead_letters"
    assert figures["left_alone" if outcome in LEFT_ALONE else kind] == 3
    return [(alone, {outcome: 3}), (storm, figures["outcomes"])]


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_a_storm_comes_to_what_the_event_comes_to_alone(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, storm = both_ways(capsys, name)
    assert alone == storm


HIDDEN = "launched.hidden-environment-rule"
PARTIAL = "left-alone.partial-placement"


@pytest.mark.parametrize(
    ("event", "parameter", "outcome"),
    [
        (FARGATE, "RuleState=DISABLED", "UNMATCHED"),
        (FARGATE, "ClusterArns=arn:aws:ecs:eu-west-1:123456789012:cluster/other", "LEFT_ALONE"),
        (
            FARGATE,
            "TaskDefinitionArns=arn:aws:ecs:eu-west-1:123456789012:task-definition/x:*",
            "LEFT_ALONE",
        ),
        (FARGATE, "MaxAttempts=1", "EXHAUSTED"),
        (FARGATE, "MaxAgeMinutes=2", "EXPIRED"),
        (FARGATE, "BackoffBaseSeconds=3600", "LAUNCHED"),
        (HIDDEN, "RecoverHiddenEnvironment=false", "NOT_REPLAYABLE"),
        (PARTIAL, "RetryPartialFailures=true", "LAUNCHED"),
        ("left-alone.cli", "Callers=ALL", "LAUNCHED"),
        ("launched.lambda-function", "Callers=SCHEDULED", "LEFT_ALONE"),
    ],
)
def test_a_parameter_counts_in_a_storm_as_it_does_alone(
    event: str, parameter: str, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, storm = both_ways(capsys, event, "--parameter", parameter)
    assert alone == storm
    assert storm[1] == {outcome: 3}


def test_reasons_and_definitions_count_in_a_storm_as_they_do_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone, storm = both_ways(capsys, FARGATE, "--reason", "ATTRIBUTE")
    assert alone == storm == (1, {"NOT_RETRYABLE": 3})
    theirs = str(EVENTS / "definitions" / f"{HIDDEN}.json")
    hides = "not-replayable.hidden-environment"
    alone, storm = both_ways(capsys, hides, "--definitions", theirs)
    assert alone == storm == (0, {"LAUNCHED": 3})


@pytest.mark.parametrize(
    ("change", "parameter", "outcome"),
    [
        ({"replay-name": "r"}, "AcceptReplaysOnDefaultBus=true", "LAUNCHED"),
        ({"replay-name": "r"}, "AcceptReplaysOnDefaultBus=false", "UNMATCHED"),
        # An event that was held up: its job is as old as the call, not as the event.
        ({"time": "2026-11-23T03:00:04Z"}, "MaxAgeMinutes=60", "EXPIRED"),
    ],
)
def test_an_event_that_is_not_new_is_the_same_in_a_storm(
    change: dict[str, str],
    parameter: str,
    outcome: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "event.json"
    file.write_text(json.dumps(load_event(FARGATE) | change))
    alone, storm = both_ways(capsys, str(file), "--parameter", parameter)
    assert alone == storm
    assert storm[1] == {outcome: 3}


def test_replayed_events_wait_in_a_storm_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, waits = tmp_path / "event.json", []
    options = ("--storm", "3", "--outage", "0s", "--parameter", "AcceptReplaysOnDefaultBus=true")
    for change in ({}, {"replay-name": "r"}):
        file.write_text(json.dumps(load_event(FARGATE) | change))
        main([str(file), *options, "--json"])
        figures = json.loads(capsys.readouterr().out)["retry-run-task"]
        waits.append(figures["seconds_to_launch_p50"])
    assert waits[1] >= waits[0] + 60


def test_the_seed_idea_loses_what_cannot_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(EVENTS / f"{HIDDEN}.json")
    assert main([file, *SMALL, "--policy", "seed-idea"]) == 1
    assert json.loads(capsys.readouterr().out)["seed-idea"]["lost"] == 3


def test_jobs_that_their_caller_has_launched_never_waited(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(EVENTS / "unmatched.success.json"), *SMALL]) == 0
    figures = json.loads(capsys.readouterr().out)["retry-run-task"]
    assert (figures["launched"], figures["runtask_calls"]) == (3, 3)
    assert figures["seconds_to_launch_p50"] is None


def test_each_job_of_a_storm_is_a_chain_of_its_own() -> None:
    for name in ("launched.second-attempt", "launched.fargate-capacity-sdk-client-token"):
        outage = timedelta(minutes=4)
        played = Storm(load_event(name), Stack(), 50, outage, "retry-run-task").run()
        assert played.summary()["launched"] == 50
        assert len(played.tokens) > 50


def test_the_settings_of_the_other_policies_stand_under_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--storm", "2", "--outage", "0s", "--policy", "all", "--parameter", "MaxAttempts=7"])
    shown = capsys.readouterr().out
    settings = [line.split() for line in shown.partition("source\n")[2].splitlines()[:8]]
    assert [row[0] for row in settings] == list(POLICIES)
    assert [row[1] for row in settings] == ["7", "7", "no", "3", "5", "2", "2", "3"]
    for published in PUBLISHED.values():
        assert f"  {published.shown}  " in shown
        assert f"  {published.source}\n" in shown


@pytest.mark.parametrize("policy", PUBLISHED)
def test_the_waits_are_those_that_are_shown(policy: str) -> None:
    published = PUBLISHED[policy]
    first = min(next(published.waits(f"job {n}")) for n in range(200))
    assert first == pytest.approx(float(re.findall("[0-9.]+", published.shown)[0]), abs=0.1)


def test_a_storm_that_ends_well_exits_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--storm", "20"]) == 0
    assert main(["--storm", "20", "--parameter", "MaxAttempts=1"]) == 1
    capsys.readouterr()


# Messages.


@pytest.mark.parametrize(("jobs", "most"), [(1, 1), (40, 10), (283, 10), (1000, 30)])
def test_many_lost_jobs_are_a_few_messages(jobs: int, most: int) -> None:
    played = storm("retry-run-task", jobs=jobs, MaxAttempts="2")
    assert played.summary()["dead_letters"] == jobs
    subjects = [message.subject for _, message in played.messages]
    # No more than five a minute, from as many readers.
    assert 1 <= len(subjects) <= most
    numbers = [re.findall(r"([0-9,]+)(?: jobs? did not|(?: jobs?)? may)", s) for s in subjects]
    reported = sum(int(n.replace(",", "")) for found in numbers for n in found or ["1"])
    # Of each hundred, one comes twice; another reader may have it.
    assert jobs <= reported <= jobs * 1.03


def test_a_storm_shows_its_messages(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--storm", "283", "--parameter", "MaxAttempts=2")
    assert main([str(EVENTS / f"{FARGATE}.json"), *options]) == 1
    shown = capsys.readouterr().out
    assert re.search(
        r"\n\d+ messages about 283 lost jobs \(what arrives twice may be in two\):\n", shown
    )
    assert " jobs did not start (eu-west-1)\n" in shown
    assert "The message, as it arrives by mail:\n\nSubject: [retry-run-task] " in shown
    assert "\naws events start-replay " in shown
    main([str(EVENTS / f"{FARGATE}.json"), *options, "--json"])
    (figures,) = json.loads(capsys.readouterr().out).values()
    assert 1 <= len(figures["messages"]) <= 10


def test_calls_that_the_function_cannot_read_are_messages_as_well(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    event = load_event(FARGATE)
    del event["detail"]["eventTime"]
    event["time"] = "2026-11-23T00:00:04Z"
    file = tmp_path / "event.json"
    file.write_text(json.dumps(event))
    assert main([str(file), *SMALL]) == 1
    (figures,) = json.loads(capsys.readouterr().out).values()
    assert figures["outcomes"] == {"FAILED": 3}
    assert (
        figures["messages"]
        == ["[retry-run-task] failed: nightly-report may not have started (eu-west-1)"] * 3
    )  # of as many readers
