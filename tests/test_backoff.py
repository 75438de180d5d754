"""When: exponential, capped, spread, never under a minute, and the same for duplicates."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.template import Stack
from retry_run_task.backoff import SHORTEST, delay, spread

BASE, CAP = timedelta(seconds=60), timedelta(seconds=900)
NAMES = st.text("0123456789abcdef-", min_size=1, max_size=36)
SECONDS = st.integers(60, 86400).map(lambda seconds: timedelta(seconds=seconds))


def longest(step: int, base: timedelta, cap: timedelta) -> timedelta:
    return max(SHORTEST * 2, min(cap, base * (1 << (step - 2))))


@given(name=NAMES, step=st.integers(2, 30), base=SECONDS, cap=SECONDS)
def test_a_delay_is_between_half_and_all_of_the_capped_exponential(
    name: str, step: int, base: timedelta, cap: timedelta
) -> None:
    waited, most = delay(name, step, base, cap), longest(step, base, cap)
    assert max(SHORTEST, most / 2) <= waited < most


@pytest.mark.parametrize(
    ("step", "low", "high"),
    [(2, 60, 120), (3, 60, 120), (4, 120, 240), (5, 240, 480), (6, 450, 900), (10, 450, 900)],
)
def test_the_defaults_wait_as_the_readme_says(step: int, low: int, high: int) -> None:
    waits = [delay(f"job-{n}", step, BASE, CAP).total_seconds() for n in range(500)]
    assert low <= min(waits) <= low * 1.01
    assert high * 0.99 <= max(waits) <= high


@given(step=st.integers(2, 100), base=SECONDS, cap=SECONDS)
def test_no_attempt_is_without_spread(step: int, base: timedelta, cap: timedelta) -> None:
    waits = [delay(f"job-{n}", step, base, cap) for n in range(100)]
    assert max(waits) - min(waits) > timedelta(seconds=50)


@given(name=NAMES, base=SECONDS, cap=SECONDS)
def test_delays_grow_up_to_the_cap(name: str, base: timedelta, cap: timedelta) -> None:
    waits = [delay(name, step, base, cap) for step in range(2, 20)]
    assert waits == sorted(waits)


@given(name=NAMES, step=st.integers(2, 100))
def test_duplicates_wait_for_the_same_time(name: str, step: int) -> None:
    assert delay(name, step, BASE, CAP) == delay(str(name), step, BASE, CAP)


def test_a_storm_is_spread_evenly() -> None:
    tenths = [0] * 10
    for n in range(10_000):
        tenths[int(spread(f"{n:036}-6") * 10)] += 1
    assert min(tenths) > 900
    assert max(tenths) < 1100


def test_the_defaults_cover_45_to_91_minutes(stack: Stack) -> None:
    base = timedelta(seconds=int(stack.environment["BACKOFF_BASE_SECONDS"]))
    cap = timedelta(seconds=int(stack.environment["BACKOFF_CAP_SECONDS"]))
    attempts = range(2, int(stack.environment["MAX_ATTEMPTS"]) + 1)
    least = sum((longest(k, base, cap) / 2 for k in attempts), timedelta())
    most = sum((longest(k, base, cap) for k in attempts), timedelta())
    assert timedelta(minutes=45) <= least < timedelta(minutes=46)
    assert most == timedelta(minutes=91)
