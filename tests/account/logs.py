"""CloudTrail's log files: which there are, and the RunTask records in them."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rehearsal.records import (
    STANDARD_INPUT,
    BadInput,
    event_of,
    held_in,
    is_other,
    parse,
    read_bytes,
    title_of,
)

NAMES = (".json", ".json.gz")

# A record without these bytes is not parsed. (A guess: CloudTrail escapes no letter of a name.)
RUN_TASK = re.compile(b"RunTask")


class Log(msgspec.Struct, forbid_unknown_fields=True):
    """A log file, or what lookup-events prints: whole and checked, no record taken apart."""

    Records: list[msgspec.Raw] = []
    Events: list[msgspec.Raw] = []


LOGS = msgspec.json.Decoder(Log | list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Read:
    """What one file holds, to be taken with `events_in`; or the `problem` with it."""

    title: str
    held: Sequence[object] = ()
    problem: str = ""


def files_in(paths: Iterable[Path]) -> Iterator[Path | Read]:
    """These files, and the log files below these directories; what is wrong with a directory."""
    for path in paths:
        if path == STANDARD_INPUT or not path.is_dir():
            yield path
            continue
        problems: list[OSError] = []
        found = sorted(_below(path, problems))
        yield from found
        yield from (Read(str(e.filename), problem=str(e.strerror)) for e in problems)
        if not found and not problems:
            nothing = f"holds no file whose name ends in {' or '.join(NAMES)}"
            yield Read(str(path), problem=nothing)


def _below(directory: Path, problems: list[OSError]) -> Iterator[Path]:
    seen = set()
    for name, folders, names in os.walk(directory, onerror=problems.append, followlinks=True):
        folder = Path(name)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to where the walk has been
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Regular files: a pipe would be waited for.
        yield from (p for n in names if n.endswith(NAMES) and (p := folder / n).is_file())


def read_logs(files: Iterable[Path | Read]) -> Iterator[Read]:
    """What each of the files holds.

    While one is worked on, the next one is read: to decompress takes the most time, and holds no
    lock of Python's.
    """
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for file in files:
            if isinstance(file, Read) or file == STANDARD_INPUT:
                # In this thread: an interrupt ends no other one's wait for input.
                yield file if isinstance(file, Read) else read_log(file)
                continue
            reading = pool.submit(read_log, file)
            if ahead is not None:
                yield ahead.result()
            ahead = reading
        if ahead is not None:
            yield ahead.result()


def read_log(path: Path) -> Read:
    """What one file, or standard input, holds."""
    try:
        return Read(title_of(path), list(_held_in(read_bytes(path))))
    except BadInput as problem:
        return Read(title_of(path), problem=str(problem))


def _held_in(data: bytes) -> Iterator[object]:
    """As `held_in` of the whole, but in bytes, and without records that name no RunTask."""
    try:
        log = LOGS.decode(data)
    except (msgspec.MsgspecError, RecursionError):  # an event, another encoding, or no JSON
        yield from held_in(parse(data))
        return
    records = log if isinstance(log, list) else log.Records or log.Events
    yield from (bytes(record) for record in records if RUN_TASK.search(record))


def events_in(read: Read) -> Iterator[dict[str, Any] | BadInput]:
    """The event of each RunTask record, or what is wrong with it."""
    if read.problem:
        yield BadInput(read.problem)
    for held in read.held:
        try:
            for each in held_in(parse(held)) if isinstance(held, bytes) else [held]:
                if not (is_other(each) or is_digest(each)):
                    yield event_of(each)
        except BadInput as problem:
            yield problem


def is_digest(held: object) -> bool:
    """Is it one of the files by which CloudTrail's log files are validated?"""
    return isinstance(held, dict) and "digestStartTime" in held
