"""Whose retries a storm is played with: this stack's, the seed idea's, and other systems'."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from retry_run_task.backoff import spread

CAPACITY = (
    "Capacity is unavailable at this time. "
    "Please try again later or in a different availability zone"
)

# Outcomes of jobs that are not this stack's to retry.
LEFT_ALONE = ("UNMATCHED", "LEFT_ALONE", "OPTED_OUT")

# The waits in seconds after each failed attempt of a job.
Waits = Callable[[str], Iterator[float]]


@dataclass(frozen=True, slots=True)
class Published:
    """How a caller retries by itself, as published in `source`; `shown` says its waits in words."""

    waits: Waits
    shown: str
    source: str

    @property
    def attempts(self) -> int:
        """How many attempts follow the failed call."""
        return len(list(self.waits("any job")))


PUBLISHED = {
    # Without a Retry in the state machine, there is no retry at all.
    "step-functions-retry": Published(
        lambda _: iter((1, 2, 4)),
        "1, 2, 4 s",
        "Amazon States Language, Retry's defaults",
    ),
    "dagster": Published(
        lambda _: iter(0.1 * 2**n for n in range(5)),
        "0.1 s, doubled each time",
        "dagster-aws, EcsRunLauncher",
    ),
    "prefect": Published(
        lambda job: iter(1 + 3 * spread(f"{job}/{n}") for n in range(2)),
        "1 s and up to 3 s more",
        "prefect-aws, ECS worker",
    ),
    "airflow": Published(
        lambda _: iter(min(4.0**n, 120) for n in (1, 2)),
        "4, 16 s",
        "apache-airflow-providers-amazon, executor",
    ),
    "fixed-60s": Published(
        lambda _: iter((60, 60, 60)),
        "60 s each",
        "a usual loop in a script",
    ),
}
OURS = "retry-run-task"
BEFORE = "without-pull-forward"  # this stack with PullForward=false
OWN = (OURS, BEFORE)
SEED_IDEA = "seed-idea"
POLICIES = (*OWN, SEED_IDEA, *PUBLISHED)

USUAL_OUTAGE = timedelta(minutes=25)
# With all policies, how many jobs are launched is shown for these outages as well.
OUTAGES = {
    "10m": timedelta(minutes=10),
    "40m": timedelta(minutes=40),
    "2h": timedelta(hours=2),
}
