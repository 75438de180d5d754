"""Follow: what to decide on after an attempt that leaves no event behind. Pure, as decision is."""

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import Any

from retry_run_task.chain import ATTEMPT_TAG, DEFINITION_TAG, tag_value
from retry_run_task.failed_call import FailedCall
from retry_run_task.progress import Progress
from retry_run_task.settings import Settings


class Token(Enum):
    """What became of the client token of an attempt that leaves no event behind."""

    TAKEN = auto()  # another request had used it, and placed too little: somebody is ahead
    SENT = auto()  # ECS may have bound it to a launch, or not
    UNSENT = auto()  # this invocation has not used it; a duplicate may have


def follow(
    call: FailedCall,
    progress: Progress,
    request: Mapping[str, Any],
    token: Token,
    tasks: tuple[str, ...] = (),
) -> tuple[FailedCall, Progress]:
    """What to decide on after an attempt that leaves no event behind.

    `request` is what the attempt sent, or would have, with the client token that came to `token`.
    Under that token, ECS placed no more than `tasks`. A token that is not spent is used again by
    the next attempt: none may be passed over, because a duplicate of this chain, or a server error
    that was none, could have started the job under it. Who made the first call stays known.

    All copies of an attempt have to give up before a token of theirs can die. So its first use is
    counted from a time in the payload, which all have, not from the clock's: when the attempt was
    due, or could have been pulled forward to, or when the first call was made. A replay goes on at
    once where another request had used the token: it has waited already, and what it met is an
    attempt of an earlier replay.
    """
    first_use = progress.first_use or progress.due or call.event_time
    followed = Progress(
        taken_on=True,
        begun=True,
        unspent=True,
        first_use=first_use,
        replay_name=_further(progress.replay_name, request),
    )
    if token is Token.UNSENT:  # an attempt was used up, and nothing else
        tags = call.parameters.get("tags") or []
        verified = [tag for tag in tags if tag.get("key") == DEFINITION_TAG]
        counted = {"tags": request["tags"] + verified, "clientToken": request["clientToken"]}
        call = replace(call, parameters={**call.parameters, **counted})
        return call, replace(followed, begun=progress.begun)
    call = replace(call, parameters=request, tasks=tasks)
    if token is Token.SENT:
        return call, followed
    if progress.replay_name is None:
        return call, replace(followed, unspent=False)
    return call, Progress(
        due=progress.due, taken_on=True, begun=True, replay_name=progress.replay_name
    )


def later(call: FailedCall, progress: Progress) -> Progress:
    """The progress where no time is left: a replay goes on in a schedule."""
    replay_name = _further(progress.replay_name, call.parameters)
    return replace(progress, due=None, replay_name=replay_name)


def _further(replay_name: str | None, request: Mapping[str, Any]) -> str | None:
    """The name under which a replay goes on after this attempt: its next schedule has its own."""
    if replay_name is None:
        return None
    # No name of a replay has a slash (StartReplay `ReplayName`).
    return f"{replay_name.partition('/')[0]}/{tag_value(request['tags'], ATTEMPT_TAG)}"


def unseen(
    call: FailedCall,
    progress: Progress,
    request: Mapping[str, Any],
    tasks: tuple[str, ...],
    reasons: tuple[str, ...],
    settings: Settings,
) -> FailedCall:
    """An attempt at the call as a failed call of its own, of which no event will come."""
    return replace(
        call,
        event_time=progress.due or call.event_time,
        parameters=request,
        tasks=tasks,
        reasons=reasons,
        caller_arn=settings.session_arn,
        role="",
    )
