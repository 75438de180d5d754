"""What a probe has shown, for anybody to read: no account, no cluster, no name of the user's."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rehearsal.show import table
from retry_run_task.failed_call import read_time
from retry_run_task.request import HIDDEN

UNKNOWN = "-"

# Words of AWS's own: reasons, error codes, and what CloudTrail writes in place of a value.
WORD = re.compile("[A-Z][A-Z_]*(:[A-Z_]+)?|[A-Z][A-Za-z]+Exception")


@dataclass(frozen=True, slots=True)
class Answer:
    """What ECS said to one of the calls. `error` is the code of an error, empty without one.

    `bound` is what ConflictException says of the tasks that the token is bound to.
    """

    called_at: datetime
    request_id: str
    tasks: tuple[str, ...] = ()
    failures: tuple[Mapping[str, Any], ...] = ()
    error: str = ""
    bound: object = None
    problem: str = ""

    @property
    def has_failed(self) -> bool:
        """Did ECS answer that it placed nothing?"""
        return bool(self.failures) and not self.tasks


def facts_of(
    answers: Sequence[Answer], records: Mapping[str, Mapping[str, Any]], request: Mapping[str, Any]
) -> dict[str, str]:
    """What the answers and their records show."""
    first, *others = answers
    facts = {"first call": _said(first)}
    for second in others:
        facts["second call, with another startedBy"] = _said(second)
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
            facts["errorCode of the second record"] = _value(other, "errorCode")
            has_request = bool(other.get("requestParameters"))
            facts["its requestParameters"] = "shown" if has_request else "not shown"
            facts["its responseElements"] = _value(other, "responseElements")
    return facts


def token_of(second: Answer) -> str:
    """Whether ECS has bound the token to the first call, which failed."""
    if second.error == "ConflictException":
        return "is used up: the second call, with other parameters, is a conflict"
    if second.has_failed:
        return "is not used up: the second call, with other parameters, is none"
    return "is not known"


def durations_of(
    first: Answer,
    records: Mapping[str, Mapping[str, Any]],
    arrived: datetime | None,
    seen: datetime | None,
) -> dict[str, str]:
    """Seconds from the call, by AWS's own clock if its record is there."""
    called_at = read_time(records.get(first.request_id, {}).get("eventTime")) or first.called_at
    ends = {"seconds to the function": arrived, "seconds to the Event history": seen}
    return {
        name: str(round((end - called_at).total_seconds())) if end else UNKNOWN
        for name, end in ends.items()
    }


def report(title: str, facts: Mapping[str, str], names: Mapping[str, str]) -> str:
    """A table, in which something else stands in place of these names."""
    rows = dict(facts)
    for name, instead in names.items():
        rows = {fact: value.replace(name, instead) for fact, value in rows.items()}
    return table((title, ""), rows.items(), words=(title, ""))


def shape_of(value: Any) -> str:
    """Any value as JSON, without text that is the user's own."""
    return json.dumps(_redacted(value), ensure_ascii=False)


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return value if WORD.fullmatch(value) else "…"
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    if isinstance(value, dict):
        return {name: _redacted(member) for name, member in value.items()}
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
