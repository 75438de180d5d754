"""What CloudTrail said: a RunTask call that ECS accepted, but could not place whole."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# Tokens and schedule names are built from it: both take up to 64 characters (ECS RunTask
# `clientToken`, Scheduler `Name`), and more than that has to fit. CloudTrail's are 36 long.
EVENT_ID = re.compile("[0-9A-Za-z-]{1,36}")


class NotAFailedCall(ValueError):
    """The payload holds no RunTask call of this account and Region that launched too little."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(
            f"{field} {problem}. Nothing was launched: this function takes CloudTrail's event of a "
            "RunTask call that ECS accepted but could not place (see events/ in its repository)."
        )


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A RunTask call: HTTP 200, but not every task that it asked for.

    `parameters` are the request as CloudTrail shows it, unchecked; `reasons` say why ECS placed no
    more, each once; `tasks` are the ARNs of those that ECS did place.

    Of the caller: `caller_arn` is its identity and `role` the ARN of the role behind it,
    `invoked_by` the AWS service that called, or an address, and `from_console` whether it has
    signed in to the console; `user_agent` is its own word. Each is empty where the record has none.
    """

    event_id: str
    event_time: datetime
    parameters: Mapping[str, Any]
    reasons: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    caller_arn: str = ""
    role: str = ""
    invoked_by: str = ""
    user_agent: str = ""
    from_console: bool = False

    @property
    def missing(self) -> int:
        """How many tasks are still to be placed; RunTask's default `count` is 1."""
        count = self.parameters.get("count")
        if count is None:
            return 1 - len(self.tasks)
        # An ill-typed count says nothing: at least one is missing until the request is checked.
        return count - len(self.tasks) if type(count) is int else 1


def read_failed_call(event: Mapping[str, Any], account: str, region: str) -> FailedCall:
    """The failed call in an EventBridge event "AWS API Call via CloudTrail".

    The fields are those of CloudTrail's record contents: null means the same as absent, and unknown
    ones are ignored. Raises NotAFailedCall, which names the field, for anything else.
    """
    _expect(event, "source", "aws.ecs")
    _expect(event, "detail-type", "AWS API Call via CloudTrail")
    _expect(event, "account", account)
    _expect(event, "region", region)
    detail = object_in(event, "detail")
    _expect(detail, "eventSource", "ecs.amazonaws.com", "detail.")
    _expect(detail, "eventName", "RunTask", "detail.")
    _expect(detail, "awsRegion", region, "detail.")
    if (error := detail.get("errorCode")) is not None:
        raise NotAFailedCall(
            "detail.errorCode",
            f"is {error!r:.80}: ECS rejected this call, so its caller saw an error and may retry",
        )
    parameters = object_in(detail, "requestParameters", "detail.")
    response = object_in(detail, "responseElements", "detail.")
    failures = _list_of_objects(response, "failures")
    tasks = [task.get("taskArn") for task in _list_of_objects(response, "tasks")]
    if not failures:
        raise NotAFailedCall("detail.responseElements.failures", "is empty: nothing failed")

    # An addendum repeats an earlier record under an eventID of its own (CloudTrail record contents,
    # `addendum`): the call is the same, so it keeps the name that it had.
    addendum = detail.get("addendum")
    original = addendum.get("originalEventID") if isinstance(addendum, dict) else None
    event_id = detail.get("eventID") if original is None else original
    if not isinstance(event_id, str) or not EVENT_ID.fullmatch(event_id):
        raise NotAFailedCall("detail.eventID", f"is {event_id!r:.80}, not CloudTrail's identifier")
    event_time = read_time(detail.get("eventTime"))
    if event_time is None:
        raise NotAFailedCall("detail.eventTime", "is not a time like 2026-11-23T00:00:04Z")

    identity = _members(detail.get("userIdentity"))
    issuer = _members(_members(identity.get("sessionContext")).get("sessionIssuer"))
    return FailedCall(
        event_id=event_id,
        event_time=event_time,
        parameters=parameters,
        reasons=reasons_of(failures),
        tasks=tuple(str(arn) for arn in tasks if arn),
        caller_arn=text_in(identity, "arn"),
        role=text_in(issuer, "arn"),
        invoked_by=text_in(identity, "invokedBy") or text_in(detail, "sourceIPAddress"),
        user_agent=text_in(detail, "userAgent"),
        from_console=detail.get("sessionCredentialFromConsole") in (True, "true"),
    )


def write_failed_call(call: FailedCall, account: str, region: str) -> dict[str, Any]:
    """The inverse of read_failed_call.

    Only what is read again is written, so that it fits into a schedule's input.
    """
    return {
        "source": "aws.ecs",
        "detail-type": "AWS API Call via CloudTrail",
        "account": account,
        "region": region,
        "detail": {
            "eventSource": "ecs.amazonaws.com",
            "eventName": "RunTask",
            "awsRegion": region,
            "eventID": call.event_id,
            "eventTime": write_time(call.event_time),
            "userIdentity": {
                "arn": call.caller_arn,
                "invokedBy": call.invoked_by,
                "sessionContext": {"sessionIssuer": {"arn": call.role}},
            },
            "userAgent": call.user_agent,
            "sessionCredentialFromConsole": call.from_console,
            "requestParameters": call.parameters,
            "responseElements": {
                "tasks": [{"taskArn": arn} for arn in call.tasks],
                "failures": [{"reason": reason} for reason in call.reasons],
            },
        },
    }


def reasons_of(failures: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """Each reason once, in ECS's order: on EC2 one call lists a failure per container instance."""
    return tuple(dict.fromkeys(str(f.get("reason") or "no reason given") for f in failures))


def read_time(text: object) -> datetime | None:
    """A moment as CloudTrail writes it (UTC, whole seconds), or None."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9-]{10}T[0-9:]{8}Z", text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def write_time(moment: datetime) -> str:
    """The inverse of read_time."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def object_in(parent: Mapping[str, Any], field: str, path: str = "") -> Mapping[str, Any]:
    """The JSON object in this field of `parent`, which is at `path`. Raises NotAFailedCall."""
    found = parent.get(field)
    if not isinstance(found, dict):
        state = "is missing or null" if found is None else "is not a JSON object"
        raise NotAFailedCall(path + field, state)
    return found


def text_in(parent: Mapping[str, Any], field: str) -> str:
    """The text in this field of `parent`; what is no text says nothing."""
    found = parent.get(field)
    return found if isinstance(found, str) else ""


def _members(value: object) -> Mapping[str, Any]:
    """Who called is not needed to repeat the call: what is no object says nothing."""
    return value if isinstance(value, dict) else {}


def _expect(parent: Mapping[str, Any], field: str, wanted: str, path: str = "") -> None:
    found = parent.get(field)
    if found != wanted:
        raise NotAFailedCall(path + field, f"is {found!r:.80} instead of {wanted!r}")


def _list_of_objects(response: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    found = response.get(field) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise NotAFailedCall(f"detail.responseElements.{field}", "is not a list of JSON objects")
    return found
