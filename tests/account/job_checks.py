"""A job: would a failed call of it be retried, exactly as its rule or schedule makes it?"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from account.finding import Finding, fix, ok, unknown, why_not
from account.jobs import Job
from account.look_ups import LookUps
from account.reach import Reach
from account.runs import run_task_shape
from account.session import client_of
from account.simulation import Simulation
from account.verdict import RETRY, Verdict, decided
from rehearsal.callers import failed_call_of, parameters_of
from retry_run_task.definition import due_of
from retry_run_task.outcome import Outcome
from retry_run_task.request import NotExact

# Roles are passed to these services (Amazon ECS developer guide, "Amazon ECS task IAM role", and
# "Amazon ECS infrastructure IAM role" for the volumes of EBS).
TASKS, INFRASTRUCTURE = "ecs-tasks.amazonaws.com", "ecs.amazonaws.com"


@dataclass(frozen=True, slots=True)
class Call:
    """A call that would fail: its request, and the event that CloudTrail would make of it.

    `title` is that of its job, and `role` the ARN of the caller's role, if that sends tags.
    """

    title: str
    request: Mapping[str, Any]
    event: Mapping[str, Any]
    role: str = ""


class JobChecks:
    """Looks at calls, one after the other. `left_out` are jobs that are none of the stack's."""

    def __init__(self, session: boto3.Session, reach: Reach) -> None:
        """Raises BadInput."""
        self.left_out: dict[str, list[str]] = {}
        self._reach, self._look_ups = reach, LookUps(session)
        self._simulation = Simulation(session)
        self._ecs = client_of(session, "ecs")
        self._task_definitions: dict[str, Mapping[str, Any]] = {}

    def of_job(self, job: Job, now: datetime) -> Iterator[Finding]:
        """One that says it is retried, or one for each thing to fix and each that is not known."""
        why = ""
        try:
            moment = _next_call(job, now)
            if moment is None:
                why = "no more calls are due"
            else:
                call = call_of(job, moment)
                why = self.why_left_out(call)
        except NotExact as problem:
            yield fix(job.title, f"Its call cannot be predicted: {problem}.")
            return
        if why:
            self.left_out.setdefault(why, []).append(job.title)
            return
        found = [*_named_key(job), *self.of_call(call)]
        if not any(finding.subject == job.title for finding in found):
            is_allowed = self._reach.role_arn and not found
            policy = ", and the policy allows it" if is_allowed else ""
            off = "" if job.is_enabled else " It is disabled, and makes no calls now."
            yield ok(job.title, f"A failed call would be retried exactly{policy}.{off}")
        yield from found

    def why_left_out(self, call: Call) -> str:
        """Why it is none of the stack's calls, by the choice of its owner; empty if it is one."""
        settings = self._reach.settings
        if not settings.covers(call.request.get("cluster"), call.request.get("taskDefinition")):
            return "outside the stack's ClusterArns or TaskDefinitionArns"
        is_opted_out = self._verdict(call).name == Outcome.OPTED_OUT
        return "opted out by a tag of the job" if is_opted_out else ""

    def of_call(self, call: Call) -> Iterator[Finding]:
        """What keeps the call from being retried, and what of that is not known; else nothing."""
        yield from self._unmatched(call)
        verdict = self._verdict(call)
        if not verdict.is_known:
            yield unknown(call.title, verdict.why)
        elif verdict.name != RETRY:
            yield fix(call.title, f"{verdict.name}: {verdict.why}")
        yield from self._permissions(call)

    def _verdict(self, call: Call) -> Verdict:
        return decided(call.event, self._reach.settings, self._look_ups)

    def _unmatched(self, call: Call) -> Iterator[Finding]:
        """Nothing, if the rule matches the event."""
        try:
            if not self._reach.matches(call.event):
                yield fix(call.title, "The stack's rule does not match a failed call of it.")
        except (ClientError, BotoCoreError) as error:
            yield unknown("pattern", why_not(error))

    def _permissions(self, call: Call) -> Iterator[Finding]:
        """What IAM would refuse the function, and its caller."""
        request, role = call.request, self._reach.role_arn
        cluster = self._reach.settings.arn("cluster", request["cluster"])
        try:
            task_definition = self._described(request["taskDefinition"])
        except (ClientError, BotoCoreError) as error:
            # What ECS says of one that is unknown to it: "Unable to describe task definition."
            is_unknown = getattr(error, "response", {}).get("Error", {}).get("Code")
            if is_unknown == "ClientException":
                name = _name(request["taskDefinition"])
                yield fix(call.title, f"The task definition {name} is not there.")
            else:
                yield unknown("task definitions", why_not(error))
            return
        if task_definition.get("status") != "ACTIVE":
            family = task_definition["taskDefinitionArn"].rpartition("/")[2]
            yield fix(call.title, f"The task definition {family} is not active.")
        try:
            if role is not None:
                yield from self._of_function(call, role, cluster, task_definition)
            if call.role and request.get("tags"):
                yield from self._of_caller(call, cluster)
        except (ClientError, BotoCoreError) as error:
            yield unknown("permissions", why_not(error))

    def _of_function(
        self,
        call: Call,
        role: str,
        cluster: str,
        task_definition: Mapping[str, Any],
    ) -> Iterator[Finding]:
        allows, settings = self._simulation.allows, self._reach.settings
        arn = task_definition["taskDefinitionArn"]
        where = {"ecs:cluster": cluster}
        if not allows(role, "ecs:RunTask", arn, where):
            yield fix(call.title, f"The function's role may not ecs:RunTask {_name(arn)}.")
        created = {"ecs:CreateAction": "RunTask"}
        if not allows(role, "ecs:TagResource", _any_task(cluster), where | created):
            yield fix(
                call.title, f"The function's role may not ecs:TagResource in {_name(cluster)}."
            )
        for named, service in _roles(task_definition, call.request):
            # A task definition may name a role without its ARN (RegisterTaskDefinition).
            path = f"arn:{settings.partition}:iam::{settings.account}:role/"
            passed = named if named.startswith("arn:") else f"{path}{named}"
            if not allows(role, "iam:PassRole", passed, {"iam:PassedToService": service}):
                yield fix(
                    call.title,
                    f"The role {_name(passed)} is not in PassRoleArns: add {passed}."
                    if self._reach.is_narrow
                    else f"The function's role may not iam:PassRole {passed}.",
                )

    def _of_caller(self, call: Call, cluster: str) -> Iterator[Finding]:
        """A caller that sends tags needs another permission (RunTask `tags`, API reference)."""
        caller = call.role
        context = {"ecs:CreateAction": "RunTask", "ecs:cluster": cluster}
        try:
            is_allowed = self._simulation.allows(
                caller, "ecs:TagResource", _any_task(cluster), context
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            yield fix(call.title, f"Its caller's role {_name(caller)} is not there.")
            return
        if not is_allowed:
            yield fix(
                call.title,
                f"It sends tags, and its caller's role {_name(caller)} may not ecs:TagResource: "
                "ECS rejects its calls.",
            )

    def _described(self, name: str) -> Mapping[str, Any]:
        if name not in self._task_definitions:
            described = self._ecs.describe_task_definition(taskDefinition=name)
            self._task_definitions[name] = described["taskDefinition"]
        return self._task_definitions[name]


def call_of(job: Job, moment: datetime) -> Call:
    """The call that the job would make at that moment; raises NotExact."""
    event_id, shape = str(uuid.uuid4()), run_task_shape()
    return Call(
        title=job.title,
        request=parameters_of(job.definition, shape),
        event=failed_call_of(job.definition, shape, moment=moment, event_id=event_id),
        role=job.definition.role,
    )


def _next_call(job: Job, now: datetime) -> datetime | None:
    """A moment at which the job could call: now, if it can. None if it makes no more calls.

    One that is disabled is judged as if its last call were still to come. Raises NotExact.
    """
    first, last = due_of(job.definition)
    if last is not None and last < now:
        return None if job.is_enabled else last
    return max(first, now) if first else now


def _named_key(job: Job) -> Iterator[Finding]:
    """A schedule's tags are maps: {"Key": "a", "Value": "b"} is two tags, "Key" and "Value"."""
    if job.definition.is_rule:
        return
    parameters = job.definition.target.get("EcsParameters") or {}
    for tag in parameters.get("Tags") or []:
        named = [name for name in tag if name.lower() in ("key", "value")]
        if len(named) == 2:
            yield fix(
                job.title,
                f"A tag is named `{named[0]}`: Scheduler's tags are maps. Write "
                f"{json.dumps({tag[named[0]]: tag[named[1]]})}.",
            )


def _roles(
    task_definition: Mapping[str, Any], request: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The roles that the task gets, and the services that they are passed to."""
    overrides = request.get("overrides", {})
    for name in ("taskRoleArn", "executionRoleArn"):
        if role := overrides.get(name) or task_definition.get(name):
            yield role, TASKS
    for volume in request.get("volumeConfigurations", []):
        if role := volume.get("managedEBSVolume", {}).get("roleArn"):
            yield role, INFRASTRUCTURE


def _any_task(cluster: str) -> str:
    """The ARN of a task of the cluster that does not exist yet."""
    return f"{cluster.replace(':cluster/', ':task/')}/{'0' * 32}"


def _name(arn: str) -> str:
    return arn.rpartition("/")[2]
