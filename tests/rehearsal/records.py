"""What people hold of a RunTask call, read as EventBridge shows it: one reader for every form.

An EventBridge event; CloudTrail's bare record, as its console shows it; what
`aws cloudtrail lookup-events` prints, where the record is a string; a log file of CloudTrail's,
plain or compressed; and arrays of any of these.
"""

import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 2**20
STANDARD_INPUT = Path("-")
API_CALL = "AWS API Call via CloudTrail"

# What TestEventPattern asks of an event, and what the envelope of a record is built from.
ENVELOPE = {
    "detail": dict,
    "detail-type": str,
    "source": str,
    "account": str,
    "time": str,
    "id": str,
    "region": str,
    "resources": list,
}
BUILT_FROM = {
    "recipientAccountId": "account",
    "awsRegion": "region",
    "eventTime": "time",
    "eventID": "id",
}

# Whatever begins earlier or ends later leaves no room for a day before and an outage after it.
YEARS = range(2000, 2101)


def title_of(path: Path) -> str:
    """What a message calls the file."""
    return "standard input" if path == STANDARD_INPUT else str(path)


class BadInput(Exception):
    """One line for the person at the terminal: what is wrong, and the way out."""


def read(path: Path) -> list[object]:
    """All that the file, or standard input, holds, one by one; raises BadInput.

    Each is to be taken with `is_run_task` and `event_of`.
    """
    return list(held_in(parse(read_bytes(path))))


def read_bytes(path: Path) -> bytes:
    """The file, or standard input, without its compression; raises BadInput.

    No more than MOST_BYTES is ever read, and no more than that decompressed.
    """
    try:
        if path == STANDARD_INPUT:
            if sys.stdin is None:
                raise BadInput("closed")
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        if data.startswith(b"\x1f\x8b"):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MOST_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"the compressed data is damaged: {error}") from error
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise BadInput(getattr(error, "strerror", None) or str(error)) from error
    if len(data) > MOST_BYTES:
        raise BadInput(f"more than {MOST_BYTES // 2**20} MB: give a part of it")
    return data


def parse(data: bytes) -> Any:
    """The JSON in UTF-8, UTF-16 or UTF-32, with or without a BOM; raises BadInput."""
    if not data.strip():
        raise BadInput("empty")
    try:
        return json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error


def held_in(document: object) -> Iterator[object]:
    """What to take one by one out of arrays, log files and the output of lookup-events."""
    left = [document]
    while left:
        held = left.pop()
        if isinstance(held, str):  # as lookup-events prints with --query
            held = _inside(held)
        if isinstance(held, dict) and not held.keys() & {"detail", "detail-type"}:
            lists = [held[key] for key in ("Records", "Events") if isinstance(held.get(key), list)]
            held = lists[0] if lists else held
            if isinstance(held, dict) and isinstance(held.get("CloudTrailEvent"), str):
                held = _inside(held["CloudTrailEvent"])
        if isinstance(held, list):
            left += reversed(held)
        else:
            yield held


def is_run_task(held: object) -> bool:
    """Is it the event or the record of a RunTask call, whatever came of the call?"""
    if not isinstance(held, dict):
        return False
    detail = held.get("detail")
    if isinstance(detail, dict):
        is_call = (held.get("source"), held.get("detail-type")) == ("aws.ecs", API_CALL)
        return is_call and is_run_task(detail)
    return (held.get("eventSource"), held.get("eventName")) == ("ecs.amazonaws.com", "RunTask")


def event_of(held: object) -> dict[str, Any]:
    """The EventBridge event of a RunTask call; raises BadInput, which says what else it is."""
    if not is_run_task(held):
        raise BadInput(f"{what_is(held)}: give the event or CloudTrail's record of a RunTask call")
    assert isinstance(held, dict)
    event = dict(held) if "detail" in held else _envelope(held)
    for key, kind in ENVELOPE.items():
        if not isinstance(event.get(key), kind):
            raise BadInput(
                f"not a whole EventBridge event, {key!r} is missing or ill-typed: "
                'give all of it, from "version" to "detail"'
            )
    if not re.fullmatch("[0-9]{12}", event["account"]):
        raise BadInput(f"'account' is {event['account']!r:.40}, not the 12 digits of an account")
    moment_of(event)
    return event


def moment_of(event: Mapping[str, Any]) -> datetime:
    """When EventBridge says that it happened; raises BadInput."""
    try:
        moment = read_moment(event["time"])
    except (ValueError, OverflowError) as error:
        raise BadInput(f"'time' is no time: {event['time']!r:.40}") from error
    if moment.year not in YEARS:
        raise BadInput(f"'time' is not between {YEARS[0]} and {YEARS[-1]}: {event['time']!r:.40}")
    return moment


def read_moment(text: str) -> datetime:
    """ISO 8601, in UTC where it names no zone; raises ValueError and OverflowError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def what_is(held: object) -> str:
    """A few words for what is no RunTask call."""
    if not isinstance(held, dict):
        return f"not an event: {json.dumps(held):.40}"
    if isinstance(held.get("detail-type"), str):
        kind, detail = held["detail-type"], held.get("detail")
        if kind == API_CALL and isinstance(detail, dict):
            return what_is(detail)
        if "requestPayload" in (detail if isinstance(detail, dict) else {}):
            return f"an event {kind!r:.80}, which holds the failed call in detail.requestPayload"
        return f"an event {kind!r:.80} of {held.get('source')!r:.40}"
    if isinstance(held.get("eventName"), str):
        return (
            f"CloudTrail's record of {held['eventName']!r:.80} of {held.get('eventSource')!r:.40}"
        )
    if held.keys() & {"failures", "tasks"}:
        return "RunTask's answer, without the call"
    return f"not an event: its keys are {', '.join(map(repr, held)) or 'none'!s:.80}"


def _envelope(record: Mapping[str, Any]) -> dict[str, Any]:
    """What EventBridge puts around the record of an API call (aws-facts, section 1)."""
    for name in BUILT_FROM:
        if not isinstance(record.get(name), str):
            raise BadInput(
                f"CloudTrail's record of RunTask without {name!r}: give the whole record"
            )
    return {
        "version": "0",
        "detail-type": API_CALL,
        "source": "aws.ecs",
        "resources": [],
        **{key: record[name] for name, key in BUILT_FROM.items()},
        "detail": dict(record),
    }


def _inside(text: str) -> Any:
    """A record that stands in a string."""
    return parse(text.encode(errors="surrogatepass"))


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
