"""How far the retries are: what is wrapped around a failed call when the function is invoked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retry_run_task.failed_call import NotAFailedCall, object_in

# Marks a due attempt. No event of a bus can have it: PutEvents takes no top-level fields.
DUE = "retry-run-task:due"

# What Lambda sends to a function's destinations (`… - Success` and `… - Failure`).
RESULT = "Lambda Function Invocation Result - "


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the retries of a failed call are, as far as the payload tells.

    `due`: the wait for the next attempt is over. `begun`: attempts were made after the call that no
    event tells of, and its parameters are those of the last one. `unspent`: ECS did not bind that
    one to its client token, as far as ECS answered at all. `replay_name`: an operator replays the
    call from an archive.
    """

    due: bool = False
    begun: bool = False
    unspent: bool = False
    replay_name: str | None = None


def unwrap(payload: object) -> tuple[Mapping[str, Any], Progress]:
    """The event of a failed call, out of what the function was invoked with, and how far it is.

    The payload is the event itself (EventBridge); with the member DUE beside the event's own, a due
    attempt (Scheduler, see `wrap`); or a dead letter on its way back, with the event inside of a
    replayed result of this function. Raises NotAFailedCall, which names the field.
    """
    outer = _outside_of_request(object_in({"the payload": payload}, "the payload"))
    event = _inside_of_results(outer)
    is_due = event.get(DUE) is not None
    replay_name = outer.get("replay-name")
    return event, Progress(
        due=is_due and event is outer,
        begun=is_due and _flag(event, "begun", absent=False),
        unspent=is_due and _flag(event, "unspent"),
        replay_name=None if replay_name is None else str(replay_name),
    )


def wrap(event: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The inverse of `unwrap` for a due attempt: the function's payload when the wait is over."""
    due = {"begun": progress.begun, "unspent": progress.unspent}
    payload = {DUE: due, **event}
    if progress.replay_name is not None:
        payload["replay-name"] = progress.replay_name
    return payload


def _outside_of_request(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload itself, or that of an undelivered request to invoke the function.

    In its dead-letter queue, Scheduler keeps the request that it made of its target (Scheduler
    user guide, "Configuring a dead-letter queue", which shows the one to SQS).
    """
    if "FunctionName" not in payload:
        return payload
    inner = payload.get("Payload")
    try:
        inner = json.loads(inner) if isinstance(inner, str) else inner
    except ValueError as error:
        raise NotAFailedCall("Payload", "is not JSON") from error
    return object_in({"Payload": inner}, "Payload")


def _inside_of_results(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the function was first invoked with: a dead letter may have gone round several times.

    Only the outermost one needs a replay: a message that could not be delivered to the topic comes
    back without one, is refused here, and so becomes a letter that holds another.
    """
    if str(event.get("detail-type")).startswith(RESULT) and event.get("replay-name") is None:
        raise NotAFailedCall("replay-name", "is missing: only a replay sends dead letters back")
    while str(event.get("detail-type")).startswith(RESULT):
        event = object_in(object_in(event, "detail"), "requestPayload", "detail.")
    return event


def _flag(event: Mapping[str, Any], name: str, absent: bool | None = None) -> bool:
    """A member of DUE. Raises NotAFailedCall if it is ill-typed, or is absent and must not be."""
    flag = object_in(event, DUE).get(name, absent)
    if not isinstance(flag, bool):
        raise NotAFailedCall(f"{DUE}.{name}", "is neither true nor false")
    return flag
