"""When capacity returns: a launch pulls pending attempts of its pool forward, and nothing else."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.model import StructureShape
from hypothesis import given
from hypothesis import strategies as st

from conftest import DUE_NOW, NOW
from rehearsal import load_event
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task import forward
from retry_run_task import handler as function
from retry_run_task.backoff import delay
from retry_run_task.caller import caller_of
from retry_run_task.chain import Chain, chain_in, is_replays, pool_of, schedule_name
from retry_run_task.decision import Launch, Stop, Wait, decide
from retry_run_task.failed_call import read_failed_call, write_time
from retry_run_task.forward import KEPT, MOST_FORWARD, pull_forward, sooner
from retry_run_task.progress import Progress, moved_forward, unwrap
from retry_run_task.request import NotExact
from retry_run_task.settings import Settings
from retry_run_task.wait import schedule

FARGATE, SECOND = "launched.fargate-capacity-rule", "launched.second-attempt"
MINUTE, SECOND_ = timedelta(minutes=1), timedelta(seconds=1)
ORIGIN = load_event(FARGATE)["detail"]["eventID"]
JOBS = "arn:aws:ecs:eu-west-1:123456789012:cluster/jobs"
LAUNCHED = Chain("the-one-that-was-launched", NOW, 3, 10)
PLENTY = 100_000
LATER, LATER_TEXT = NOW + timedelta(minutes=10), "2026-11-23T00:11:30Z"
EVER = 10**9


@pytest.fixture
def world() -> Iterator[World]:
    with World(Stack(), NOW) as world:
        yield world


def read(event: dict[str, Any], settings: Settings) -> tuple[Any, Progress]:
    unwrapped, progress = unwrap(event)
    return read_failed_call(unwrapped, settings.account, settings.region), progress


def wait_for(
    settings: Settings, run_task: StructureShape, n: int, minutes: float = 10, **parameters: Any
) -> Wait:
    """The second attempt of job `n`, pending for so long."""
    call, progress = read(load_event(SECOND), settings)
    tags = [
        {**tag, "value": f"job-{n}"} if tag["key"].endswith("origin") else tag
        for tag in call.parameters["tags"]
    ]
    changed = {**call.parameters, "tags": tags, "clientToken": f"job-{n}-1", **parameters}
    call = replace(call, parameters=changed)
    wait = decide(call, caller_of(call, settings), progress, settings, NOW, run_task)
    assert isinstance(wait, Wait)
    return replace(wait, until=NOW + MINUTE * minutes)


def pend(world: World, *waits: Wait) -> None:
    """Schedules, as the function made them five minutes ago."""
    with mock.patch.object(world, "now", NOW - 5 * MINUTE):
        world._clock.move_to(world.now)
        for wait in waits:
            schedule(function.scheduler_client(), wait, settings_of(world))
    world._clock.move_to(world.now)
    world.watch_schedules()


def settings_of(world: World) -> Settings:
    return Settings.read(world.stack.environment, world.stack.function_arn)


def due_times(world: World) -> dict[str, timedelta]:
    """From now on, by the origin's number."""
    return {
        found["Name"].split("-")[3]: datetime.fromisoformat(
            f"{found['ScheduleExpression'][3:-1]}+00:00"
        )
        - world.now
        for found in world.schedules()
    }


def pulled(world: World, pool: str, **changes: Any) -> list[str]:
    settings = settings_of(world)
    time_left = changes.pop("time_left", lambda: PLENTY)
    scheduler = function.forward_client()
    return list(pull_forward(scheduler, LAUNCHED, pool, settings, time_left, **changes))


@pytest.fixture
def pool(settings: Settings) -> str:
    return pool_of(load_event(SECOND)["detail"]["requestParameters"], settings)


# What a launch does.


