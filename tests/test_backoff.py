"""When: exponential, capped, spread, never under a minute, and the same for twins."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.template import Stack
from retry_run_task.backoff import SHORTEST, delay, spread

BASE, CAP = timedelta(seconds=60), timedelta(seconds=900)
ORIGINS = st.text("0123456789abcdef-", min_size=1, max_size=36)
SECONDS = st.integers(60, 86400).map(lambda seconds: timedelta(seconds=seconds))


def longest(attempt: int, base: timedelta, cap: timedelta) -> timedelta:
    return min(cap, base * (1 << (attempt - 2)))


@given(origin=ORIGINS, attempt=st.integers(2, 30), base=SECONDS, cap=SECONDS)
def test_a_delay_is_between_half_and_all_of_the_capped_exponential(
    origin: str, attempt: int, base: timedelta, cap: timedelta
) -> None:
    waited, most = delay(origin, attempt, base, cap), longest(attempt, base, cap)
    assert max(SHORTEST, most / 2) <= waited
    assert waited < most or waited == SHORTEST


@pytest.mark.parametrize(
    ("attempt", "low", "high"),
    [(2, 60, 60), (3, 60, 120), (4, 120, 240), (5, 240, 480), (6, 450, 900), (10, 450, 900)],
)
def test_the_defaults_wait_as_the_readme_says(attempt: int, low: int, high: int) -> None:
    waits = [delay(f"job-{n}", attempt, BASE, CAP).total_seconds() for n in range(500)]
    assert low <= min(waits) <= low * 1.01
    assert high * 0.99 <= max(waits) <= high


@given(origin=ORIGINS, base=SECONDS, cap=SECONDS)
def test_delays_grow_up_to_the_cap(origin: str, base: timedelta, cap: timedelta) -> None:
    # Apart from the spread, which may take up to a half.
    most = [
        delay(origin, attempt, base, cap) / (0.5 + spread(f"{origin}-{attempt}") / 2)
        for attempt in range(2, 20)
    ]
    for shorter, longer in pairwise(max(wait, SHORTEST * 2) for wait in most):
        assert shorter <= longer + timedelta(milliseconds=1)


@given(origin=ORIGINS, attempt=st.integers(2, 100))
def test_twins_wait_for_the_same_time(origin: str, attempt: int) -> None:
    assert delay(origin, attempt, BASE, CAP) == delay(str(origin), attempt, BASE, CAP)


def test_a_storm_is_spread_evenly() -> None:
    tenths = [0] * 10
    for n in range(10_000):
        tenths[int(spread(f"{n:036}-6") * 10)] += 1
    assert min(tenths) > 900
    assert max(tenths) < 1100


def test_the_defaults_cover_45_to_90_minutes(stack: Stack) -> None:
    base = timedelta(seconds=int(stack.environment["BACKOFF_BASE_SECONDS"]))
    cap = timedelta(seconds=int(stack.environment["BACKOFF_CAP_SECONDS"]))
    attempts = range(2, int(stack.environment["MAX_ATTEMPTS"]) + 1)
    least = sum((max(SHORTEST, longest(k, base, cap) / 2) for k in attempts), timedelta())
    most = sum((longest(k, base, cap) for k in attempts), timedelta())
    assert timedelta(minutes=45) <= least < timedelta(minutes=46)
    assert most == timedelta(minutes=90)
