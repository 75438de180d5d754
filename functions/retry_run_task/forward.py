"""Act: when capacity is back, pull other pending attempts of the same pool forward.

It changes when they are made, never whether or what: each keeps its one schedule, with its name.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import ClientError

from retry_run_task.backoff import MOST_GAIN, SHORTEST, spread
from retry_run_task.chain import MAX_FORWARDED, Chain, chain_in, is_replays
from retry_run_task.progress import is_forwarded, moved_forward
from retry_run_task.settings import Settings
from retry_run_task.wait import expression

if TYPE_CHECKING:
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_scheduler.type_defs import ScheduleSummaryTypeDef

# One try of 2 + 5 s: what is throttled is left to the next launch. There must be the time for one
# list, or to read and update one schedule.
CLIENT_CONFIG = Config(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 1}
)
LEAST_MILLISECONDS = 15_000

# How many a launch pulls forward, at most: each of them pulls others forward when it is launched.
MOST_FORWARD = 20

# Fargate starts 20 tasks a second (Fargate throttling quotas): sooner than that makes no sense.
LAUNCHES_A_SECOND = 20

# What gains less than a minute stays where it is: it may fire before the update arrives. Where so
# many in a row stay, somebody else was here.
LEAST_GAIN = timedelta(minutes=1)
MOST_IN_A_ROW = 3

# ListSchedules gives up to 100 (`MaxResults`), in an order that is not documented. Behind the pool,
# a schedule's name has three random hex digits: each in the prefix leaves a sixteenth of them. That
# a page with fewer is the only one is a guess: else some are not found.
PAGE = 100
MOST_DIGITS = 3

# The two dates of a schedule that was only created (whether they are equal is a guess).
UNCHANGED = timedelta(seconds=1)

# The schedule has fired meanwhile; something else is changing it; or it cannot be changed at all.
STAYS = ("ResourceNotFoundException", "ConflictException", "ValidationException")

# UpdateSchedule replaces the whole schedule: what is left out is reset to its default (API
# reference). GetSchedule tells more than it takes.
KEPT = (
    "ActionAfterCompletion",
    "Description",
    "EndDate",
    "FlexibleTimeWindow",
    "GroupName",
    "KmsKeyArn",
    "Name",
    "ScheduleExpressionTimezone",
    "StartDate",
    "State",
)


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

    def is_over() -> bool:
        return time_left() < LEAST_MILLISECONDS

    names, pending = some_of(scheduler, launched, pool, settings, is_over)
    forwarded = soon = 0
    for name in sorted(names, key=lambda name: spread(f"{launched.origin}/{name}")):
        if forwarded == MOST_FORWARD or soon == MOST_IN_A_ROW or is_over():
            return
        if pull_one(scheduler, name, pending, settings):
            forwarded, soon = forwarded + 1, 0
            yield name
        else:
            soon += 1


def some_of(
    scheduler: "EventBridgeSchedulerClient",
    launched: Chain,
    pool: str,
    settings: Settings,
    is_over: Callable[[], bool],
) -> tuple[list[str], int]:
    """Schedules of the pool that can be pulled forward, and how many it has in all, about.

    Of more than a page, they are from a random place; and from one more, where somebody else was
    there before. The place depends on what was `launched`.
    """

    def page_of(place: str) -> list["ScheduleSummaryTypeDef"]:
        if is_over():
            return []
        page = scheduler.list_schedules(
            GroupName=settings.schedule_group, NamePrefix=f"{pool}-{place}", MaxResults=PAGE
        )
        return page["Schedules"]

    seed = f"{launched.origin}-{launched.made}"
    digits, place = iter(hashlib.sha256(seed.encode()).hexdigest()), ""
    page = page_of(place)
    while len(page) == PAGE and len(place) < MOST_DIGITS:
        place += next(digits)
        page = page_of(place)
    pending = len(page) * 16 ** len(place)
    if place and len(page_names(page, launched)) < MOST_FORWARD:
        another = next(digit for digit in digits if digit != place[-1])
        page = page + page_of(place[:-1] + another)
    return page_names(page, launched), pending


def page_names(page: Iterable["ScheduleSummaryTypeDef"], launched: Chain) -> list[str]:
    """Those that nobody has pulled forward yet; none of a replay or of the launched chain."""
    return [
        found["Name"]
        for found in page
        if found["LastModificationDate"] - found["CreationDate"] < UNCHANGED
        and not is_replays(found["Name"])
        and f"-{launched.origin}-" not in found["Name"]
    ]


def pull_one(
    scheduler: "EventBridgeSchedulerClient", name: str, pending: int, settings: Settings
) -> bool:
    """Pull this attempt forward, unless it is due soon; whether it was."""
    try:
        found: Mapping[str, Any] = scheduler.get_schedule(
            GroupName=settings.schedule_group, Name=name
        )
        planned = datetime.strptime(found["ScheduleExpression"], "at(%Y-%m-%dT%H:%M:%S)").replace(
            tzinfo=UTC
        )
        payload = json.loads(found["Target"]["Input"])
        due = sooner(name, planned, pending, datetime.now(UTC))
        if due is None or is_forwarded(payload) or forwarded_in(payload) >= MAX_FORWARDED:
            return False
        kept: dict[str, Any] = {key: found[key] for key in KEPT if key in found}
        kept["ScheduleExpression"] = expression(due)
        kept["Target"] = {**found["Target"], "Input": moved_forward(payload, planned, due)}
        scheduler.update_schedule(**kept)
    except ClientError as error:
        if error.response["Error"]["Code"] not in STAYS:
            raise
        return False
    return True


def forwarded_in(payload: Mapping[str, Any]) -> int:
    """How many attempts of its chain were pulled forward already."""
    chain = chain_in(payload["detail"]["requestParameters"].get("tags") or [], None)
    return chain.forwarded if chain else 0


def sooner(name: str, planned: datetime, pending: int, now: datetime) -> datetime | None:
    """When the attempt that is `planned` for then is made instead; None if it stays.

    The pool's `pending` attempts are spread over the time that they need at 20 a second, from a
    minute from now on: each launch gives one attempt about the same time.
    """
    wait = SHORTEST + timedelta(seconds=pending / LAUNCHES_A_SECOND) * spread(name)
    soonest = (now + wait + timedelta(seconds=1, microseconds=-1)).replace(microsecond=0)
    due = max(soonest, planned - MOST_GAIN)
    return due if planned - due >= LEAST_GAIN else None