def test_a_launched_attempt_that_had_waited_pulls_the_others_forward(
    world: World, run_task: StructureShape
) -> None:
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(3)))
    outcome = world.call_handler(load_event(SECOND) | DUE_NOW)
    assert outcome["outcome"] == "LAUNCHED"
    assert all(MINUTE <= due <= MINUTE + SECOND_ for due in due_times(world).values())
    assert len(due_times(world)) == 3
    world.watch_schedules()
    world.run()
    assert [o["outcome"] for o in world.outcomes] == ["LAUNCHED"] * 3
    # As if they had been due then; and it cost no budget.
    assert [o["attempt"] for o in world.outcomes] == ["2/11"] * 3
    assert {call["clientToken"] for call in world.calls[1:]} == {f"job-{n}-2" for n in range(3)}


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (load_event(FARGATE), "LAUNCHED"),  # attempt 1: nobody knows that capacity was away
        (load_event(SECOND), "SCHEDULED"),
        (load_event("exhausted.last-attempt"), "EXHAUSTED"),
    ],
)
def test_others_stay_where_no_attempt_that_had_waited_was_launched(
    event: dict[str, Any], outcome: str, world: World, run_task: StructureShape
) -> None:
    pend(world, wait_for(settings_of(world), run_task, 0))
    assert world.call_handler(event)["outcome"] == outcome
    assert due_times(world)["0"] == 10 * MINUTE
    assert not [point for point in world.points if "List" in point or "Update" in point]


def test_others_stay_where_the_attempt_failed_again(world: World, run_task: StructureShape) -> None:
    pend(world, wait_for(settings_of(world), run_task, 0))
    world.ecs.failures = 1
    assert world.call_handler(load_event(SECOND) | DUE_NOW)["outcome"] == "FAILED_AGAIN"
    assert due_times(world)["0"] == 10 * MINUTE


def test_others_stay_where_the_stack_says_so(run_task: StructureShape) -> None:
    with World(Stack({"PullForward": "false"}), NOW) as world:
        pend(world, wait_for(settings_of(world), run_task, 0))
        assert world.call_handler(load_event(SECOND) | DUE_NOW)["outcome"] == "LAUNCHED"
        assert due_times(world)["0"] == 10 * MINUTE
        assert not [point for point in world.points if "List" in point]


def test_others_stay_where_they_wait_for_something_else(
    world: World, run_task: StructureShape
) -> None:
    settings = settings_of(world)
    elsewhere = [
        wait_for(settings, run_task, 0, cluster="another"),
        wait_for(settings, run_task, 1, launchType="EC2"),
    ]
    pend(world, *elsewhere)
    world.call_handler(load_event(SECOND) | DUE_NOW)
    assert set(due_times(world).values()) == {10 * MINUTE}


def test_the_launch_of_a_replayed_job_pulls_others_forward_as_well(
    world: World, run_task: StructureShape
) -> None:
    pend(world, wait_for(settings_of(world), run_task, 0))
    letter = load_event("exhausted.last-attempt") | DUE_NOW | {"replay-name": "monday"}
    assert world.call_handler(letter)["outcome"] == "LAUNCHED"
    assert due_times(world)["0"] <= MINUTE + SECOND_


# Whatever goes wrong, the launch stands.


@pytest.mark.parametrize("operation", ["ListSchedules", "GetSchedule", "UpdateSchedule"])
@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
def test_an_error_is_logged_counted_and_swallowed(
    operation: str, code: str, world: World, run_task: StructureShape
) -> None:
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(3)))
    world.refused[operation] = code
    assert world.call_handler(load_event(SECOND) | DUE_NOW)["outcome"] == "LAUNCHED"
    lines = [json.loads(line) for line in world.logs.getvalue().splitlines()]
    (reported,) = (i for i, line in enumerate(lines) if line.get("outcome") == "LAUNCHED")
    (failed,) = (i for i, line in enumerate(lines) if "error" in line)
    assert reported < failed, "the launch is reported before"
    assert lines[failed]["error"] == f"{operation}: {code}"
    assert lines[failed]["level"] == "WARNING"
    assert [line["PullForwardErrors"] for line in lines if "PullForwardErrors" in line] == [[1.0]]
    assert set(due_times(world).values()) == {10 * MINUTE}


def test_an_error_in_the_midst_leaves_the_others_where_they_are(
    world: World, run_task: StructureShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(5)))
    pull_one, done = forward.pull_one, list[str]()
    words = "of-a-job"

    def fails_for_the_third(scheduler: Any, name: str, *rest: Any) -> bool:
        if len(done) == 2:
            raise RuntimeError(words)
        done.append(name)
        return pull_one(scheduler, name, *rest)

    monkeypatch.setattr(forward, "pull_one", fails_for_the_third)
    assert world.call_handler(load_event(SECOND) | DUE_NOW)["outcome"] == "LAUNCHED"
    assert sorted(due_times(world).values())[1] < 2 * MINUTE
    assert sorted(due_times(world).values())[2] == 10 * MINUTE
    assert '"PulledForward":[2.0]' in world.logs.getvalue()
    assert '"error":"RuntimeError"' in world.logs.getvalue()
    assert words not in world.logs.getvalue()
    assert "in fails_for_the_third" in world.logs.getvalue(), "it says where"


