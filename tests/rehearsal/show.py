"""What the rehearsal prints for people: no line is wider than the terminal, or 100 columns."""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

BARS = " ▁▂▃▄▅▆▇█"
ASCII_BARS = " .:-=+*#@"
MARK = "▲"
USUAL_WIDTH, LEAST_WIDTH, LEAST_TEXT = 100, 40, 20


def width() -> int:
    """The terminal's columns, or those that COLUMNS says; 100 where there is no terminal."""
    return max(LEAST_WIDTH, shutil.get_terminal_size((USUAL_WIDTH, 24)).columns)


def number(count: int, singular: str, plural: str = "") -> str:
    """`1 task`, `2 tasks`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"


def elapsed(time: timedelta) -> str:
    """`0:09:59`."""
    seconds = int(time.total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def printable(text: str) -> str:
    """A caller's own words: what steers a terminal is shown, and not sent to it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def line(before: str, text: str) -> str:
    """The text behind what stands before it, and below itself where it needs more lines."""
    shown = printable(text)
    columns, indent = width(), len(before)
    if columns - indent < LEAST_TEXT:  # a narrow terminal has no columns to spare
        shown, before, indent = f"{' '.join(before.split())} {shown}", "", 4
    return textwrap.fill(
        shown,
        columns,
        initial_indent=before,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[str] = ()) -> str:
    """Columns of figures behind a first one of names; those whose titles are in `words` are text.

    In a narrow terminal, text takes more lines.
    """
    is_narrow = width() < USUAL_WIDTH
    columns = Table(box=None, pad_edge=False, header_style="", collapse_padding=is_narrow)
    for title in titles:
        is_text = title in words
        columns.add_column(
            title,
            justify="left" if is_text or not title else "right",
            no_wrap=not is_text,
            overflow="fold" if is_text else "ellipsis",
        )
    for row in rows:
        columns.add_row(*map(printable, row))
    console = Console(width=width(), color_system=None, force_terminal=False, markup=False)
    with console.capture() as captured:
        console.print(columns)
    return "\n".join(row.rstrip() for row in captured.get().splitlines())


def plot(series: Mapping[str, Sequence[int]], most: int) -> str:
    """One line of bars a row: its values, of `most`."""
    names = max(map(len, series))
    bars = BARS if can_show(BARS) else ASCII_BARS
    return "\n".join(
        f"{name.ljust(names)}  {''.join(bars[-(-value * 8 // most)] for value in values)}".rstrip()
        for name, values in series.items()
    )


def can_show(text: str) -> bool:
    """Can standard output take these characters?"""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def figure(value: float | None) -> str:
    """A number of a table; `-` for none."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def counted(counts: Mapping[str, Any]) -> str:
    """`2 LAUNCHED, 1 EXHAUSTED`."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
