"""How far the retries are: what is wrapped around a failed call when the function is invoked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retry_run_task.failed_call import (
    NotAFailedCall,
    object_in,
    read_time,
    write_time,
)

# Marks a due attempt. No event of a bus can have it: PutEvents takes no top-level fields.
DUE = "retry-run-task:due"

# What Lambda sends to a function's destinations (`… - Success` and `… - Failure`).
RESULT = "Lambda Function Invocation Result - "


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the retries of a failed call are, as far as the payload tells.

    `due`: if the wait is over, for when the attempt was scheduled, or the earliest copy of it could
    be, pulled forward as well. `taken_on`: the stack has dealt with the job before. `begun`:
    attempts were made after the call that no event shows, and its parameters are those of the last
    one. `unspent`: the next attempt uses the last one's client token. `first_use`: where something
    may have used the next attempt's token already, the earliest moment of it. `planned`: if the
    attempt was pulled forward, for when it was scheduled before. `replay_name`: an operator replays
    the call from an archive.
    """

    due: datetime | None = None
    taken_on: bool = False
    begun: bool = False
    unspent: bool = False
    first_use: datetime | None = None
    planned: datetime | None = None
    replay_name: str | None = None


def unwrap(payload: object) -> tuple[Mapping[str, Any], Progress]:
    """The event of a failed call, out of what the function was invoked with, and how far it is.

    The payload is the event itself (EventBridge); with the member DUE beside the event's own, a due
    attempt (Scheduler, see `wrap`); or a dead letter on its way back, with any of these inside of a
    replayed result of this function. What a dead-letter queue has kept holds any of these as well.
    Raises NotAFailedCall, which names the field.

    Of letters that went round several times, only the outermost needs a replay: a message that
    could not be delivered to the topic comes back without one, is refused here, and so becomes a
    letter that holds another.
    """
    event = object_in({"the payload": payload}, "the payload")
    results: list[str] = []
    replay_name = None
    while True:
        if "FunctionName" in event:
            event = _inside_of_request(event)
        elif str(event.get("detail-type")).startswith(RESULT):
            if not results and (replay_name := event.get("replay-name")) is None:
                raise NotAFailedCall("replay-name", "is missing: only a replay sends letters back")
            results.append(event["detail-type"])
            event = object_in(object_in(event, "detail"), "requestPayload", "detail.")
        else:
            break
    if not results:
        replay_name = event.get("replay-name")
    is_due = event.get(DUE) is not None
    is_live = is_due and not results
    return event, Progress(
        due=_time(event, "at") if is_live else None,
        # A dead letter is the result of an invocation that had decided on the job.
        taken_on=is_due or f"{RESULT}Success" in results,
        begun=is_due and _flag(event, "begun", absent=False),
        unspent=is_due and _flag(event, "unspent"),
        # A person who replays a letter has seen to it that the job does not run.
        first_use=_time(event, "firstUse", absent=True) if is_live else None,
        planned=_time(event, "planned", absent=True) if is_live else None,
        replay_name=None if replay_name is None else str(replay_name),
    )


def wrap(event: Mapping[str, Any], progress: Progress, due: datetime) -> str:
    """The inverse of `unwrap` for an attempt that is due then: the function's payload, as JSON."""
    member = {
        "at": write_time(due),
        "begun": progress.begun,
        "unspent": progress.unspent,
        "firstUse": progress.first_use and write_time(progress.first_use),
    }
    payload = {DUE: member, **event}
    if progress.replay_name is not None:
        payload["replay-name"] = progress.replay_name
    return _written(payload)


def is_forwarded(payload: Mapping[str, Any]) -> bool:
    """Was it pulled forward already, whatever a list of schedules says?"""
    return payload[DUE].get("planned") is not None


def moved_forward(payload: Mapping[str, Any], planned: datetime, due: datetime) -> str:
    """The payload, as JSON, of an attempt that was planned for later, and is due then instead.

    A copy of the attempt may have been due sooner still: its time stays (see follow.py).
    """
    member = payload[DUE]
    at = min(member["at"], write_time(due))
    return _written({**payload, DUE: {**member, "at": at, "planned": write_time(planned)}})


def _written(payload: Mapping[str, Any]) -> str:
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    # Scheduler fills in <aws.scheduler.scheduled-time> and the like wherever it finds them in an
    # input (Scheduler user guide, "Context attributes"): a request must come back as it was.
    return text.replace("<", "\\u003c")


def _inside_of_request(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload of an undelivered request to invoke the function.

    In its dead-letter queue, Scheduler keeps the request that it made of its target (Scheduler
    user guide, "Configuring a dead-letter queue", which shows the one to SQS).
    """
    inner = request.get("Payload")
    try:
        inner = json.loads(inner) if isinstance(inner, str) else inner
    except ValueError as error:
        raise NotAFailedCall("Payload", "is not JSON") from error
    return object_in({"Payload": inner}, "Payload")


def _flag(event: Mapping[str, Any], name: str, absent: bool | None = None) -> bool:
    """A member of DUE. Raises NotAFailedCall if it is ill-typed, or is absent and must not be."""
    flag = object_in(event, DUE).get(name, absent)
    if not isinstance(flag, bool):
        raise NotAFailedCall(f"{DUE}.{name}", "is neither true nor false")
    return flag


def _time(event: Mapping[str, Any], name: str, *, absent: bool = False) -> datetime | None:
    """A member of DUE. Raises NotAFailedCall if it is no time, or is `absent` and must not be."""
    text = object_in(event, DUE).get(name)
    moment = read_time(text)
    if moment is None and not (absent and text is None):
        raise NotAFailedCall(f"{DUE}.{name}", "is not a time like 2026-11-23T00:00:04Z")
    return moment
