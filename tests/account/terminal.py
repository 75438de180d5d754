"""The terminal of whoever runs a command: lines on standard error, and how far it is."""

import contextlib
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rehearsal.show import printable


def say(text: str) -> None:
    """One line on standard error. If it is closed, the result is printed all the same."""
    with contextlib.suppress(OSError):
        print(printable(" ".join(text.split())), file=sys.stderr, flush=True)


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
