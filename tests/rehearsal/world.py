"""The loop in virtual time: deliveries, rules, Lambda's asynchronous invocations, CloudTrail."""

import contextlib
import heapq
import io
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self, cast
from unittest import mock

import boto3
import time_machine
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)
from botocore.httpsession import URLLib3Session
from botocore.model import OperationModel
from moto import mock_aws
from moto.moto_api._internal import mock_random
from moto.scheduler.responses import EventBridgeSchedulerResponse

from notify import handler as notify
from rehearsal.bus import AccessDenied, OutcomeBus, result_of
from rehearsal.callers import SHOWN_ONLY, date_in, failed_call_of
from rehearsal.cloudtrail import run_task_event
from rehearsal.ecs import DAY, ScarceEcs
from rehearsal.lost_jobs import LostJobs, Message
from rehearsal.pattern import matches
from rehearsal.template import Stack
from retry_run_task import handler as function
from retry_run_task.definition import Definition
from retry_run_task.request import NotExact

# How long an event takes from CloudTrail to the rule. Seconds to minutes (aws-facts, section 1).
CLOUDTRAIL_LATENCY = timedelta(seconds=90)
DUPLICATE_LATENCY = timedelta(seconds=2)
# Scheduler fires within 60 s after the time that a schedule names (aws-facts, section 5).
SCHEDULER_LATENCY = timedelta(seconds=30)
# When Lambda tries an asynchronous invocation again that raised (Lambda developer guide,
# "Error handling for asynchronous invocation").
LAMBDA_RETRIES = (timedelta(minutes=1), timedelta(minutes=2))
MILLISECOND = timedelta(milliseconds=1)
# What Scheduler replaces in the input of a target (Scheduler user guide, "Context attributes").
CONTEXT_ATTRIBUTE = re.compile(r"<aws\.scheduler\.[a-z-]+>")
CLIENTS = (
    function.ecs_client,
    function.events_client,
    function.forward_client,
    function.scheduler_client,
    notify.sns_client,
)


def stay_here(_: URLLib3Session, request: AWSPreparedRequest) -> None:
    """Whatever moto has not answered would leave this machine."""
    raise EndpointConnectionError(endpoint_url=request.url)


