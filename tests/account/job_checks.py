"""A job: would a failed call of it be retried, exactly as its rule or schedule makes it?"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from account import permissions
from account.finding import Finding, fix, ok, unknown, why_not
from account.jobs import CLIENT_CONFIG, Job
from account.look_ups import LookUps
from account.once import Denied
from account.reach import Reach
from account.runs import run_task_shape
from account.session import client_of, code_of
from account.simulation import Simulation
from account.verdict import RETRY, Verdict, decided
from rehearsal.callers import failed_call_of, parameters_of
from retry_run_task.definition import due_of, request_of
from retry_run_task.outcome import Outcome
from retry_run_task.request import AnyText, NotExact
from retry_run_task.source import hidden_environments

# RunTask takes no more (API reference, `count`).
MOST_TASKS = 10

# Why the stack does not retry a job, though nothing is wrong.
OUTSIDE = "outside the stack's ClusterArns or TaskDefinitionArns"
OPTED_OUT = "opted out by a tag of the job"
OVER = "no more calls are due"


@dataclass(frozen=True, slots=True)
class Call:
    """A call that would fail: its request, and the event that CloudTrail would make of it.

    `title` is that of its job; without a `job`, a program makes the call. `is_filled_in`: cluster,
    task definition or a role are known only when it fires.
    """

    title: str
    request: Mapping[str, Any]
    event: Mapping[str, Any]
    job: Job | None = None
    is_filled_in: bool = False


class JobChecks:
    """Looks at calls, one after the other."""

    def __init__(self, session: boto3.Session, reach: Reach) -> None:
        """Raises BadInput."""
        self._reach, self._look_ups = reach, LookUps(session)
        self._simulation = Simulation(session)
        self._ecs = client_of(session, "ecs", config=CLIENT_CONFIG)
        self._task_definitions: dict[str, Mapping[str, Any]] = {}
        self._denied = Denied()

    def of_stack(self) -> Iterator[Finding]:
        """What the function may, for any job."""
        reach, found = self._reach, []
        if reach.role_arn is not None:
            found = list(permissions.of_function(self._simulation, reach.settings, reach.role_arn))
            yield from found or [ok("policy", "It allows the function to wait, and to look up.")]

    def of_call(self, call: Call) -> str | list[Finding]:
        """Why the stack leaves it out by its owner's choice; or what there is to say about it.

        Nothing, if it would be retried.
        """
        settings = self._reach.settings
        if not settings.covers(call.request.get("cluster"), call.request.get("taskDefinition")):
            return OUTSIDE
        verdict = decided(call.event, settings, self._look_ups)
        if verdict.name == Outcome.OPTED_OUT:
            return OPTED_OUT
        found = [*self._unmatched(call), *_judged(call, verdict)]
        if call.job is not None:
            found += [*_named_key(call.job), *_deletes_itself(call, call.job)]
        if call.request.get("count", 1) > MOST_TASKS:
            problem = f"It asks for more than {MOST_TASKS} tasks at once, which ECS rejects"
            found.append(fix(call.title, f"{problem}: ask for less."))
        if call.is_filled_in:
            problem = "Its cluster, task definition or a role is filled in when it fires"
            found.append(unknown(call.title, f"{problem}: its permissions cannot be checked."))
        else:
            found += self._permissions(call)
        return found

    def of_job(self, job: Job, now: datetime) -> str | list[Finding]:
        """As of_call; at least one finding, if it is not left out."""
        off = "" if job.is_enabled else " It is disabled, and makes no calls now."
        try:
            moment = next_call_at(job, now)
            if moment is None:
                return OVER
            call = call_of(job, moment)
        except NotExact as problem:
            return [fix(job.title, f"Its call cannot be predicted: {problem}: correct it.{off}")]
        found = self.of_call(call)
        if isinstance(found, str):
            return found
        if any(finding.subject == job.title for finding in found):
            return [
                Finding(f.mark, f.subject, f"{f.sentence}{off if f.subject == job.title else ''}")
                for f in found
            ]
        if found:
            what = ", ".join(finding.subject for finding in found)
            retried = (
                f"A failed call would be retried exactly, as far as was looked at (not {what})."
            )
            return [unknown(job.title, f"{retried}{off}"), *found]
        retried = f"A failed call would be retried exactly{self._reach.how}"
        return [ok(job.title, f"{retried}.{off}")]

    def _unmatched(self, call: Call) -> Iterator[Finding]:
        """Nothing, if the rule matches the event."""
        try:
            if not self._reach.matches(call.event):
                problem = "The stack's rule does not match a failed call of it"
                yield fix(call.title, f"{problem}: deploy the stack again.")
        except (ClientError, BotoCoreError) as error:
            yield unknown("pattern", why_not(error))

    def _permissions(self, call: Call) -> Iterator[Finding]:
        """What IAM would refuse the function, and its caller."""
        request, reach, name = call.request, self._reach, _name(call.request["taskDefinition"])
        try:
            task_definition = self._described(request["taskDefinition"])
        except (ClientError, BotoCoreError) as error:
            # What ECS says of one that is unknown to it: "Unable to describe task definition."
            if code_of(error) == "ClientException":
                problem = f"The task definition {name} is not there"
                yield fix(call.title, f"{problem}: register it, or let the job start another.")
            else:
                yield unknown("task definitions", why_not(error))
            return
        if task_definition.get("status") != "ACTIVE":
            problem = f"The task definition {name} is not active"
            yield fix(call.title, f"{problem}: let the job start another.")
        try:
            if reach.role_arn is not None:
                yield from permissions.of_retry(
                    self._simulation,
                    reach.settings,
                    reach.role_arn,
                    call.title,
                    request,
                    task_definition,
                    is_narrow=reach.is_narrow,
                )
            if call.job is not None and request.get("tags"):
                role = call.job.definition.role
                found = permissions.of_caller(
                    self._simulation, reach.settings, role, call.title, request
                )
                yield from permissions.or_missing(call.title, role, found)
        except (ClientError, BotoCoreError) as error:
            yield unknown("permissions", why_not(error))

    def _described(self, name: str) -> Mapping[str, Any]:
        if name not in self._task_definitions:
            described = self._denied.ask(
                lambda: self._ecs.describe_task_definition(taskDefinition=name)
            )
            self._task_definitions[name] = described["taskDefinition"]
        return self._task_definitions[name]


def call_of(job: Job, moment: datetime) -> Call:
    """The call that the job would make at that moment, with fresh identifiers; raises NotExact."""
    if not job.definition.role:
        raise NotExact("RoleArn", "is missing, without which it cannot call ECS")
    shape = run_task_shape()
    request, defined = parameters_of(job.definition, shape), request_of(job.definition, shape)
    # A token that a definition fixes is that of all its calls.
    fresh = {"clientToken": str(uuid.uuid4())} if "clientToken" in request else {}
    event = failed_call_of(
        job.definition, shape, moment=moment, event_id=str(uuid.uuid4()), **fresh
    )
    return Call(job.title, request, event, job, _is_filled_in(defined))


def next_call_at(job: Job, now: datetime) -> datetime | None:
    """A moment at which the job could call: now, if it can. None if it makes no more calls.

    One that is disabled is judged as if its last call were still to come. Raises NotExact.
    """
    first, last = due_of(job.definition)
    if last is not None and last < now:
        return None if job.is_enabled else last
    return max(first, now) if first else now


def _judged(call: Call, verdict: Verdict) -> Iterator[Finding]:
    """Nothing, if the function would retry the call."""
    if not verdict.is_known:
        yield unknown(call.title, verdict.why)
    elif verdict.name != RETRY:
        yield fix(call.title, f"A failed call would end as {verdict.name}: {verdict.why}")


def _named_key(job: Job) -> Iterator[Finding]:
    """A schedule's tags are maps: {"Key": "a", "Value": "b"} is two tags, "Key" and "Value"."""
    if job.definition.is_rule:
        return
    parameters = job.definition.target.get("EcsParameters") or {}
    for tag in parameters.get("Tags") or []:
        named = {name.lower(): name for name in tag}
        if named.keys() >= {"key", "value"}:
            key, value = (tag[named[name]] for name in ("key", "value"))
            yield fix(
                job.title,
                f"A tag is named `{named['key']}`: Scheduler's tags are maps. Write "
                f"{json.dumps({key: value})}.",
            )


