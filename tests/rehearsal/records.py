"""What people hold of a RunTask call, read as EventBridge shows it: one reader for every form.

An EventBridge event; CloudTrail's bare record, as its console shows it; what
`aws cloudtrail lookup-events` prints, where the record is a string; a log file of CloudTrail's,
plain or compressed; and arrays of any of these.
"""

import contextlib
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

# A file of nothing but these, BOMs among them, is empty.
BLANK = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"
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
            data = _decompressed(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"the compressed data is damaged: {error}") from error
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise BadInput(getattr(error, "strerror", None) or str(error)) from error
    if len(data) > MOST_BYTES:
        raise BadInput(f"more than {MOST_BYTES // 2**20} MB: give a part of it")
    return data


def _decompressed(data: bytes) -> bytes:
    """At once where it is one member, as CloudTrail's are: GzipFile takes twice as long."""
    member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    whole = member.decompress(data, MOST_BYTES + 1)
    if member.eof and not member.unused_data:
        return whole
    return gzip.GzipFile(fileobj=io.BytesIO(data)).read(MOST_BYTES + 1)


def parse(data: bytes) -> Any:
    """The JSON in UTF-8, UTF-16 or UTF-32, with or without a BOM; raises BadInput."""
    if not data.strip(BLANK):
        raise BadInput("empty")
    try:
        return json.loads(data, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise BadInput(f"not JSON in UTF-8 or UTF-16: {error}") from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise BadInput("several JSON documents: put them into an array") from error
        raise BadInput(f"not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error


def held_in(document: object) -> Iterator[object]:
    """What to take one by one out of arrays, log files and the output of lookup-events."""
    left = [document]
    while left:
        held = left.pop()
        if isinstance(held, dict) and not held.keys() & {"detail", "detail-type"}:
            lists = [held[key] for key in ("Records", "Events") if isinstance(held.get(key), list)]
            held = lists[0] if lists else held.get("CloudTrailEvent") or held
        if isinstance(held, str):  # a record, as lookup-events prints it
            with contextlib.suppress(BadInput):
                left.append(parse(held.encode(errors="surrogatepass")))
                continue
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
    if isinstance(held, str):
        return f"text that is no JSON: {held!r:.60}"
    if not isinstance(held, dict):
        return f"not an event: {json.dumps(held):.60}"
    detail = held.get("detail")
    if isinstance(held.get("detail-type"), str):
        if held["detail-type"] == API_CALL:
            return what_is(detail) if isinstance(detail, dict) else "an event without 'detail'"
        what = f"an event {held['detail-type']!r:.80}"
        if holds_a_call(held):
            return f"{what}, which holds the failed call in detail.requestPayload"
        return f"{what} of {held.get('source')!r:.40}"
    if isinstance(held.get("eventName"), str):
        return (
            f"CloudTrail's record of {held['eventName']!r:.80} of {held.get('eventSource')!r:.40}"
        )
    if isinstance(held.get("EventName"), str):
        return f"an event {held['EventName']!r:.80} without its 'CloudTrailEvent'"
    if held.keys() & {"failures", "tasks"}:
        return "RunTask's answer, without the call"
    names = ", ".join(f"{name!r:.40}" for name in list(held)[:5])
    return f"not an event: its keys are {names or 'none'}{', …' if len(held) > 5 else ''}"


def is_other(held: object) -> bool:
    """Is it an event or a record of something else, which holds no RunTask call?"""
    if not isinstance(held, dict) or is_run_task(held) or holds_a_call(held):
        return False
    if isinstance(held.get("detail"), dict):
        is_call = held.get("detail-type") == API_CALL
        return is_other(held["detail"]) if is_call else isinstance(held.get("detail-type"), str)
    names = (held.get("eventName"), held.get("eventSource"))
    is_insight = held.get("eventCategory") == "Insight"  # which counts calls, and has none
    return is_insight or all(isinstance(name, str) for name in names)


def holds_a_call(held: Mapping[str, Any]) -> bool:
    """Is it what Lambda says of an invocation, with the event that the function was given?"""
    detail = held.get("detail")
    return isinstance(detail, dict) and "requestPayload" in detail


def _envelope(record: Mapping[str, Any]) -> dict[str, Any]:
    """What EventBridge puts around the record of an API call, as events/ has it.

    The envelope's own id is not known: the record's stands for it.
    """
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


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