@pytest.mark.parametrize("operation", ["ListSchedules", "GetSchedule", "UpdateSchedule"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_where_lambda_dies_meanwhile_each_job_starts_once(
    moment: str, operation: str, world: World, run_task: StructureShape
) -> None:
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(3)))
    world.crashes = [f"{moment} {operation}"]
    world.invoke(load_event(SECOND) | DUE_NOW)
    world.run()
    assert world.crashes == []
    assert len(world.tasks) == 4
    assert world.bus.archive == []


@pytest.mark.parametrize(("milliseconds", "most"), [(14_999, 0), (15_000, 3)])
def test_nothing_is_begun_where_less_than_15_seconds_are_left(
    milliseconds: int, most: int, world: World, run_task: StructureShape, pool: str
) -> None:
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(3)))
    world.is_in_function = True
    assert len(pulled(world, pool, time_left=lambda: milliseconds)) == most
    assert bool(world.points) is bool(most), "not even a list"


def test_the_time_left_is_looked_at_before_each_schedule(
    world: World, run_task: StructureShape, pool: str
) -> None:
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(5)))
    left = iter([17_000, 16_000, 15_500, 15_000, 14_999])
    assert len(pulled(world, pool, time_left=lambda: next(left))) == 3


@pytest.mark.parametrize("operation", ["GetSchedule", "UpdateSchedule"])
@pytest.mark.parametrize(
    "code", ["ResourceNotFoundException", "ConflictException", "ValidationException"]
)
def test_what_has_fired_meanwhile_is_no_error(
    operation: str, code: str, world: World, run_task: StructureShape, pool: str
) -> None:
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(3)))
    gone = [ClientError({"Error": {"Code": code, "Message": "gone"}}, operation)]

    def first_is_gone(**_: object) -> None:
        if gone:
            raise gone.pop()

    events = function.forward_client().meta.events
    events.register(f"before-call.scheduler.{operation}", first_is_gone)
    assert len(pulled(world, pool)) == 2


# Which ones, and when.


def test_at_most_twenty_are_pulled_forward_by_one_launch(
    world: World, run_task: StructureShape, pool: str
) -> None:
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(30)))
    assert len(pulled(world, pool)) == MOST_FORWARD == 20
    # The next launch takes the others, and does not look at those again.
    world.points.clear()
    world.is_in_function = True
    assert len(pulled(world, pool)) == 10
    assert world.points.count("before GetSchedule") == 10


def test_three_in_a_row_that_are_due_soon_are_enough(
    world: World, run_task: StructureShape, pool: str
) -> None:
    pend(world, *(wait_for(settings_of(world), run_task, n, minutes=1.9) for n in range(9)))
    world.is_in_function = True
    assert pulled(world, pool) == []
    assert world.points.count("before GetSchedule") == 3


def test_a_replays_schedule_keeps_its_time(
    world: World, run_task: StructureShape, pool: str
) -> None:
    settings = settings_of(world)
    wait = wait_for(settings, run_task, 0)
    name = schedule_name(wait.chain, pool, "retry-run-task-1763856000")
    assert is_replays(name)
    assert not is_replays(wait.name)
    pend(world, replace(wait, name=name))
    assert pulled(world, pool) == []


@pytest.mark.parametrize("count", [101, 350])
def test_of_more_than_a_page_they_are_from_a_random_place(
    count: int, world: World, run_task: StructureShape, pool: str
) -> None:
    first = wait_for(settings_of(world), run_task, 0)
    waits = [
        replace(first, name=schedule_name(replace(first.chain, origin=f"job-{n}"), pool, None))
        for n in range(count)
    ]
    pend(world, *waits)
    world.is_in_function = True
    settings, scheduler = settings_of(world), function.forward_client()
    names = {}
    for n in range(4):
        launched = replace(LAUNCHED, origin=f"launched-{n}")
        names[n] = list(pull_forward(scheduler, launched, pool, settings, lambda: PLENTY))
        assert len({name.split("-")[1][0] for name in names[n]}) <= 2, "one place, or two"
        assert names[n]
    assert len({name.split("-")[1][0] for found in names.values() for name in found}) > 2
    assert world.points.count("before ListSchedules") <= 4 * 3


