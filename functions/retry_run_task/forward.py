"""Act: when capacity is back, pull other pending attempts of the same pool forward.

It changes when they are made, never whether or what: each keeps its one schedule, with its name.
"""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import ClientError

from retry_run_task.backoff import SHORTEST, spread
from retry_run_task.chain import Chain, is_replays
from retry_run_task.progress import moved_forward
from retry_run_task.settings import Settings
from retry_run_task.wait import expression

if TYPE_CHECKING:
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_scheduler.type_defs import ListSchedulesOutputTypeDef

# One try of 2 + 5 s: what is throttled is left to the next launch. Before each schedule, there must
# be the time to read and update it.
CLIENT_CONFIG = Config(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 1}
)
LEAST_MILLISECONDS = 15_000

# Each launch pulls so many forward at most: with those of the launches that follow, all are soon.
MOST = 20

# Fargate starts 20 tasks a second (Fargate throttling quotas): sooner than that makes no sense.
A_SECOND = 20

# What gains less than a minute stays where it is: it may fire before the update arrives. Where so
# many in a row are due soon, somebody else was here.
LEAST_GAIN = timedelta(minutes=1)
MOST_IN_A_ROW = 3

# ListSchedules gives up to 100 (`MaxResults`), in an order that is not documented. Behind the pool,
# a schedule's name has three random hex digits: each in the prefix leaves a sixteenth of them.
PAGE = 100
MOST_DIGITS = 3

# The two dates of a schedule that was only created (whether they are equal is a guess).
UNCHANGED = timedelta(seconds=1)

# The schedule has fired meanwhile; or something else is changing it.
GONE = ("ResourceNotFoundException", "ConflictException")

# GetSchedule tells more than UpdateSchedule takes. That one replaces the whole schedule: what is
# left out is reset to its default (UpdateSchedule, API reference).
SHOWN_ONLY = ("Arn", "CreationDate", "LastModificationDate", "ResponseMetadata")


def pull_forward(
    scheduler: "EventBridgeSchedulerClient",
    launched: Chain,
    pool: str,
    settings: Settings,
    time_left: Callable[[], int],
) -> Iterator[str]:
    """Update schedules of the pool, because an attempt of it was launched; their names.

    `time_left` gives the milliseconds that Lambda still lets this invocation run. Raises botocore's
    ClientError for what Scheduler rejects, throttles included.
    """
    seed = f"{launched.origin}-{launched.made}"
    names, pending = some_of(scheduler, pool, settings, seed)
    forwarded = soon = 0
    for name in sorted(names, key=lambda name: spread(f"{seed}/{name}")):
        is_enough = forwarded == MOST or soon == MOST_IN_A_ROW
        if is_enough or time_left() < LEAST_MILLISECONDS:
            return
        if update(scheduler, name, pending, settings):
            forwarded, soon = forwarded + 1, 0
            yield name
        else:
            soon += 1


def some_of(
    scheduler: "EventBridgeSchedulerClient", pool: str, settings: Settings, seed: str
) -> tuple[list[str], int]:
    """Schedules of the pool that nobody has pulled forward, and how many it has in all, about.

    Of more than a page, they are from a random place, which `seed` decides; and from one more,
    where somebody else was there before.
    """

    def page_of(prefix: str) -> "ListSchedulesOutputTypeDef":
        return scheduler.list_schedules(
            GroupName=settings.schedule_group, NamePrefix=prefix, MaxResults=PAGE
        )

    digits = iter(hashlib.sha256(seed.encode()).hexdigest())
    place = ""
    page = page_of(f"{pool}-")
    while "NextToken" in page and len(place) < MOST_DIGITS:
        place += next(digits)
        page = page_of(f"{pool}-{place}")
    pending = len(page["Schedules"]) * 16 ** len(place)
    names = waiting_in(page)
    if place and len(names) < MOST:
        names += waiting_in(page_of(f"{pool}-{place[:-1]}{next(digits)}"))
    return names, pending


def waiting_in(page: "ListSchedulesOutputTypeDef") -> list[str]:
    """Schedules of attempts that nobody has pulled forward yet, and of no replay."""
    return [
        found["Name"]
        for found in page["Schedules"]
        if found["LastModificationDate"] - found["CreationDate"] < UNCHANGED
        and not is_replays(found["Name"])
    ]


def update(
    scheduler: "EventBridgeSchedulerClient", name: str, pending: int, settings: Settings
) -> bool:
    """Pull this attempt forward, unless it is due soon; whether it was."""
    try:
        found = scheduler.get_schedule(GroupName=settings.schedule_group, Name=name)
        due = sooner(name, found["ScheduleExpression"], pending, datetime.now(UTC))
        if due is None:
            return False
        kept: dict[str, Any] = {k: v for k, v in found.items() if k not in SHOWN_ONLY}
        payload = moved_forward(found["Target"]["Input"], due)
        kept["ScheduleExpression"] = expression(due)
        kept["Target"] = {**found["Target"], "Input": payload}
        scheduler.update_schedule(**kept)
    except ClientError as error:
        if error.response["Error"]["Code"] not in GONE:
            raise
        return False
    return True


def sooner(name: str, at: str, pending: int, now: datetime) -> datetime | None:
    """When the attempt of the schedule that says `at` is made instead; None if it stays.

    The pool's `pending` attempts are spread over the time that they need at 20 a second, from a
    minute from now on: each launch gives one attempt about the same time.
    """
    was = datetime.strptime(at, "at(%Y-%m-%dT%H:%M:%S)").replace(tzinfo=UTC)
    wait = SHORTEST + timedelta(seconds=pending / A_SECOND) * spread(name)
    due = (now + wait + timedelta(seconds=1, microseconds=-1)).replace(microsecond=0)
    return due if was - due >= LEAST_GAIN else None
