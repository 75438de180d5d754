"""The loop in virtual time: deliveries, the rule, Lambda's asynchronous invocations, CloudTrail."""

import contextlib
import heapq
import io
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self, cast
from unittest import mock

import boto3
import time_machine
from aws_lambda_powertools.utilities.typing import LambdaContext
from moto import mock_aws
from moto.moto_api._internal import mock_random

from rehearsal.cloudtrail import run_task_event
from rehearsal.ecs import ScarceEcs
from rehearsal.pattern import matches
from rehearsal.template import Stack
from retry_run_task import handler as function

# How long an event takes from CloudTrail to the rule. Seconds to minutes (aws-facts, section 1).
CLOUDTRAIL_LATENCY = timedelta(seconds=90)
DUPLICATE_LATENCY = timedelta(seconds=2)
# Scheduler fires within 60 s after the time that a schedule names (aws-facts, section 5).
SCHEDULER_LATENCY = timedelta(seconds=30)
# When Lambda tries an asynchronous invocation again that raised (Lambda developer guide,
# "Error handling for asynchronous invocation").
LAMBDA_RETRIES = (timedelta(minutes=1), timedelta(minutes=2))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the timeline. `data` is what a machine wants to know of it."""

    moment: datetime
    actor: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


class World:
    """An account with the stack deployed, as a context manager: only one can be entered at a time.

    Time stands still but for `run`, which goes from one due thing to the next.
    """

    def __init__(
        self,
        stack: Stack,
        start: datetime,
        *,
        duplicates: bool = False,
        **scarcity: Any,
    ) -> None:
        self.stack = stack
        self.start = self.now = start
        self.duplicates = duplicates
        self.timeline: list[Entry] = []
        self.calls: list[dict[str, Any]] = []
        self.outcomes: list[dict[str, Any]] = []
        self.dead: list[dict[str, Any]] = []
        self.logs = io.StringIO()
        self.ecs = ScarceEcs(
            stack.account, stack.region, on_call=self._record, now=lambda: self.now, **scarcity
        )
        self._scheduled: set[str] = set()
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._counter = 0
        self._asked = 1
        self._placed: list[str] = []
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        enter = self._exit.enter_context
        no_one = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
        enter(mock.patch.dict(os.environ, no_one))
        enter(mock.patch.object(boto3, "DEFAULT_SESSION", None))
        self.deploy(self.stack)
        self._clock = enter(time_machine.travel(self.now, tick=False))
        enter(mock.patch("time.sleep", self._sleep))
        enter(mock_aws())
        mock_random.seed(0)  # the same tasks' ids in every run
        enter(self.ecs.in_place_of_motos())
        group = self.stack.environment["SCHEDULE_GROUP"]
        boto3.client("scheduler").create_schedule_group(Name=group)
        for client in (function.ecs_client, function.scheduler_client):
            client.cache_clear()
            self._exit.callback(client.cache_clear)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def run(self) -> None:
        """Let time pass until nothing is due any more."""
        while self._due:
            moment, _, action = heapq.heappop(self._due)
            self.now = max(self.now, moment)
            self._clock.move_to(self.now)
            action()

    def deploy(self, stack: Stack) -> None:
        """The stack from now on: the same one with other parameters."""
        self.stack = stack
        os.environ.update(stack.environment)

    def begin(self, event: Mapping[str, Any]) -> None:
        """A caller's RunTask call has happened, and this is the event of it."""
        detail: Mapping[str, Any] = event["detail"]
        parameters = _object(detail.get("requestParameters"))
        response = _object(detail.get("responseElements"))
        self._asked = parameters.get("count") or 1
        self._placed = [task["taskArn"] for task in response.get("tasks") or []]
        who = _object(detail.get("userIdentity")).get("invokedBy") or detail.get("sourceIPAddress")
        error = detail.get("errorCode")
        self.tell("ECS", f"RunTask by {who}: {_answer(parameters, response, error)}")
        self.publish(event, CLOUDTRAIL_LATENCY)

    @property
    def tasks(self) -> list[str]:
        """The ARNs of all tasks that run, the caller's own included."""
        return self._placed + self.ecs.tasks

    @property
    def missing(self) -> int:
        """How many of the tasks that the caller asked for do not run."""
        return max(0, self._asked - len(self.tasks))

    def publish(self, event: Mapping[str, Any], latency: timedelta = timedelta()) -> None:
        """Put an event on the default bus: once, or twice where duplicates are rehearsed."""
        self._at(self.now + latency, lambda: self._deliver(event))
        if self.duplicates:
            self._at(self.now + latency + DUPLICATE_LATENCY, lambda: self._deliver(event))

    def tell(self, actor: str, text: str, **data: Any) -> None:
        self.timeline.append(Entry(self.now, actor, text, data))

    def _sleep(self, seconds: float) -> None:
        """botocore's waits between its own tries."""
        self.now += timedelta(seconds=seconds)
        self._clock.move_to(self.now)

    def _at(self, moment: datetime, action: Callable[[], None]) -> None:
        self._counter += 1
        heapq.heappush(self._due, (moment, self._counter, action))

    def _deliver(self, event: Mapping[str, Any]) -> None:
        if matches(self.stack.pattern, event):
            self.tell("EventBridge", "the rule matches the event", matched=True)
            self._invoke(event, LAMBDA_RETRIES)
        else:
            self.tell("EventBridge", "the rule leaves the event alone", matched=False)

    def _invoke(self, payload: Mapping[str, Any], retries: tuple[timedelta, ...]) -> None:
        try:
            outcome = self.call_handler(json.loads(json.dumps(payload)))
        except Exception as error:  # noqa: BLE001 - Lambda catches whatever a handler raises
            message = f"{type(error).__name__}: {error}"
            self.tell("Lambda", f"the function failed: {message}", error=message)
            if retries:
                self._at(self.now + retries[0], lambda: self._invoke(payload, retries[1:]))
            else:
                self.dead.append({"requestPayload": payload, "errorMessage": message})
                self.tell("Lambda", "three invocations failed: the event is a dead letter")
            return
        self.outcomes.append(outcome)
        self.tell("Lambda", _sentence(outcome), **outcome)
        self._watch_schedules()

    def _watch_schedules(self) -> None:
        """moto keeps schedules and never fires one: that is done here, and each is then deleted."""
        scheduler = boto3.client("scheduler")
        group = self.stack.environment["SCHEDULE_GROUP"]
        for summary in scheduler.list_schedules(GroupName=group)["Schedules"]:
            name = summary["Name"]
            if name not in self._scheduled:
                self._scheduled.add(name)
                schedule = scheduler.get_schedule(GroupName=group, Name=name)
                at = datetime.fromisoformat(schedule["ScheduleExpression"][3:-1] + "+00:00")
                payload = schedule["Target"]["Input"]
                self._at(at + SCHEDULER_LATENCY, partial(self._fire, group, name, payload))

    def _fire(self, group: str, name: str, payload: str) -> None:
        boto3.client("scheduler").delete_schedule(GroupName=group, Name=name)
        self._scheduled.remove(name)
        for _ in range(2 if self.duplicates else 1):  # at least once
            self.tell("Scheduler", f"{name} is due")
            self._invoke(json.loads(payload), LAMBDA_RETRIES)

    def call_handler(self, payload: dict[str, Any]) -> dict[str, Any]:
        context = LambdaContext()
        context._function_name = self.stack.function_name
        context._memory_limit_in_mb = int(self.stack.function["MemorySize"])
        context._invoked_function_arn = self.stack.function_arn
        context._aws_request_id = str(uuid.UUID(int=self._counter))
        for stream in function.logger.handlers:
            cast("logging.StreamHandler[io.StringIO]", stream).setStream(self.logs)
        with contextlib.redirect_stdout(self.logs):
            answer = function.handler(payload, context)
        # Lambda answers in JSON.
        outcome: dict[str, Any] = json.loads(json.dumps(answer))
        return outcome

    def _record(
        self,
        parameters: Mapping[str, Any],
        response: Mapping[str, Any] | None,
        error: tuple[str, str] | None,
    ) -> None:
        """What ECS was asked and answered, and the event that CloudTrail makes of it."""
        self.calls.append(dict(parameters))
        answer = _answer(parameters, response or {}, error and error[0])
        self.tell("ECS", f"RunTask, attempt {_attempt(parameters)}: {answer}")
        role = self.stack.resources["RetryRunTask"]["Properties"]["Role"].rpartition("/")[2]
        event = run_task_event(
            parameters,
            response,
            error=error,
            event_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.start}/{len(self.calls)}")),
            moment=self.now,
            region=self.stack.region,
            account=self.stack.account,
            caller_arn=(
                f"arn:{self.stack.partition}:sts::{self.stack.account}:assumed-role/"
                f"{role}/{self.stack.function_name}"
            ),
        )
        self.publish(event, CLOUDTRAIL_LATENCY)


def _answer(parameters: Mapping[str, Any], response: Mapping[str, Any], error: str | None) -> str:
    if error:
        return f"rejected, {error}"
    placed, failures = len(response.get("tasks") or []), response.get("failures") or []
    if not failures:
        return f"{placed} placed"
    # The first sentence of each reason, once.
    reasons = dict.fromkeys(str(f.get("reason")).partition(". ")[0] for f in failures)
    return f"HTTP 200, {placed} of {parameters.get('count') or 1} placed: {'; '.join(reasons)}"


def _attempt(parameters: Mapping[str, Any]) -> str:
    tags = {tag.get("key"): tag.get("value") for tag in parameters.get("tags") or []}
    return str(tags.get("retry-run-task:attempt"))


def _sentence(outcome: Mapping[str, Any]) -> str:
    words = f"{outcome['outcome']}, attempt {outcome['attempt']}"
    # What ECS answered to this attempt is the line above.
    if "detail" not in outcome or outcome["outcome"] == "FAILED_AGAIN":
        return words
    return f"{words}: {outcome['detail']}"


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
