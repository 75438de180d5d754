"""CloudTrail's Event history: the management events of 90 days, which need no trail."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from retry_run_task.transient import transient

if TYPE_CHECKING:
    from mypy_boto3_cloudtrail import CloudTrailClient
    from mypy_boto3_cloudtrail.type_defs import EventTypeDef

# CloudTrail keeps 90 days, and takes two calls a second of an account in a Region, each for up to
# 50 events (LookupEvents, API reference).
MOST_DAYS = 90
SECONDS_A_CALL = 0.5
MOST_EVENTS = 50

# The seconds to wait after each error that passes by itself, for others may look as well. The SDK
# waits for less than half a second, and its tries would count.
WAITS = (1, 2, 4, 8, 16, 32)
CLIENT_CONFIG = Config(
    connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 1}
)


def event_history(
    cloudtrail: "CloudTrailClient", since: datetime, until: datetime
) -> Iterator[list["EventTypeDef"]]:
    """Pages of the RunTask events of that time, the newest first.

    Raises botocore's ClientError and BotoCoreError.
    """
    wanted: dict[str, Any] = {
        "LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "RunTask"}],
        "StartTime": since,
        "EndTime": until,
        "MaxResults": MOST_EVENTS,
    }
    waits = list(WAITS)
    while True:
        called = time.monotonic()
        try:
            page = cloudtrail.lookup_events(**wanted)
        except (ClientError, BotoCoreError) as error:
            # No connection at all, to begin with, is a matter of the Region or the network.
            is_begun = "NextToken" in wanted or isinstance(error, ClientError)
            if not (is_begun and waits and transient(error)):
                raise
            time.sleep(waits.pop(0))
            continue
        yield page["Events"]  # absent where it is not AWS that answers
        if not page.get("NextToken"):
            return
        wanted["NextToken"], waits = page["NextToken"], list(WAITS)
        time.sleep(max(0.0, called + SECONDS_A_CALL - time.monotonic()))
