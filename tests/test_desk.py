"""The desk takes what people hold, says what it cannot take, and never shows a traceback."""

import copy
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehearsal import EVENT_NAMES, EVENTS, load_event
from rehearsal.cli import main

FARGATE = "launched.fargate-capacity-rule"


def run(*arguments: str, encoding: str = "utf-8", stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            status = main(arguments)
        except SystemExit as stopped:
            status = int(str(stopped.code))
    out, error = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
    return status, out, error


# Never a traceback.

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, -1, 11, 10**9, 10**30, 0.5, 1e300]),
    st.sampled_from(["", "x", "1", "\ud800", "\x1b[2J\n", "*", "HIDDEN_DUE_TO_SECURITY_REASONS"]),
    st.sampled_from(["FARGATE", "EC2", "EXTERNAL", "us-gov-west-1", "cn-north-1", "mars-east-1"]),
    st.sampled_from(["eusc-de-east-1", "eu-south-9", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"]),
    st.sampled_from(["arn:aws:ecs:eu-west-1:123456789012:task-definition/x:y", "x/y:z:1", ":", "/"]),
    st.text(max_size=40),
    st.sampled_from([[], {}, [None], [[]], [{}], {"key": "value"}, [1, "x", {}]]),
)
OPTIONS = st.sampled_from(
    [(), ("--json",), ("--storm", "3"), ("--then-replay",), ("--duplicates", "--show-request")]
)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """All members of a tree, each as what holds it and its key or index."""
    for key, member in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(member, dict | list):
            yield from places(member)


@st.composite
def mangled(draw: st.DrawFn) -> Any:
    """An event file with some of its members replaced, renamed, or gone."""
    event = load_event(draw(st.sampled_from(EVENT_NAMES)))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(event))
        if not found:
            break
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["replace", "replace", "drop", "rename", "move"])):
            case "replace":
                holder[key] = copy.deepcopy(draw(JUNK))
            case "drop":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.text(max_size=9))] = holder.pop(key)
            case _:
                other, place = found[draw(st.integers(0, len(found) - 1))]
                holder[key] = copy.deepcopy(other[place])
    return event


@given(event=mangled(), options=OPTIONS, encoding=st.sampled_from(["utf-8", "ascii"]))
@settings(max_examples=60)
def test_whatever_is_in_the_file_there_is_no_traceback(
    event: Any, options: tuple[str, ...], encoding: str, tmp_path: Path
) -> None:
    file = tmp_path / "event.json"
    file.write_text(json.dumps(event))
    status, _, error = run(str(file), *options, encoding=encoding)
    assert status in (0, 1, 2, 3)
    assert error.count("\n") == (status == 2)
    assert "usage:" not in error
