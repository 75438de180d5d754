"""The page of events/ is true: one row per event file, in order, with its verdict and its story."""

import re
from collections import Counter
from typing import NamedTuple

from rehearsal import EVENT_NAMES, EVENTS, verdict_of

PAGE = (EVENTS / "README.md").read_text("utf-8")
ROW = re.compile(r"\| \[([^]]+)\]\(([^)]+)\) \| `([A-Z_]+)` \| ([^|]+) \|")
LONGEST_STORY = 140


class Row(NamedTuple):
    """A row of the page's table: the link's text and target, the verdict, and the story."""

    text: str
    target: str
    verdict: str
    story: str


def rows() -> list[Row]:
    """The rows below the head of the page's only table; one of another form is an error."""
    head, ruler, *lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert (head, ruler) == ("| file | verdict | story |", "|---|---|---|")
    found = [ROW.fullmatch(line) for line in lines]
    assert None not in found, lines[found.index(None)]
    return [Row(*match.groups()) for match in found if match]


def test_the_page_lists_every_event_file_in_order() -> None:
    assert [row.text for row in rows()] == [f"{name}.json" for name in EVENT_NAMES]


def test_each_link_leads_to_the_file_that_it_names() -> None:
    assert [row.target for row in rows()] == [row.text for row in rows()]
    assert [row.target for row in rows() if not (EVENTS / row.target).is_file()] == []


def test_each_verdict_is_that_of_the_rehearsal() -> None:
    shown = {row.text: row.verdict for row in rows()}
    assert shown == {f"{name}.json": verdict_of(name) for name in EVENT_NAMES}


def test_each_story_is_one_short_sentence() -> None:
    for row in rows():
        assert re.fullmatch(r".+[^.]\.", row.story), row
        assert len(row.story) <= LONGEST_STORY, row


def test_no_two_stories_are_the_same() -> None:
    counts = Counter(row.story for row in rows())
    assert [story for story, count in counts.items() if count > 1] == []


def test_each_definitions_file_belongs_to_an_event() -> None:
    names = [path.name for path in (EVENTS / "definitions").iterdir()]
    assert names
    assert set(names) <= {f"{name}.json" for name in EVENT_NAMES}