@given(
    pending=st.integers(1, 20_000),
    was=st.integers(-3600, 86400),
    name=st.text("0123456789abcdef-", min_size=1),
)
def test_an_attempt_is_made_sooner_or_stays(pending: int, was: int, name: str) -> None:
    before = NOW + timedelta(seconds=was)
    after = sooner(name, before, pending, NOW)
    # It is never made later, and an update has a minute to arrive before it would have fired.
    if after is not None:
        assert after + MINUTE <= before <= after + 15 * MINUTE
        latest = NOW + MINUTE + timedelta(seconds=pending / 20 + 1)
        assert NOW + MINUTE <= after <= max(latest, before - 15 * MINUTE)
    else:
        assert before < NOW + 2 * MINUTE + timedelta(seconds=pending / 20 + 1)


@pytest.mark.parametrize(
    ("seconds", "stays"), [(-60, True), (0, True), (119, True), (121, False), (900, False)]
)
def test_what_is_due_within_two_minutes_stays(seconds: int, stays: bool) -> None:
    planned = NOW + timedelta(seconds=seconds)
    assert (sooner("name", planned, 1, NOW) is None) is stays


def test_the_pool_is_spread_at_20_a_second() -> None:
    planned = NOW + 16 * MINUTE
    for pending in (20, 200, 2000):
        dues = [sooner(f"name-{n}", planned, pending, NOW) for n in range(pending)]
        seconds = [(due - NOW).total_seconds() for due in dues if due]
        assert len(seconds) == pending
        assert 60 <= min(seconds) <= max(seconds) <= 61 + pending / 20
        assert max(map(seconds.count, seconds)) < 50


def test_each_launch_gives_an_attempt_about_the_same_time() -> None:
    """Else the earliest of many times would win, and all would be due at once."""
    planned, later = NOW + 16 * MINUTE, NOW + 5 * SECOND_
    for n in range(50):
        first, second = sooner(f"n-{n}", planned, 2000, NOW), sooner(f"n-{n}", planned, 1900, later)
        assert first is not None
        assert second is not None
        assert abs(second - first) <= 6 * SECOND_


# The same attempt, sooner.


def test_all_but_the_time_stays(world: World, run_task: StructureShape, pool: str) -> None:
    wait = wait_for(settings_of(world), run_task, 0)
    pend(world, wait)
    scheduler = boto3.client("scheduler")
    group = world.stack.environment["SCHEDULE_GROUP"]
    (before,) = world.schedules()
    scheduler.get_schedule(GroupName=group, Name=wait.name)
    world.is_in_function = True
    assert pulled(world, pool) == [wait.name]
    (after,) = world.schedules()
    changed = {"ScheduleExpression", "LastModificationDate", "ResponseMetadata"}
    kept = before.keys() - changed - {"Target"}
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    inputs = [schedule["Target"].pop("Input") for schedule in (before, after)]
    assert before["Target"] == after["Target"]
    payloads = [json.loads(text) for text in inputs]
    due = after["ScheduleExpression"][3:-1] + "Z"
    planned = before["ScheduleExpression"][3:-1] + "Z"
    member = payloads[0]["retry-run-task:due"]
    moved = member | {"at": min(due, member["at"]), "planned": planned}
    assert payloads[1] == payloads[0] | {"retry-run-task:due": moved}


def test_a_time_that_a_copy_of_the_attempt_may_have_had_stays() -> None:
    payload, planned = load_event(SECOND) | DUE_NOW, NOW + 10 * MINUTE
    for due, at in ((NOW - MINUTE, NOW - MINUTE), (NOW + MINUTE, NOW)):
        _, progress = unwrap(json.loads(moved_forward(payload, planned, due)))
        assert (progress.due, progress.planned) == (at, planned)


def test_text_that_scheduler_would_fill_in_stays_as_it_was() -> None:
    event = load_event(SECOND) | DUE_NOW
    event["detail"]["requestParameters"]["group"] = "<aws.scheduler.scheduled-time>"
    text = moved_forward(event, NOW + 10 * MINUTE, NOW)
    assert "<" not in text
    found = json.loads(text)["detail"]["requestParameters"]
    assert found == event["detail"]["requestParameters"]