class Crash(BaseException):
    """Lambda has killed the process: no code of the function sees it."""


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
        definitions: Mapping[str, Any] | None = None,
        **scarcity: Any,
    ) -> None:
        """`definitions`: `Rules` with their `Targets`, and `Schedules`, as AWS's API has them."""
        self.stack = stack  # whose function is at work, or was the last to be
        self.stacks = {stack.name: stack}
        self.start = self.now = start
        self.duplicates = duplicates
        self.duplicate_latency = DUPLICATE_LATENCY
        self.shows_tokens = True  # whether CloudTrail does is not known (aws-facts, section 1)
        self.definitions = definitions or {}
        self.timeline: list[Entry] = []
        self.calls: list[dict[str, Any]] = []
        self.outcomes: list[dict[str, Any]] = []
        self.buses: dict[str, OutcomeBus] = {}
        self.letters: dict[str, LostJobs] = {}
        # What the function asks of AWS: "before RunTask", "after RunTask", …
        self.points: list[str] = []
        # Where its process dies, one each time, and which operations AWS refuses, with which code.
        self.crashes: list[str] = []
        self.refused: dict[str, str] = {}
        # Until when requests of these operations reach no AWS.
        self.away: dict[str, datetime] = {}
        # What a dead-letter queue keeps, and how many further invocations cannot be delivered.
        self.queue: list[tuple[str, dict[str, Any]]] = []
        self.undelivered = 0
        # The inputs of all schedules that it made.
        self.inputs: list[str] = []
        self.logs = io.StringIO()
        self.ecs = ScarceEcs(
            stack.account, stack.region, on_call=self._record, now=lambda: self.now, **scarcity
        )
        self.is_in_function = False
        # How long a schedule that has fired is there: "for a short while" (aws-facts, section 9).
        self.lingers = timedelta()
        # After what time updates of schedules take effect, one each; the function sees a time-out.
        self.late_updates: list[timedelta] = []
        # When each schedule fires, and with what.
        self._scheduled: dict[tuple[str, str], tuple[str, str]] = {}
        self._fired: set[tuple[str, str]] = set()
        # Names of those that fired after they were pulled forward, and each change of a time.
        self.forwarded: set[str] = set()
        self.moved: list[tuple[str, str]] = []
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._counter = 0
        self._asked = 1
        self._placed: list[str] = []
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._exit:  # moto does not stay where it refuses the definitions
            self._set_up()
            self._exit = self._exit.pop_all()
        return self

    def _set_up(self) -> None:
        enter = self._exit.enter_context
        no_one = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
        # A Region that moto does not know yet is played as well.
        here = {"MOTO_ACCOUNT_ID": self.stack.account, "MOTO_ALLOW_NONEXISTENT_REGION": "true"}
        enter(mock.patch.dict(os.environ, no_one | here))
        enter(mock.patch.object(boto3, "DEFAULT_SESSION", None))
        os.environ.update(self.stack.environment)
        self._clock = enter(time_machine.travel(self.now, tick=False))
        enter(mock.patch("time.sleep", self._sleep))
        enter(mock.patch.object(URLLib3Session, "send", stay_here))
        enter(mock_aws())  # forgets the session that boto3 has had
        session = boto3.Session()
        for moment in ("before", "after"):
            session.events.register(f"{moment}-call", partial(self._pass, moment))
        boto3.DEFAULT_SESSION = session
        mock_random.seed(0)  # the same tasks' ids in every run
        enter(self.ecs.in_place_of_motos())
        enter(whole_updates())
        self._scheduler = boto3.client("scheduler")
        self.deploy(self.stack)
        for client in CLIENTS:
            client.cache_clear()
            self._exit.callback(client.cache_clear)
        self.define(self.definitions)

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def run(self) -> None:
        """Let time pass until nothing is due any more."""
        while self.is_busy:
            self.step()

    @property
    def is_busy(self) -> bool:
        """Is anything due, now or later?"""
        return bool(self._due)

    def step(self) -> None:
        """The next due thing."""
        moment, _, action = heapq.heappop(self._due)
        self.now = max(self.now, moment)
        self._clock.move_to(self.now)
        action()

    def deploy(self, stack: Stack) -> None:
        """The stack from now on: the same one with other parameters, or one more by its name."""
        if stack.name not in self.buses:
            letters = LostJobs(stack, self.at, lambda: self.now, self._arrived)
            self.letters[stack.name] = letters
            self.buses[stack.name] = OutcomeBus(
                partial(self._invoke_later, stack.name), letters.send
            )
            self._scheduler.create_schedule_group(Name=stack.environment["SCHEDULE_GROUP"])
        self.letters[stack.name].use(stack)
        self.stacks[stack.name] = stack
        self.use(stack.name)

    def use(self, name: str) -> None:
        """Let the function of this stack be the one at work."""
        self.stack = self.stacks[name]
        os.environ.update(self.stack.environment)

    @property
    def bus(self) -> OutcomeBus:
        """That of the stack at work."""
        return self.buses[self.stack.name]

    @property
    def messages(self) -> list[Message]:
        """What the stack at work has sent to its topic."""
        return self.letters[self.stack.name].messages

    def _arrived(self, message: Message) -> None:
        self.tell("SNS", message.subject, message=message.text)

    def define(self, definitions: Mapping[str, Any]) -> None:
        """The rules and schedules that make calls, as their owners defined them.

        That was the day before, unless a schedule says when. Raises NotExact for what moto refuses.
        """
        kinds = {"Rules": self._define_rule, "Schedules": self._define_schedule}
        for kind, define in kinds.items():
            for i, definition in enumerate(definitions.get(kind, [])):
                self._clock.move_to(self.start - DAY)
                try:
                    define(definition)
                except (ClientError, ParamValidationError) as error:
                    raise NotExact(f"{kind}[{i}]", f"is refused: {error}") from error
        self._clock.move_to(self.now)

    def _define_rule(self, rule: Mapping[str, Any]) -> None:
        events = boto3.client("events")
        bus = rule.get("EventBusName", "default")
        if bus not in [b["Name"] for b in events.list_event_buses()["EventBuses"]]:
            events.create_event_bus(Name=bus)
        events.put_rule(Name=rule["Name"], EventBusName=bus, EventPattern='{"source": ["x"]}')
        if rule["Targets"]:
            events.put_targets(Rule=rule["Name"], EventBusName=bus, Targets=rule["Targets"])

    def _define_schedule(self, schedule: Mapping[str, Any]) -> None:
        scheduler = self._scheduler
        group = schedule.get("GroupName", "default")
        # moto would empty a group that is there already.
        if group not in [g["Name"] for g in scheduler.list_schedule_groups()["ScheduleGroups"]]:
            scheduler.create_schedule_group(Name=group)
        made = date_in(schedule, "CreationDate") or self.start - DAY
        given = {k: v for k, v in schedule.items() if k not in SHOWN_ONLY}
        for name in ("StartDate", "EndDate"):
            if (date := date_in(schedule, name)) is not None:
                given[name] = date
        if given.get("StartDate", made) < made:  # moto, as AWS, takes none that is past
            del given["StartDate"]
        self._clock.move_to(made)
        scheduler.create_schedule(**given)
        changed = date_in(schedule, "LastModificationDate") or made
        if changed > made:
            self._clock.move_to(changed)
            scheduler.update_schedule(**given)

    def begin(self, event: Mapping[str, Any]) -> None:
        """A caller's RunTask call has happened, and this is the event of it."""
        detail: Mapping[str, Any] = event["detail"]
        parameters = object_in(detail.get("requestParameters"))
        response = object_in(detail.get("responseElements"))
        self._asked, self._placed = asked_and_placed(detail)
        service = object_in(detail.get("userIdentity")).get("invokedBy")
        who = service or str(detail.get("userAgent")).partition(" ")[0]
        error = detail.get("errorCode")
        self.tell("ECS", f"RunTask by {who}: {_answer(parameters, response, error)}")
        self.publish(event, CLOUDTRAIL_LATENCY)

    def fire(self, definition: Definition, **changes: Any) -> dict[str, Any]:
        """A rule or schedule makes its call now, and ECS places nothing: the event of it.

        `changes` are to the parameters of the call.
        """
        event_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{definition.arn}/{self.now}"))
        event = failed_call_of(
            definition, function.run_task_shape(), moment=self.now, event_id=event_id, **changes
        )
        self.begin(event)
        return event

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
        self._at_least_once(latency, lambda: self.deliver(event))

    def tell(self, actor: str, text: str, **data: Any) -> None:
        self.timeline.append(Entry(self.now, actor, text, data))

    def _sleep(self, seconds: float) -> None:
        """botocore's waits between its own tries."""
        self.now += timedelta(seconds=seconds)
        self._clock.move_to(self.now)

    def at(self, moment: datetime, action: Callable[[], None]) -> None:
        """Do this then."""
        self._counter += 1
        heapq.heappush(self._due, (moment, self._counter, action))

    def replay(self, command: str) -> int:
        """An operator pastes this `aws events start-replay` command; returns what it replays."""
        count = self.bus.start_replay(self.stack, command, self.now)
        self.tell("Operator", f"start-replay: {count} from the archive", replayed=count)
        return count

    def wait(self, time: timedelta) -> None:
        """Let time pass in which nothing is due."""
        self._sleep(time.total_seconds())

    def pass_time(self, time: timedelta) -> None:
        """Let time pass, and do what is due meanwhile."""
        until = self.now + time
        while self._due and self._due[0][0] <= until:
            self.step()
        self.wait(max(until - self.now, timedelta()))

    def _pass(
        self,
        moment: str,
        model: OperationModel,
        params: Any = None,
        **_: object,
    ) -> None:
        """Before and after each request to AWS."""
        if not self.is_in_function:
            return
        point = f"{moment} {model.name}"
        self.points.append(point)
        if self.crashes and self.crashes[0] == point:
            raise Crash(self.crashes.pop(0))
        if moment == "before" and self.now < self.away.get(model.name, self.now):
            raise EndpointConnectionError(endpoint_url=model.name)
        if code := self.refused.get(model.name):
            raise ClientError({"Error": {"Code": code, "Message": "refused"}}, model.name)
        if point == "before UpdateSchedule" and self.late_updates:
            update = partial(self._update, self.stack.name, params)
            self.at(self.now + self.late_updates.pop(0), update)
            raise ReadTimeoutError(endpoint_url=model.name)

    def _update(self, stack: str, request: Mapping[str, Any]) -> None:
        """What the function has given up takes effect all the same, if the schedule is there.

        One that has fired, and is there for a while, fires again: a guess, and the worse of two.
        """
        self.use(stack)
        name = request["url_path"].rpartition("/")[2]
        with contextlib.suppress(self._scheduler.exceptions.ResourceNotFoundException):
            self._scheduler.update_schedule(Name=name, **json.loads(request["body"]))
            self._fired.discard((stack, name))
            self.tell("Scheduler", f"the update of {name} arrives")
        self.watch_schedules()

    def deliver(self, event: Mapping[str, Any]) -> None:
        """An event is on the default bus now."""
        for name in list(self.stacks):
            self.use(name)
            if not self.stack.takes_failed_calls:
                self.tell("EventBridge", "the rule is disabled", matched=False)
            elif matches(self.stack.pattern, event):
                self.tell("EventBridge", "the rule matches the event", matched=True)
                self._send(name, event, event)
            else:
                self.tell("EventBridge", "the rule leaves the event alone", matched=False)

    def _invoke_later(self, name: str, payload: Mapping[str, Any]) -> None:
        self._at_least_once(timedelta(), lambda: self._send(name, payload, payload))

    def _send(self, name: str, payload: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        """To the function of this stack; or, as the request for it, to the dead-letter queue."""
        if name not in self.stacks:
            return
        if self.undelivered:
            self.undelivered -= 1
            self.queue.append((name, dict(request)))
            self.tell("EventBridge", "an invocation could not be delivered: it is in the queue")
        else:
            self.use(name)
            self.invoke(payload)

    def redrive(self) -> None:
        """An operator sends what the dead-letter queue holds to the function (see the README)."""
        while self.queue:
            name, message = self.queue.pop(0)
            self.use(name)
            self.invoke(message)

    def _at_least_once(self, latency: timedelta, action: Callable[[], None]) -> None:
        """Once, or twice where duplicates are rehearsed: the second comes a little later."""
        self.at(self.now + latency, action)
        if self.duplicates:
            self.at(self.now + latency + self.duplicate_latency, action)

    def invoke(
        self, payload: Mapping[str, Any], retries: tuple[timedelta, ...] = LAMBDA_RETRIES
    ) -> None:
        """An asynchronous invocation, with the further tries that Lambda makes if it fails."""
        try:
            outcome = self.call_handler(json.loads(json.dumps(payload)))
        except (Exception, Crash) as error:  # noqa: BLE001 - as Lambda does
            message = f"{type(error).__name__}: {error}"
            self.tell("Lambda", f"the function failed: {message}", error=message)
            if retries:
                self.at(
                    self.now + retries[0], partial(self._retry, self.stack.name, payload, retries)
                )
            else:
                answer = {"errorType": type(error).__name__, "errorMessage": str(error)}
                self.send_result("Failure", "RetriesExhausted", payload, answer)
        else:
            self.outcomes.append(outcome)
            self.tell("Lambda", _sentence(outcome), **outcome)
            self.send_result("Success", "Success", payload, outcome)
        self.watch_schedules()

    def _retry(self, name: str, payload: Mapping[str, Any], retries: tuple[timedelta, ...]) -> None:
        if name in self.stacks:
            self.use(name)
            self.invoke(payload, retries[1:])

    def send_result(
        self, kind: str, condition: str, payload: Mapping[str, Any], answer: object
    ) -> None:
        """Lambda's record of an asynchronous invocation, to the function's destination."""
        record = result_of(self.stack, kind, condition, payload, answer, self.now, self._counter)
        archived = len(self.bus.archive)
        destinations = self.stack.function["EventInvokeConfig"]["DestinationConfig"]
        assert destinations[f"On{kind}"] == {
            "Type": "EventBridge",
            "Destination": self.stack.attribute("OutcomeBus", "Arn"),
        }
        role_arn = self.stack.attribute("RetryRunTaskRole", "Arn")
        try:
            self.bus.put(self.stack, record, role_arn, self.stack.policy)
        except AccessDenied as problem:  # DestinationDeliveryFailures counts it
            self.tell("Lambda", f"the destination could not be reached: {problem}")
        if len(self.bus.archive) > archived:
            self.tell("EventBridge", "the dead letter is in the archive")

    def schedules(self) -> list[Any]:
        """Attempts that wait, as GetSchedule describes them."""
        return [self._schedule(name) for name in self._names_of_schedules()]

    def watch_schedules(self) -> None:
        """moto keeps schedules and never fires one: that is done here, and each is then deleted."""
        for name in self._names_of_schedules():
            schedule = self._schedule(name)
            expression, payload = schedule["ScheduleExpression"], schedule["Target"]["Input"]
            key, version = (self.stack.name, name), (expression, payload)
            if self._scheduled.get(key) == version:
                continue
            if key in self._scheduled:
                self.moved.append((self._scheduled[key][0], expression))
                self.tell("Scheduler", f"{name} is pulled forward to {expression[14:-1]}")
            self._scheduled[key] = version
            self.inputs.append(payload)
            at = datetime.fromisoformat(f"{expression[3:-1]}+00:00")
            fire = partial(self._fire, self.stack.name, name, version)
            self.at(max(self.now, at + SCHEDULER_LATENCY), fire)

    def _names_of_schedules(self) -> list[str]:
        """Of those that have not fired, or are there for ever."""
        group = self.stack.environment["SCHEDULE_GROUP"]
        pages = self._scheduler.get_paginator("list_schedules").paginate(GroupName=group)
        names = [schedule["Name"] for page in pages for schedule in page["Schedules"]]
        return sorted(name for name in names if (self.stack.name, name) not in self._fired)

    def _schedule(self, name: str) -> Any:
        group = self.stack.environment["SCHEDULE_GROUP"]
        return self._scheduler.get_schedule(GroupName=group, Name=name)

    def _fire(self, stack: str, name: str, version: tuple[str, str]) -> None:
        if self._scheduled.get((stack, name)) != version:
            return  # it was updated
        self.use(stack)
        if name not in self._names_of_schedules():
            return  # it has fired
        if '"planned"' in version[1]:
            self.forwarded.add(name)
        if self._schedule(name)["ActionAfterCompletion"] == "DELETE":
            self._fired.add((stack, name))
            if self.lingers:
                self.at(self.now + self.lingers, partial(self._delete, stack, name))
            else:
                self._delete(stack, name)
        text = CONTEXT_ATTRIBUTE.sub("filled in by Scheduler", version[1])
        request = {
            "FunctionName": self.stack.function_arn,
            "InvocationType": "Event",
            "Payload": text,
        }

        def due() -> None:
            self.tell("Scheduler", f"{name} is due")
            self._send(stack, json.loads(text), request)

        due()
        if self.duplicates:
            self.at(self.now + self.duplicate_latency, due)

    def _delete(self, stack: str, name: str) -> None:
        """What has fired, and was not updated since."""
        if (stack, name) in self._fired and stack in self.stacks:
            self.use(stack)
            group = self.stack.environment["SCHEDULE_GROUP"]
            self._scheduler.delete_schedule(GroupName=group, Name=name)
            self._fired.remove((stack, name))
            del self._scheduled[stack, name]

    def call_handler(self, payload: dict[str, Any]) -> dict[str, Any]:
        context = LambdaContext()
        context._function_name = self.stack.function_name
        context._memory_limit_in_mb = int(self.stack.function["MemorySize"])
        context._invoked_function_arn = self.stack.function_arn
        context._aws_request_id = str(uuid.UUID(int=self._counter))
        ends = self.now + timedelta(seconds=int(self.stack.function["Timeout"]))
        # The class has a static method that gives 0; Lambda's has one that looks at the clock.
        vars(context)["get_remaining_time_in_millis"] = lambda: (ends - self.now) // MILLISECOND
        for stream in function.logger.handlers:
            cast("logging.StreamHandler[io.StringIO]", stream).setStream(self.logs)
        self.is_in_function = True
        try:
            with contextlib.redirect_stdout(self.logs):
                answer = function.handler(payload, context)
        finally:
            self.is_in_function = False
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
        role, session = self.stack.function["Role"], self.stack.function_name
        if not self.is_in_function:  # a user's own program
            role, session = role.replace(role.rpartition("/")[2], "user"), "user"
        answer = _answer(parameters, response or {}, error and error[0])
        self.tell("ECS", f"RunTask, attempt {_attempt(parameters)}: {answer}")
        event = run_task_event(
            parameters,
            response,
            error=error,
            event_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.start}/{len(self.calls)}")),
            moment=self.now,
            region=self.stack.region,
            account=self.stack.account,
            role_arn=role,
            session=session,
        )
        if not self.shows_tokens:
            del event["detail"]["requestParameters"]["clientToken"]
        self.publish(event, CLOUDTRAIL_LATENCY)


