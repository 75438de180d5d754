"""Does an event match a pattern? Asked through EventBridge's own API, TestEventPattern.

ministack answers in-process, with no socket: it descends into arrays of objects as EventBridge
does, where moto's engine and the event-ruler package's do not (aws-facts, section 2). Without the
hook, the same client asks AWS.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from ministack.services import eventbridge
from moto.core.botocore_stubber import MockRawResponse

from rehearsal.isolation import isolated

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient


def matches(pattern: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Raises InvalidEventPatternException for what is no pattern, or no EventBridge event."""
    answer = _events().test_event_pattern(EventPattern=json.dumps(pattern), Event=json.dumps(event))
    return answer["Result"]


@cache
def _events() -> "EventBridgeClient":
    with isolated():
        client = boto3.Session(region_name="us-east-1").client(
            "events",
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106 - nothing leaves the process
            # Not an address of AWS, so that moto lets it pass where it is at work as well.
            endpoint_url="http://ministack.invalid",
        )
    client.meta.events.register("before-send.events.*", in_process(eventbridge))
    return client


def in_process(service: ModuleType) -> "Callable[..., None]":
    """A hook by which a service of ministack's answers a client's requests."""

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        headers = {}
        for key, value in request.headers.items():
            headers[key.lower()] = value.decode() if isinstance(value, bytes) else str(value)
        status, answered, body = asyncio.run(
            service.handle_request("POST", "/", headers, request.body, {})
        )
        return AWSResponse(request.url, status, answered, MockRawResponse(body))

    return cast("Callable[..., None]", answer)
