"""What a probe has shown, for anybody to read: no account, no cluster, no name of the user's."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rehearsal.show import table
from retry_run_task.failed_call import read_time
from retry_run_task.request import HIDDEN

UNKNOWN = "-"

# Members that hold words of AWS's own, and how those look.
WORDS = ("errorCode", "reason")
WORD = re.compile("[A-Z_]+(:[A-Z_]+)?|[A-Z][A-Za-z]+Exception")


@dataclass(frozen=True, slots=True)
class Answer:
    """What ECS said to one of the calls. `error` is the code of an error, empty without one.

    `bound` is what ConflictException says of the tasks that the token is bound to. `is_lost`: there
    was no answer, so that nobody knows what ECS has done.
    """

    called_at: datetime
    request_id: str
    tasks: tuple[str, ...] = ()
    failures: tuple[Mapping[str, Any], ...] = ()
    error: str = ""
    bound: object = None
    problem: str = ""
    is_lost: bool = False

    @property
    def has_failed(self) -> bool:
        """Did ECS answer that it placed nothing?"""
        return bool(self.failures) and not self.tasks


@dataclass(slots=True)
class Probed:
    """What is known so far: both answers, and their records by the requests' identifiers.

    `seen` is when the Event history had the first call's record, and `arrived` when the deployed
    function had its event.
    """

    began: datetime
    answers: list[Answer] = field(default_factory=list)
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    seen: datetime | None = None
    arrived: datetime | None = None

    @property
    def has_failed(self) -> bool:
        """Did the first call fail as it should?"""
        return bool(self.answers) and self.answers[0].has_failed

    @property
    def is_complete(self) -> bool:
        """Are both calls answered, and both records there?"""
        return len(self.answers) == len(self.records) == 2


def facts_of(probed: Probed, request: Mapping[str, Any]) -> dict[str, str]:
    """What the answers and their records show."""
    if not probed.answers:
        return {"first call": UNKNOWN}
    (first, *others), records = probed.answers, probed.records
    facts = {"first call": _said(first)}
    for second in others:
        facts["second call, with a group"] = _said(second)
        facts["so the token of a failed call"] = token_of(second)
        if second.error == "ConflictException":
            facts["resourceIds of the conflict"] = shape_of(second.bound)
    record = records.get(first.request_id, {})
    shown, answer = _object(record.get("requestParameters")), record.get("responseElements")
    containers = _object(shown.get("overrides")).get("containerOverrides")
    container = _object(containers[0]) if isinstance(containers, list) and containers else {}
    if record:
        is_whole = shown.get("clientToken") == request["clientToken"]
        facts |= {
            "clientToken in its record": "shown" if is_whole else _value(shown, "clientToken"),
            "members of requestParameters": ", ".join(sorted(shown)) or UNKNOWN,
            "an empty list of the request": _value(shown, "placementConstraints"),
            "an empty environment": _value(container, "environment"),
            "responseElements": shape_of(answer),
        }
    for second in others:
        if other := records.get(second.request_id):
            facts["errorCode of the second record"] = str(other.get("errorCode", "absent"))
            has_request = bool(other.get("requestParameters"))
            facts["its requestParameters"] = "shown" if has_request else "not shown"
            facts["its responseElements"] = _value(other, "responseElements")
    called_at = read_time(record.get("eventTime")) or first.called_at
    ends = {
        "seconds to the function": probed.arrived,
        "seconds to the Event history, about": probed.seen,
    }
    return facts | {
        name: str(round((end - called_at).total_seconds())) if end else UNKNOWN
        for name, end in ends.items()
    }


def token_of(second: Answer) -> str:
    """Whether ECS has bound the token to the first call, which failed."""
    if second.error == "ConflictException":
        return "is used up: other parameters are a conflict"
    if second.has_failed:
        return "is not used up, or other parameters are not compared: they fail as before"
    return "is not known"


def report(title: str, facts: Mapping[str, str]) -> str:
    """A table."""
    return table((title, ""), facts.items(), words=(title, ""))


def shape_of(value: Any) -> str:
    """Any value as JSON. Of its text, it shows reasons, error codes, and what is hidden."""
    return json.dumps(_redacted(value, ""), ensure_ascii=False)


def _redacted(value: Any, member: str) -> Any:
    if isinstance(value, str):
        is_word = member in WORDS and WORD.fullmatch(value)
        return value if is_word or value == HIDDEN else "…"
    if isinstance(value, list):
        return [_redacted(item, member) for item in value]
    if isinstance(value, dict):
        return {name: _redacted(each, name) for name, each in value.items()}
    return value


def _said(answer: Answer) -> str:
    if answer.error:
        return answer.error
    return f"HTTP 200, {len(answer.tasks)} tasks, failures {shape_of(list(answer.failures))}"


def _value(found: Mapping[str, Any], name: str) -> str:
    if name not in found:
        return "absent"
    return "hidden" if found[name] == HIDDEN else shape_of(found[name])


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