@contextlib.contextmanager
def whole_updates() -> Iterator[None]:
    """UpdateSchedule replaces the whole schedule (its API reference); moto's keeps one member."""
    motos = EventBridgeSchedulerResponse.update_schedule

    def update_schedule(response: EventBridgeSchedulerResponse) -> str:
        answer = motos(response)
        name = response.uri.partition("?")[0].rpartition("/")[2]
        group = response._get_param("GroupName")
        schedule = response.scheduler_backend.get_schedule(group, name)
        schedule.action_after_completion = response._get_param("ActionAfterCompletion") or "NONE"
        return answer

    with mock.patch.object(EventBridgeSchedulerResponse, "update_schedule", update_schedule):
        yield


def asked_and_placed(detail: Mapping[str, Any]) -> tuple[int, list[str]]:
    """How many tasks the call in a record asked for, and the ARNs of those that it placed."""
    count = object_in(detail.get("requestParameters")).get("count")
    tasks = objects_in(object_in(detail.get("responseElements")).get("tasks"))
    asked = count if type(count) is int and count > 0 else 1
    return asked, [str(task["taskArn"]) for task in tasks if task.get("taskArn")]


def _answer(parameters: Mapping[str, Any], response: Mapping[str, Any], error: object) -> str:
    if error:
        return f"rejected, {error}"
    detail = {"requestParameters": parameters, "responseElements": response}
    asked, placed = asked_and_placed(detail)
    failures = objects_in(response.get("failures"))
    if not failures:
        return f"{len(placed)} placed"
    # The first sentence of each reason, once.
    reasons = dict.fromkeys(str(f.get("reason")).partition(". ")[0] for f in failures)
    return f"HTTP 200, {len(placed)} of {asked} placed: {'; '.join(reasons)}"


def _attempt(parameters: Mapping[str, Any]) -> str:
    tags = {tag.get("key"): tag.get("value") for tag in parameters.get("tags") or []}
    return str(tags.get("retry-run-task:attempt"))


def _sentence(outcome: Mapping[str, Any]) -> str:
    words = f"{outcome['outcome']}, attempt {outcome['attempt']}"
    # What ECS answered to this attempt is the line above.
    if "detail" not in outcome or outcome["outcome"] == "FAILED_AGAIN":
        return words
    return f"{words}: {outcome['detail']}"


def object_in(value: object) -> Mapping[str, Any]:
    """The object; what is none has no members."""
    return value if isinstance(value, dict) else {}


def objects_in(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list; what is no list has none."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