# It costs no budget and grows no backoff.


def decided(
    settings: Settings, run_task: StructureShape, counter: str, progress: Progress
) -> Launch | Wait | Stop:
    call, _ = read(load_event(SECOND), settings)
    tags = [
        {**tag, "value": counter} if tag["key"].endswith("attempt") else tag
        for tag in call.parameters["tags"]
    ]
    call = replace(call, parameters={**call.parameters, "tags": tags})
    return decide(call, caller_of(call, settings), progress, settings, NOW, run_task)


@pytest.mark.parametrize(
    ("counter", "planned", "tag"),
    [
        ("3/10", None, "4/10"),
        ("3/10", LATER, f"4/11 1 {LATER_TEXT}"),
        ("4/11 1", LATER, f"5/12 2 {LATER_TEXT}"),
        (f"4/11 1 {LATER_TEXT}", None, "5/11 1"),
        ("9/10", LATER, f"10/11 1 {LATER_TEXT}"),
        ("11/20", LATER, f"12/21 1 {LATER_TEXT}"),  # after a replay
        ("102/110 99", LATER, f"103/111 100 {LATER_TEXT}"),
        ("103/111 100", None, "104/111 100"),
    ],
)
def test_a_pulled_forward_attempt_takes_the_budgets_end_along(
    counter: str,
    planned: datetime | None,
    tag: str,
    settings: Settings,
    run_task: StructureShape,
) -> None:
    launch = decided(settings, run_task, counter, Progress(due=NOW, planned=planned))
    assert isinstance(launch, Launch)
    tags = {each["key"]: each["value"] for each in launch.request["tags"]}
    assert tags["retry-run-task:attempt"] == tag


@pytest.mark.parametrize(("counter", "step"), [("3/10", 4), ("4/11 1", 4), ("8/15 5", 4)])
def test_the_backoff_does_not_count_what_was_pulled_forward(
    counter: str, step: int, settings: Settings, run_task: StructureShape
) -> None:
    wait = decided(settings, run_task, counter, Progress())
    assert isinstance(wait, Wait)
    name = f"{wait.chain.origin}-{wait.chain.attempt}"
    due = delay(name, step, settings.backoff_base, settings.backoff_cap)
    assert due <= wait.until - NOW < due + SECOND_


def test_the_budgets_end_says_how_many_were_pulled_forward(
    settings: Settings, run_task: StructureShape
) -> None:
    stop = decided(settings, run_task, f"12/12 2 {LATER_TEXT}", Progress())
    assert isinstance(stop, Stop)
    assert stop.detail == "The budget of 10 attempts is used up. 2 more were pulled forward."


@pytest.mark.parametrize(
    "counter",
    [
        "3/10 3",
        "3/10 4",
        "200/201 101",
        "3/10 0",
        "3/10 x",
        "3/10 ",
        "3/10 1 then",
        "3/10 1 2026-11-23T99:00:04Z",
        "3/10 2026-11-23T00:00:04Z",
    ],
)
def test_a_counter_that_cannot_be_right_stops_the_chain(counter: str) -> None:
    tags = [
        {"key": "retry-run-task:attempt", "value": counter},
        {"key": "retry-run-task:origin", "value": "o"},
        {"key": "retry-run-task:since", "value": "2026-11-23T00:00:04Z"},
    ]
    with pytest.raises(NotExact, match="retry-run-task:attempt"):
        chain_in(tags, "o-1")


def test_a_chain_reads_what_it_has_written() -> None:
    for chain in (
        Chain("o", NOW, 5, 12, None, 2, LATER),
        Chain("o", NOW, 5, 12, None, 2),
        Chain("o", NOW, 5, 12, NOW, 0),
    ):
        assert chain_in(chain.tags, "o-5") == chain


def test_in_vain_it_waits_its_time_again_and_has_its_whole_budget_still(pool: str) -> None:
    parameters = {"MaxAttempts": "3", "BackoffBaseSeconds": "600"}
    with World(Stack(parameters), NOW, failures=1) as world:
        world.begin(load_event(FARGATE))
        while not world.schedules():
            world.step()
        world.wait(MINUTE)
        assert len(pulled(world, pool)) == 1  # another job is launched
        world.watch_schedules()
        world.ecs.failures = EVER
        world.run()
        (origin,) = {name.split("-", 2)[2] for name in world.forwarded}
    assert origin == f"{ORIGIN}-2"
    assert [(o["outcome"], o["attempt"]) for o in world.outcomes] == [
        ("FAILED_AGAIN", "1/3"),
        ("SCHEDULED", "2/3"),
        ("FAILED_AGAIN", "2/4"),
        ("SCHEDULED", "3/4"),
        ("FAILED_AGAIN", "3/4"),
        ("SCHEDULED", "4/4"),
        ("FAILED_AGAIN", "4/4"),
        ("EXHAUSTED", "4/4"),
    ]