def _deletes_itself(call: Call, job: Job) -> Iterator[Finding]:
    """A schedule that is gone when its call has failed has nothing to look up any more.

    Scheduler deletes it shortly after its last call (Scheduler user guide, "Delete a schedule").
    """
    schedule: Mapping[str, Any] = job.definition.schedule or {}
    deletes = schedule.get("ActionAfterCompletion") == "DELETE"
    hides = hidden_environments(call.event["detail"]["requestParameters"])
    if deletes and hides and job.definition.ends_itself:
        yield fix(
            job.title,
            "It deletes itself after its last call, and its environment, which CloudTrail hides, "
            "is gone with it: let it stay (ActionAfterCompletion NONE), or put the value into the "
            "command.",
        )


def _is_filled_in(defined: Mapping[str, Any]) -> bool:
    """Is anything filled in that permissions depend on?"""
    overrides = defined.get("overrides", {})
    roles: list[Any] = (
        [overrides.get(name) for name in ("taskRoleArn", "executionRoleArn")]
        if isinstance(overrides, Mapping)
        else []
    )
    values = [defined.get("cluster"), defined.get("taskDefinition"), *roles]
    return any(isinstance(value, AnyText) for value in values)


def _name(arn: str) -> str:
    return arn.rpartition("/")[2]
