"""The message: one text about all letters of a batch, for a phone; and its form for a chat."""

import html
import json
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from notify.letter import Kind, Letter
from notify.remedy import Step, steps
from notify.settings import Settings

MOST_LISTED = 20
# SNS, Publish: a message has 256 KiB, all its variants together.
MOST_BYTES = 262_144
# SNS, Publish: "less than 100 characters". It takes UTF-8, and is given ASCII.
LONGEST_SUBJECT = 99
# What Amazon Q Developer takes in a custom notification is a guess, and so is that it takes the
# steps, whose limit is not known.
LONGEST_DESCRIPTION = 8_000

TIME = "%Y-%m-%d %H:%M:%S UTC"

MEANING = {
    Kind.EXHAUSTED: "all attempts are used up",
    Kind.EXPIRED: "too late to be useful, or to be safe",
    Kind.NOT_RETRYABLE: "a retry does not help",
    Kind.NOT_REPLAYABLE: "the request could not be repeated",
    Kind.FAILED: "retry-run-task could not handle the call",
    Kind.UNREADABLE: "a letter that cannot be read",
}


@dataclass(frozen=True, slots=True)
class Message:
    """What SNS publishes. With `is_json`, `body` is an object with a text for each protocol."""

    subject: str
    body: str
    is_json: bool


def compose(letters: Sequence[Letter], settings: Settings) -> Message:
    """The message about these letters: at least one, one for each job, in the order of time.

    What is too long for SNS or for a chat lists fewer jobs: nothing is cut in its midst.
    """
    subject, help_with = subject_of(letters, settings.region), steps(letters, settings)
    in_chat = chat(letters, settings, subject, help_with) if settings.is_chat else ""

    def body(most: int) -> str:
        text = f"{about(letters, settings, most)}\n\nWHAT TO DO\n\n{paragraphs(help_with)}"
        variants = {"default": text, "https": in_chat}
        return json.dumps(variants, ensure_ascii=False) if settings.is_chat else text

    whole = longest(body, lambda text: len(text.encode()) <= MOST_BYTES)
    return Message(subject, whole, settings.is_chat)


def longest(write: Callable[[int], str], fits: Callable[[str], bool]) -> str:
    """Of the texts that list so many jobs, the longest that fits; without jobs, each one does."""
    return next(filter(fits, map(write, range(MOST_LISTED, -1, -1))))


def about(letters: Sequence[Letter], settings: Settings, most: int) -> str:
    """What happened, where, and to which jobs."""
    failed, words = headline_of(letters)
    headline = f"retry-run-task {failed}{words}" if failed else words
    where = f"(account {settings.account}, {settings.region})"
    return f"{headline} {where}.\n\n{jobs_in(letters, settings, most)}"


def headline_of(letters: Sequence[Letter]) -> tuple[str, str]:
    """`failed: ` if retry-run-task itself did, and then: `nightly-report did not start`."""
    failed = "failed: " if any(letter.kind.is_failure for letter in letters) else ""
    doubtful = sum(letter.may_run for letter in letters)
    lost = len(letters) - doubtful
    jobs = (letters[0].job if len(letters) == 1 else "") or counted(len(letters))
    if not doubtful:
        return failed, f"{jobs} did not start"
    if not lost:
        return failed, f"{jobs} may not have started"
    return failed, f"{counted(lost)} did not start, {doubtful:,} may not have started"


def subject_of(letters: Sequence[Letter], region: str) -> str:
    """The headline as SNS takes it: ASCII, and a long name of a job is shortened."""
    failed, words = headline_of(letters)
    text = f"[retry-run-task] {failed}{words} ({region})"
    too_long = len(text) - LONGEST_SUBJECT
    if too_long > 0:
        job = letters[0].job
        text = text.replace(job, f"{job[: len(job) - too_long - 3]}...", 1)
    return text.encode("ascii", "replace").decode()


def jobs_in(letters: Sequence[Letter], settings: Settings, most: int) -> str:
    """The jobs, grouped by their cause, the most frequent one first; `most` of them are listed."""
    groups: dict[Hashable, list[Letter]] = {}
    for letter in letters:
        groups.setdefault((letter.kind, letter.cause), []).append(letter)
    largest = sorted(groups.values(), key=len, reverse=True)
    # One of each cause in turn: none is hidden behind a frequent one.
    turns = zip_longest(*([n] * len(group) for n, group in enumerate(largest)))
    shares = Counter([n for turn in turns for n in turn if n is not None][:most])
    found = [cause(group, shares[n]) for n, group in enumerate(largest) if shares[n]]
    more = len(letters) - shares.total()
    if more:
        where = f'CloudWatch Logs Insights, saved query "{settings.query}"'
        found.append(f"and {more:,} more. All of them: {where}.")
    return "\n\n".join(found)


def cause(group: Sequence[Letter], share: int) -> str:
    """One cause, and the first jobs that it has."""
    kind, said = group[0].kind, "; ".join(group[0].said)
    number = f" ({counted(len(group))})" if len(group) > 1 else ""
    lines = [f"{kind}: {MEANING[kind]}{number}"]
    if said:
        example = ", for example" if any(letter.said != group[0].said for letter in group) else ""
        lines.append(f"{'Error' if kind is Kind.FAILED else 'ECS said'}{example}: {said}")
    details = {letter.detail for letter in group}
    is_shared = len(details) == 1
    lines += filter(None, details if is_shared else [])
    for letter in group[:share]:
        lines += entry(letter, "" if is_shared else letter.detail)
    return "\n".join(lines)


def entry(letter: Letter, detail: str) -> list[str]:
    """The lines about one job."""
    cluster = f"cluster {letter.cluster}" if letter.cluster else ""
    since = f"first due {letter.since:{TIME}}" if letter.since else ""
    called = f"called at {letter.called:{TIME}}" if letter.called else ""
    facts = (
        ", ".join(filter(None, (letter.task_definition, cluster))),
        ", ".join(filter(None, (since, called, letter.attempts))),
        detail,
        letter.event and f"event {letter.event}",
    )
    return [f"- {letter.job or 'a job without a name'}", *(f"  {fact}" for fact in facts if fact)]


def paragraphs(help_with: Sequence[Step]) -> str:
    """The steps as text; a command stands on a line of its own, ready to be copied."""
    return "\n\n".join(f"{step.text}\n{step.command}".strip() for step in help_with)


def chat(
    letters: Sequence[Letter], settings: Settings, title: str, help_with: Sequence[Step]
) -> str:
    """The custom notification of Amazon Q Developer, which Slack and Teams show."""
    description = longest(
        lambda most: escaped(about(letters, settings, most)),
        lambda text: len(text) <= LONGEST_DESCRIPTION,
    )
    content = {
        "textType": "client-markdown",
        "title": escaped(title),
        "description": description,
        "nextSteps": [
            escaped(step.text) + (f"\n```{step.command}```" if step.command else "")
            for step in help_with
        ],
    }
    return json.dumps(
        {"version": "1.0", "source": "custom", "content": content}, ensure_ascii=False
    )


def escaped(text: str) -> str:
    """Text in which Slack sees no mention and no link (Slack, "Formatting text": & < >)."""
    return html.escape(text, quote=False)


def counted(number: int) -> str:
    """`1 job`, `40 jobs`."""
    return "1 job" if number == 1 else f"{number:,} jobs"
