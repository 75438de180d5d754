"""The chain of a job, line by line, as the function's log shows it while it goes on."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

# Between two looks. FilterLogEvents takes 5 calls a second in the smallest Regions (CloudWatch Logs
# quotas), for the whole account.
PAUSE = timedelta(seconds=5)

# The clocks of this machine and of AWS may differ by so much.
SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log: an outcome, or the error that an invocation ended in."""

    moment: datetime
    line: Mapping[str, Any]

    @property
    def error(self) -> str:
        """The error; empty for an outcome."""
        if "errorType" not in self.line:
            return ""
        return f"{self.line['errorType']}: {self.line.get('errorMessage', '')}"


def outcomes_of(member: str, value: str) -> str:
    """The pattern of the lines with this member of an outcome."""
    return f'{{ $.{member} = "{value}" }}'


def chain_of(origin: str, request_id: str) -> str:
    """The pattern of the lines of one chain, and of the errors of the invocation it begins with.

    The error of a later invocation does not name its chain.
    """
    return f'{{ ($.origin = "{origin}") || ($.requestId = "{request_id}") }}'


def entries(
    logs: Any, log_group: str, pattern: str, since: datetime, until: datetime
) -> Iterator[Entry]:
    """What matches the pattern, each line once and as soon as it is there, until the time is over.

    Raises botocore's exceptions.
    """
    seen: set[str] = set()
    start = int((since - SKEW).timestamp() * 1000)
    while True:
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=log_group, filterPattern=pattern, startTime=start
        )
        found = [event for page in pages for event in page["events"]]
        for event in sorted(found, key=lambda event: (event["timestamp"], event["eventId"])):
            entry = _read(event)
            if event["eventId"] not in seen and entry is not None:
                yield entry
            seen.add(event["eventId"])
        now = datetime.now(UTC)
        if now >= until:
            return
        time.sleep(min(PAUSE, until - now).total_seconds())


def _read(event: Mapping[str, Any]) -> Entry | None:
    """The line; None for others that the invocation has written."""
    try:
        line = json.loads(event["message"])
    except ValueError:
        return None
    if not isinstance(line, dict) or not {"outcome", "errorType"} & line.keys():
        return None
    return Entry(datetime.fromtimestamp(event["timestamp"] / 1000, UTC), line)
