"""The terminal of whoever runs a command: what is printed, what is asked, how far it is."""

import contextlib
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.prompt import Confirm

from rehearsal.cli import print_nowhere
from rehearsal.records import BadInput
from rehearsal.show import printable


def say(text: str) -> None:
    """One line on standard error. If it is closed, the result is printed all the same."""
    with contextlib.suppress(OSError):
        print(printable(" ".join(text.split())), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Some lines on standard output, at once. What nobody reads any more stops nothing."""
    try:
        print(text, flush=True)
    except OSError:
        print_nowhere()


def confirm(question: str, *, is_sure: bool) -> None:
    """Raises BadInput unless a person says yes, or has said so."""
    if is_sure:
        return
    if not has_terminal():
        raise BadInput("nothing was started: give --yes where no terminal can be asked")
    try:
        is_sure = Confirm.ask(question, default=False, console=Console(stderr=True))
    except (EOFError, UnicodeDecodeError):
        is_sure = False
    if not is_sure:
        raise BadInput("nothing was started")


def has_terminal() -> bool:
    """Is there somebody who sees a question, and can answer?"""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def progress_bar() -> Progress:
    """How far it is, at a terminal: the day or the work, a bar, and an estimate."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
