"""CloudTrail's log files: which there are, and the RunTask records in them."""

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
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

# Threads are enough: what decompresses holds no lock of Python's. Each is given some files at once,
# because to hand over takes as long as to read a small one. A large one (compressed, or not) may
# take up to 64 MB and as much again, and so has no company.
READERS = 2
FILES_AT_ONCE = 32
LARGE = 2**20
ONE_AT_A_TIME = Lock()

# A record without these bytes is not parsed. (A guess: CloudTrail escapes no letter of a name.)
RUN_TASK = re.compile(b"RunTask")


class Log(msgspec.Struct, forbid_unknown_fields=True):
    """A log file, or what lookup-events prints: whole and checked, no record taken apart."""

    Records: list[msgspec.Raw] | None = None
    Events: list[msgspec.Raw] | None = None


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
        try:
            is_directory = path != STANDARD_INPUT and path.is_dir()
        except OSError:  # reading it ends in the same, and is reported
            is_directory = False
        if not is_directory:
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
        for path in (folder / name for name in names if name.endswith(NAMES)):
            try:
                if path.is_file():  # a pipe would be waited for
                    yield path
            except OSError as problem:
                problems.append(problem)


def read_logs(files: Sequence[Path | Read]) -> Iterator[Read]:
    """What each of the files holds, on all cores: to decompress takes the most time."""
    # In this thread: an interrupt ends no other one's wait for input.
    yield from (read_log(file) for file in files if file == STANDARD_INPUT)
    left = (file for file in files if file != STANDARD_INPUT)
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[Future[list[Read]]] = deque()
        try:
            while batch := list(islice(left, FILES_AT_ONCE)):
                ahead.append(pool.submit(lambda files: [*map(read_log, files)], batch))
                if len(ahead) > READERS:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            for future in ahead:  # after an interrupt
                future.cancel()


def read_log(file: Path | Read) -> Read:
    """What one file, or standard input, holds."""
    if isinstance(file, Read):
        return file
    try:
        is_large = file != STANDARD_INPUT and file.stat().st_size > LARGE
        with ONE_AT_A_TIME if is_large else nullcontext():
            return Read(title_of(file), list(_held_in(read_bytes(file))))
    except OSError as problem:
        return Read(title_of(file), problem=str(problem.strerror))
    except (BadInput, ValueError) as problem:  # a name with a zero byte is a ValueError
        return Read(title_of(file), problem=str(problem))


def _held_in(data: bytes) -> Iterator[object]:
    """As `held_in` of the whole, but in bytes, and without records that name no RunTask."""
    try:
        log = LOGS.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        log = Log()
    if isinstance(log, Log):
        log = log.Events if log.Records is None else log.Records
    if log is None:  # an event, another encoding, or no JSON
        yield from held_in(parse(data))
    else:
        yield from (bytes(record) for record in log if RUN_TASK.search(record))


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
