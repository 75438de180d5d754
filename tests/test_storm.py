"""The storm: its model agrees with the rehearsal of one chain, and this stack loses no job."""

import json
from datetime import timedelta
from typing import Any

import pytest

from conftest import NOW
from rehearsal import load_event
from rehearsal.cli import main
from rehearsal.policies import POLICIES, PUBLISHED
from rehearsal.storm import Bucket, Storm
from rehearsal.template import Stack
from rehearsal.world import World

FARGATE = "launched.fargate-capacity-rule"
FIGURES = {
    "jobs",
    "launched",
    "dead_letters",
    "left_alone",
    "lost",
    "duplicates",
    "outcomes",
    "runtask_calls",
    "throttled_calls",
    "seconds_to_launch_p50",
    "seconds_to_launch_p95",
}


def storm(policy: str, jobs: int = 300, minutes: int = 25, **parameters: str) -> Storm:
    outage = timedelta(minutes=minutes)
    return Storm(load_event(FARGATE), Stack(parameters), jobs, outage, policy).run()


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


def test_every_job_is_launched_once() -> None:
    figures = storm("retry-run-task", jobs=2000, minutes=30).summary()
    assert (figures["launched"], figures["duplicates"]) == (2000, 0)
    assert (figures["dead_letters"], figures["lost"]) == (0, 0)


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


def test_the_number_that_waits_falls_from_all_to_none() -> None:
    played = storm("retry-run-task")
    waiting = played.waiting(60, played.start + timedelta(minutes=100))
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


def test_a_storm_that_ends_well_exits_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--storm", "20"]) == 0
    assert main(["--storm", "20", "--parameter", "MaxAttempts=1"]) == 1
    capsys.readouterr()