@pytest.mark.parametrize(
    ("planned", "low", "high"),
    [
        (NOW + 5 * MINUTE, 300, 300),
        (NOW + 40 * MINUTE, 450, 900),
        (NOW + MINUTE, 61, 120),  # spread as well
        (NOW, 61, 120),
    ],
)
def test_where_the_age_is_limited_the_next_is_no_later_than_one_in_vain_was_planned(
    planned: datetime, low: int, high: int, settings: Settings, run_task: StructureShape
) -> None:
    limited = replace(settings, max_age=timedelta(hours=2))
    wait = decided(limited, run_task, f"8/11 1 {write_time(planned)}", Progress())
    assert isinstance(wait, Wait)
    assert low <= (wait.until - NOW).total_seconds() <= high
    wait = decided(settings, run_task, f"8/11 1 {write_time(planned)}", Progress())
    assert isinstance(wait, Wait)
    assert 450 <= (wait.until - NOW).total_seconds() <= 900


def test_what_another_launch_has_pulled_forward_meanwhile_stays(
    world: World, run_task: StructureShape, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list was older than that; and a list may be old."""
    pend(world, wait_for(settings_of(world), run_task, 0, minutes=60))
    monkeypatch.setattr(forward, "UNCHANGED", timedelta(days=1))
    assert len(pulled(world, pool)) == 1
    assert pulled(world, pool) == []
    assert due_times(world)["0"] == 45 * MINUTE


def test_in_a_row_means_one_after_the_other(
    world: World, run_task: StructureShape, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True, False, False, True, False, False, False, True])
    monkeypatch.setattr(forward, "pull_one", lambda *_: next(answers))
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(12)))
    assert len(pulled(world, pool)) == 2
    assert list(answers) == [True]


def test_two_launches_begin_at_different_places(
    world: World, run_task: StructureShape, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all are on one page: else they would be after the same schedules."""
    monkeypatch.setattr(forward, "pull_one", lambda *_: True)
    pend(world, *(wait_for(settings_of(world), run_task, n) for n in range(30)))
    settings, client = settings_of(world), function.forward_client()
    chosen = [
        list(
            pull_forward(client, replace(LAUNCHED, origin=f"l-{n}"), pool, settings, lambda: PLENTY)
        )
        for n in range(2)
    ]
    assert chosen[0] != chosen[1]
    assert set(chosen[0]) != set(chosen[1])


def test_what_is_decided_too_late_counts_as_not_made(
    settings: Settings, run_task: StructureShape
) -> None:
    launch = decided(settings, run_task, "3/10", Progress(due=NOW, planned=LATER))
    assert isinstance(launch, Launch)
    assert (launch.chain.counter, launch.chain.one_back().counter) == ("4/11", "3/10")
    stop = decided(
        replace(settings, max_age=SECOND_), run_task, "3/10", Progress(due=NOW, planned=LATER)
    )
    assert stop.chain.counter == "3/10"


def test_how_many_are_pending_is_estimated(
    world: World, pool: str, run_task: StructureShape
) -> None:
    first = wait_for(settings_of(world), run_task, 0)
    waits = [
        replace(first, name=schedule_name(replace(first.chain, origin=f"job-{n}"), pool, None))
        for n in range(240)
    ]
    pend(world, *waits)
    numbers = []
    for n in range(8):
        launched = replace(LAUNCHED, origin=f"launched-{n}")
        client = function.forward_client()
        _, pending = forward.some_of(client, launched, pool, settings_of(world), lambda: False)
        numbers.append(pending)
    assert min(numbers) > 100
    assert max(numbers) < 600
    assert len(set(numbers)) > 2, "of several places"


def test_who_was_pulled_forward_a_hundred_times_waits_its_time(
    world: World, run_task: StructureShape, pool: str
) -> None:
    settings = settings_of(world)
    tags = [
        {**tag, "value": "103/111 100"} if tag["key"].endswith("attempt") else tag
        for tag in load_event(SECOND)["detail"]["requestParameters"]["tags"]
    ]
    event = load_event(SECOND)
    event["detail"]["requestParameters"] |= {"tags": tags, "clientToken": f"{ORIGIN}-103"}
    call, progress = read(event, settings)
    wait = decide(call, caller_of(call, settings), progress, settings, NOW, run_task)
    assert isinstance(wait, Wait)
    pend(world, replace(wait, until=LATER))
    assert pulled(world, pool) == []


def test_nothing_is_made_more_than_a_quarter_of_an_hour_sooner() -> None:
    """Its schedule can be made again by a late duplicate, for its whole wait: see backoff.py."""
    assert sooner("name", NOW + timedelta(hours=2), 1, NOW) == NOW + timedelta(minutes=105)


def test_leftovers_of_the_launched_job_stay(
    world: World, run_task: StructureShape, pool: str
) -> None:
    wait = wait_for(settings_of(world), run_task, 0)
    pend(world, replace(wait, name=schedule_name(replace(LAUNCHED, attempt=2), pool, None)))
    assert pulled(world, pool) == []


def test_an_update_keeps_all_that_scheduler_takes() -> None:
    with World(Stack(), NOW):
        model = function.forward_client().meta.service_model.operation_model("UpdateSchedule")
    shape = model.input_shape
    assert shape is not None
    changed = {"ScheduleExpression", "Target", "ClientToken"}
    assert set(KEPT) == shape.members.keys() - changed


def test_age_and_opt_out_hold(world: World, settings: Settings, run_task: StructureShape) -> None:
    due = {"retry-run-task:due": DUE_NOW["retry-run-task:due"] | {"planned": LATER_TEXT}}
    event = load_event(SECOND) | due
    tag = {"key": "retry-run-task:max-attempts", "value": "0"}
    event["detail"]["requestParameters"]["tags"].append(tag)
    assert world.call_handler(event)["outcome"] == "OPTED_OUT"
    progress = Progress(due=NOW, planned=LATER)
    old = replace(settings, max_age=MINUTE)
    stop = decided(old, run_task, "3/10", progress)
    assert isinstance(stop, Stop)
    assert stop.outcome == "EXPIRED"


# The pool.


FARGATE_POOL = {"cluster": JOBS, "launchType": "FARGATE"}


@pytest.mark.parametrize(
    ("parameters", "is_same"),
    [
        ({"cluster": "jobs", "launchType": "FARGATE", "count": 3}, True),
        ({"cluster": "jobs", "capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]}, True),
        ({"cluster": "jobs", "launchType": "EC2"}, False),
        ({"cluster": "jobs"}, False),
        ({"cluster": "other", "launchType": "FARGATE"}, False),
        ({"launchType": "FARGATE"}, False),
        ({"cluster": "jobs", "capacityProviderStrategy": "FARGATE"}, False),  # no strategy
        ({"cluster": "jobs", "capacityProviderStrategy": ["FARGATE"]}, False),
    ],
)
def test_a_pool_is_a_cluster_and_its_launch_type_or_providers(
    parameters: dict[str, Any], is_same: bool, settings: Settings
) -> None:
    assert (pool_of(parameters, settings) == pool_of(FARGATE_POOL, settings)) is is_same


def test_the_order_of_providers_makes_no_pool_of_its_own(settings: Settings) -> None:
    both = [{"capacityProvider": "FARGATE_SPOT", "weight": 3}, {"capacityProvider": "FARGATE"}]
    pools = {
        pool_of({"capacityProviderStrategy": items}, settings)
        for items in (both, both[::-1], both[:1], both[1:])
    }
    assert len(pools) == 3
    assert all(len(pool) == 8 and int(pool, 16) >= 0 for pool in pools)


def test_a_fargate_pool_without_a_cluster_is_that_of_the_default_cluster(
    settings: Settings,
) -> None:
    pools = {pool_of({"cluster": name}, settings) for name in (None, "", "default")}
    assert len(pools) == 1


def test_a_schedule_is_named_for_its_pool(pool: str) -> None:
    now = datetime.now(UTC)
    name = schedule_name(Chain("x" * 36, now, 999_999, EVER), pool, None)
    assert name.startswith(f"{pool}-")
    assert len(name) <= 64
