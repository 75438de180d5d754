"""Findings: what was looked at, and what it means for whoever asked, in a sentence each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from botocore.exceptions import BotoCoreError, ClientError

from account.session import code_of, denial_of, is_denial, problem_of
from rehearsal.records import BadInput


class Mark(StrEnum):
    """Whether it is as it should be, has to be fixed, or could not be looked at."""

    OK = "ok"
    FIX = "fix"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about its subject."""

    mark: Mark
    subject: str
    sentence: str


def ok(subject: str, sentence: str) -> Finding:
    return Finding(Mark.OK, subject, sentence)


def fix(subject: str, sentence: str) -> Finding:
    return Finding(Mark.FIX, subject, sentence)


def unknown(subject: str, sentence: str) -> Finding:
    return Finding(Mark.UNKNOWN, subject, sentence)


# What services call something that is not there (their API references).
GONE = (
    "AWS.SimpleQueueService.NonExistentQueue",
    "NoSuchEntity",
    "NotFound",
    "QueueDoesNotExist",
    "ResourceNotFoundException",
)


def looked(subject: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, as far as AWS lets the user look: what it refuses is unknown."""
    try:
        yield from findings
    except (ClientError, BotoCoreError, OSError, BadInput) as error:
        yield unknown(subject, why_not(error))


def is_gone(error: Exception) -> bool:
    """Does AWS say that it is not there?"""
    return code_of(error) in GONE


def why_not(error: Exception) -> str:
    """A sentence on why nobody could look."""
    if isinstance(error, ClientError) and is_denial(error):
        return f"Not looked at: {denial_of(error)}."
    problem = problem_of(error)
    return f"Not looked at: {problem}" if problem.endswith("?") else f"Not looked at: {problem}."
