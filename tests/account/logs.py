"""CloudTrail's log files: which there are, and the RunTask records in them."""

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from rehearsal.records import (
    STANDARD_INPUT,
    BadInput,
    event_of,
    held_in,
    is_other,
    is_run_task,
    parse,
    read_bytes,
    title_of,
)

NAMES = (".json", ".json.gz")

# Decompressing takes the most time, and does not hold Python's lock: two of them use two cores. A
# file takes up to 64 MB and half as much again, so that no more are open at once.
READERS = 2

# A record without these bytes is not parsed. (A guess: CloudTrail escapes no letter of a name.)
RUN_TASK = re.compile(b"RunTask")

# A log file's records, whole and checked, and none of them taken apart.
RECORDS = msgspec.json.Decoder(dict[str, list[msgspec.Raw]])


@dataclass(frozen=True, slots=True)
class Read:
    """The EventBridge events of the RunTask records in a file, and what is wrong with others."""

    title: str
    events: Sequence[dict[str, Any]]
    problems: Sequence[str]


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """These files, and the log files of these directories; raises BadInput."""
    for path in paths:
        if path == STANDARD_INPUT or not path.is_dir():
            yield path
            continue
        found = sorted(_below(path))
        if not found:
            raise BadInput(f"{path}: holds no file whose name ends in {' or '.join(NAMES)}")
        yield from found


def _below(directory: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise BadInput(f"{error.filename}: {error.strerror}") from error

    for folder, _, names in os.walk(directory, onerror=refuse, followlinks=True):
        yield from (Path(folder, name) for name in names if name.endswith(NAMES))


def read_logs(paths: Iterable[Path]) -> Iterator[Read]:
    """What each of the files holds, in their order."""
    paths = list(paths)
    # In this thread, because an interrupt ends no other one's wait for input.
    yield from (read_log(path) for path in paths if path == STANDARD_INPUT)
    left = (path for path in paths if path != STANDARD_INPUT)
    with ThreadPoolExecutor(READERS) as pool:
        ahead = deque(pool.submit(read_log, path) for path in islice(left, READERS))
        while ahead:
            read = ahead.popleft().result()
            ahead.extend(pool.submit(read_log, path) for path in islice(left, 1))
            yield read


def read_log(path: Path) -> Read:
    """What one file, or standard input, holds: what is wrong with it is told, and never raised."""
    try:
        return events_in(_held_in(read_bytes(path)), title_of(path))
    except BadInput as problem:
        return Read(title_of(path), [], [str(problem)])


def events_in(held: Iterable[object], title: str) -> Read:
    """The RunTask events among what a file holds. Whatever else names no RunTask is passed over."""
    events: list[dict[str, Any]] = []
    problems: list[str] = []
    for each in held:
        try:
            if is_run_task(each) or not (is_other(each) or "RunTask" not in str(each)):
                events.append(event_of(each))
        except BadInput as problem:
            problems.append(str(problem))
    return Read(title, events, problems)


def _held_in(data: bytes) -> Iterator[object]:
    """As `held_in` of the whole, without those records of a log file that name no RunTask."""
    try:
        document = RECORDS.decode(data)
        if document.keys() != {"Records"}:
            raise msgspec.ValidationError
    except msgspec.MsgspecError:  # no log file: output of lookup-events, an event, another encoding
        yield from held_in(parse(data))
        return
    for record in document["Records"]:
        if RUN_TASK.search(record):
            yield from held_in(parse(bytes(record)))
