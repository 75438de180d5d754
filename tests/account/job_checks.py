"""A job: would a failed call of it be retried, exactly as its rule or schedule makes it?"""

import copy
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from account import permissions
from account.finding import Finding, fix, ok, unknown, why_not
from account.jobs import Job
from account.look_ups import LookUps
from account.once import Operation
from account.reach import Reach
from account.runs import run_task_shape
from account.session import PATIENT, client_of, code_of
from account.simulation import Simulation
from account.verdict import RETRY, Verdict, decided
from rehearsal.callers import failed_call_of, parameters_of
from retry_run_task.definition import due_of, request_of
from retry_run_task.outcome import Outcome
from retry_run_task.request import AnyText, NotExact
from retry_run_task.settings import Settings
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

    `title` is that of its job; without a `job`, a program makes the call. `is_open`: its cluster,
    task definition or a role are known only when it fires.
    """

    title: str
    request: Mapping[str, Any]
    event: Mapping[str, Any]
    job: Job | None = None
    is_open: bool = False


class JobChecks:
    """Looks at calls, one after the other."""

    def __init__(self, session: boto3.Session, reach: Reach, simulation: Simulation) -> None:
        """Raises BadInput."""
        self._reach, self._simulation = reach, simulation
        self._look_ups = LookUps(session)
        self._ecs = client_of(session, "ecs", config=PATIENT)
        self._describe = Operation()
        self._task_definitions: dict[str, Mapping[str, Any]] = {}

    def of_call(self, call: Call) -> str | list[Finding]:
        """Why the stack leaves it out by its owner's choice; or what there is to say about it.

        Nothing, if it would be retried.
        """
        settings, request = self._reach.settings, call.request
        if call.is_open:
            problem = "Its cluster, task definition or a role is filled in when it fires"
            unsure = "whether it would be retried cannot be checked"
            return [unknown(call.title, f"{problem}: {unsure}.")]
        if rejected := list(_rejected(call, settings)):
            return rejected
        if not settings.covers(request.get("cluster"), request.get("taskDefinition")):
            return OUTSIDE
        verdict = decided(call.event, settings, self._look_ups)
        if verdict.name == Outcome.OPTED_OUT:
            return OPTED_OUT
        found = [*self._unmatched(call), *self._judged(call, verdict)]
        if call.job is not None:
            found += [*_named_key(call.job), *_deletes_itself(call, call.job)]
        return [*found, *self._permissions(call)]

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
                replace(each, sentence=each.sentence + off) if each.subject == job.title else each
                for each in found
            ]
        if found:
            what = ", ".join(finding.subject for finding in found)
            retried = f"A failed call would be retried exactly, but not all was looked at ({what})."
            return [unknown(job.title, f"{retried}{off}"), *found]
        retried = f"A failed call would be retried exactly{self._reach.how}"
        return [ok(job.title, f"{retried}.{off}")]

    def _judged(self, call: Call, verdict: Verdict) -> Iterator[Finding]:
        """Nothing, if the function would retry the call."""
        if verdict.name == RETRY:
            return
        if not verdict.is_known:
            yield unknown(call.title, verdict.why)
            return
        if call.job is not None and has_open_overrides(call.job):
            bare = decided(_without_environment(call.event), self._reach.settings, self._look_ups)
            if bare.name == RETRY:
                problem = "Its overrides are filled in when it fires"
                unsure = "a failed call is retried only if they set no environment"
                yield unknown(call.title, f"{problem}: {unsure}.")
                return
        yield fix(call.title, f"A failed call would end as {verdict.name}: {verdict.why}")

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
        request, reach = call.request, self._reach
        name = permissions.name_of(request["taskDefinition"])
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
                yield from permissions.of_caller(
                    self._simulation, reach.settings, role, call.title, request
                )
        except (ClientError, BotoCoreError) as error:
            yield unknown("permissions", why_not(error))

    def _described(self, name: str) -> Mapping[str, Any]:
        if name not in self._task_definitions:
            described = self._describe.ask(
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
    return Call(job.title, request, event, job, _is_open(defined))


def next_call_at(job: Job, now: datetime) -> datetime | None:
    """A moment at which the job could call: now, if it can. None if it makes no more calls.

    One that is disabled is judged as if its last call were still to come. Raises NotExact.
    """
    definition = job.definition
    first, last = due_of(definition)
    if job.is_enabled or definition.schedule is None or last is None or last >= now:
        return None if last is not None and last < now else max(first or now, now)
    enabled = replace(definition, schedule={**definition.schedule, "State": "ENABLED"})
    _, end = due_of(enabled)
    is_over = (end is not None and end < now) or (first is not None and first > last)
    return None if is_over else last


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


def _is_open(defined: Mapping[str, Any]) -> bool:
    """Is anything filled in that coverage and permissions depend on?"""
    roles = permissions.roles_in(defined).values()
    values = [defined.get("cluster"), defined.get("taskDefinition"), *roles]
    return any(isinstance(value, AnyText) for value in values)


def has_open_overrides(job: Job) -> bool:
    """Are its overrides filled in as a whole, so that they may set an environment, or not?"""
    overrides = request_of(job.definition, run_task_shape()).get("overrides", {})
    if isinstance(overrides, AnyText):
        return True
    containers = overrides.get("containerOverrides", [])
    return isinstance(containers, AnyText) or any(isinstance(c, AnyText) for c in containers)


def _without_environment(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event of the call, as if none of its containers had an environment."""
    bare = copy.deepcopy(dict(event))
    for container in bare["detail"]["requestParameters"]["overrides"]["containerOverrides"]:
        container.pop("environment", None)
    return bare


def _rejected(call: Call, settings: Settings) -> Iterator[Finding]:
    """Calls that ECS rejects are never failed calls, which it accepts."""
    request = call.request
    for member, kind in (("cluster", "cluster"), ("taskDefinition", "task-definition")):
        place = settings.arn(kind, request.get(member) or "default").split(":")[3:5]
        if place != [settings.region, settings.account]:
            problem = f"Its {member} is of another Region or account, where this stack is not"
            yield fix(call.title, f"{problem}: use a stack there, or correct it.")
    count = request.get("count", 1)
    if not 1 <= count <= MOST_TASKS:
        problem = f"It asks for {count} tasks, and ECS takes 1 to {MOST_TASKS} at once"
        yield fix(call.title, f"{problem}: correct it.")
    reserved = [t["key"] for t in request.get("tags", []) if t.get("key", "").startswith("aws:")]
    if reserved:
        problem = f"Its tag {reserved[0]} begins with aws:, which is for AWS only"
        yield fix(call.title, f"{problem}: ECS rejects its calls until you remove it.")
