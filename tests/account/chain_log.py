"""The chain of a job, line by line, as the function's log shows it while it goes on."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from retry_run_task.transient import transient

# Between two looks. FilterLogEvents takes 5 calls a second in the smallest Regions (CloudWatch Logs
# quotas), for the whole account.
PAUSE = timedelta(seconds=5)

# The clocks of this machine and of AWS may differ by so much.
SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log: an outcome, an error, or Lambda's report of an invocation."""

    moment: datetime
    line: Mapping[str, Any]

    @property
    def outcome(self) -> str:
        """The outcome; empty for all else."""
        return str(self.line.get("outcome") or "")

    @property
    def error(self) -> str:
        """The error that the function ended in; empty for all else."""
        if "errorType" not in self.line:
            return ""
        return f"{self.line['errorType']}: {self.line.get('errorMessage', '')}"

    @property
    def end(self) -> str:
        """How Lambda says that the invocation ended: `success`, `timeout`, …; empty for all else.

        That of a crash, and of code that cannot be loaded, is the only line of it (Lambda Telemetry
        API reference, `platform.report`).
        """
        record = self.line.get("record")
        is_report = self.line.get("type") == "platform.report" and isinstance(record, Mapping)
        return str(record.get("status") or "") if is_report and record else ""

    def text(self, member: str) -> str:
        """A member of an outcome that is text; empty without it."""
        value = self.line.get(member)
        return value if isinstance(value, str) else ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ARNs of the tasks that an outcome names."""
        tasks = self.line.get("tasks")
        return tuple(map(str, tasks)) if isinstance(tasks, list) else ()


def outcomes_of(member: str, value: str) -> str:
    """The pattern of the lines with this member of an outcome."""
    return f'{{ $.{member} = "{value}" }}'


def chain_of(origin: str, request_id: str) -> str:
    """The pattern of the lines of one chain, and of the errors of the invocation it begins with.

    The error of a later invocation does not name its chain.
    """
    pairs = {"origin": origin, "requestId": request_id, "record.requestId": request_id}
    either = " || ".join(f'($.{name} = "{value}")' for name, value in pairs.items())
    return f"{{ {either} }}"


def entries(
    logs: Any, log_group: str, pattern: str, since: datetime, until: datetime
) -> Iterator[Entry]:
    """What matches the pattern, each line once and as soon as it is there, until the time is over.

    Raises botocore's exceptions for what does not pass by itself, or has not passed in time.
    """
    seen: set[str] = set()
    start = int((since - SKEW).timestamp() * 1000)
    while True:
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=log_group, filterPattern=pattern, startTime=start
        )
        found, problem = [], None
        try:
            found = [event for page in pages for event in page["events"]]
        except (ClientError, BotoCoreError) as error:
            if transient(error) is None:
                raise
            problem = error
        for event in sorted(found, key=lambda event: (event["timestamp"], event["eventId"])):
            entry = _read(event)
            if event["eventId"] not in seen and entry is not None:
                yield entry
            seen.add(event["eventId"])
        now = datetime.now(UTC)
        if now >= until and problem is not None:
            raise problem
        if now >= until:
            return
        time.sleep(min(PAUSE, until - now).total_seconds())


def _read(event: Mapping[str, Any]) -> Entry | None:
    """The line; None for what is not JSON."""
    try:
        line = json.loads(event["message"])
    except ValueError:
        return None
    if not isinstance(line, dict):
        return None
    return Entry(datetime.fromtimestamp(event["timestamp"] / 1000, UTC), line)
