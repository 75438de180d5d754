"""Runs: what callers asked for once, and what ECS placed of it, as CloudTrail's records show it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Any, cast

import botocore.session
from botocore.model import StructureShape

from rehearsal.isolation import isolated
from rehearsal.template import Stack, stack_of
from retry_run_task.caller import caller_of, job_of
from retry_run_task.chain import chain_in, origin_of
from retry_run_task.failed_call import FailedCall, read_failed_call
from retry_run_task.request import NotExact, tags_in
from retry_run_task.settings import Settings

# Whoever makes a stack's attempts: CloudFormation names the role and the function after the stack
# and what the template calls them (where that is too long, it cuts the stack's part: a guess);
# Lambda names the role's session after the function.
STACK = re.compile(
    r".*:assumed-role/([^/]*-RetryRunTaskRole(?:-[^/]*)?)/([^/]*-RetryRunTask(?:-[^/]*)?)"
)

# A call that ECS rejected may show no parameters, and so no job.
UNKNOWN_JOB = "unknown"


@dataclass(frozen=True, slots=True)
class Job:
    """Whose runs are counted together: `name` is the rule's or schedule's, or the group's.

    `caller` is the kind of the caller.
    """

    account: str
    region: str
    name: str
    caller: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that ECS did not place whole. `event` is JSON; attempt 0 is the caller's own call."""

    attempt: int
    time: datetime
    event_id: str
    event: str
    reasons: tuple[str, ...]


@dataclass(slots=True)
class Run:
    """What a caller asked for once: its own call, its SDK's repetitions, and a stack's attempts.

    `began` is attempt, time and eventID of the earliest of them, whose job it is. `tasks` are the
    ARNs of all that ECS placed. An attempt asks for what is missing: the run `is_whole` as soon as
    ECS has placed all of one call.
    """

    job: Job
    began: tuple[int, datetime, str]
    records: int = 0
    rejected: int = 0
    is_answered: bool = False
    is_whole: bool = False
    failures: list[Failure] = field(default_factory=list)
    tasks: set[str] = field(default_factory=set)

    @property
    def first(self) -> Failure:
        """The first of its failures."""
        return min(self.failures, key=attrgetter("attempt", "time", "event"))

    @property
    def last(self) -> Failure:
        """The last of its failures, of which the stack decides what becomes of the run."""
        return max(self.failures, key=attrgetter("attempt", "time", "event"))

    @property
    def is_lost(self) -> bool:
        """Did fewer tasks start than were wanted?"""
        return bool(self.failures) and not self.is_whole


@dataclass(slots=True)
class History:
    """What the records say of one job: how many there are, and those of its runs that failed."""

    job: Job
    records: int = 0
    rejected: int = 0
    runs: list[Run] = field(default_factory=list)

    @property
    def lost(self) -> list[Run]:
        """The runs that did not start, or not with all their tasks."""
        return [run for run in self.runs if run.is_lost]


class Runs:
    """All records so far, each once, in whatever order they come."""

    def __init__(self) -> None:
        self.records = 0
        self.first: datetime | None = None
        self.last: datetime | None = None
        # By eventID: records, and calls of which an addendum was seen (see failed_call.py).
        self._seen: set[str] = set()
        self._addenda: set[str] = set()
        self._others: dict[Job, History] = {}
        self._runs: dict[tuple[str, str], Run] = {}

    @property
    def unanswered(self) -> int:
        """Of how many runs no record shows the answer."""
        return sum(not run.is_answered for run in self._runs.values())

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in the event of a RunTask call, whatever came of it.

        Raises BadInput, NotAFailedCall and RecursionError for what cannot be read.
        """
        call, detail = call_of(event), event["detail"]
        record_id = str(detail.get("eventID") or call.event_id)
        if record_id in self._seen:
            return
        _, settings = stack_in(event["account"], event["region"])
        attempt, origin = attempt_of(call)
        name, kind = job_of(call) or UNKNOWN_JOB, caller_of(call, settings).kind
        job = Job(settings.account, settings.region, name, kind)
        is_rejected = detail.get("errorCode") is not None
        is_answered = is_rejected or _is_answer(detail.get("responseElements"))
        failures = []
        if is_answered and not is_rejected and call.missing > 0:
            text = json.dumps(event, separators=(",", ":"))
            failures = [Failure(attempt, call.event_time, call.event_id, text, call.reasons)]

        is_addendum = record_id != call.event_id
        is_first = call.event_id not in self._seen and call.event_id not in self._addenda
        self._seen.add(record_id)
        if is_addendum:
            self._addenda.add(call.event_id)
        self.records += is_first
        self.first = min(self.first or call.event_time, call.event_time)
        self.last = max(self.last or call.event_time, call.event_time)
        if is_answered and not (failures or attempt or is_addendum) and origin == call.event_id:
            # Nothing else is known to be of the same run.
            history = self._others.setdefault(job, History(job))
            history.records += is_first
            history.rejected += is_first and is_rejected
            return
        cluster = settings.arn("cluster", str(call.parameters.get("cluster") or "default"))
        began = (attempt, call.event_time, record_id)
        run = self._runs.setdefault((origin, cluster), Run(job, began))
        if began < run.began:
            run.job, run.began = job, began
        run.records += is_first
        run.rejected += is_first and is_rejected
        run.is_answered |= is_answered
        run.failures += failures
        if is_answered and not is_rejected:
            run.is_whole |= not failures
            run.tasks.update(call.tasks)

    def jobs(self) -> list[History]:
        """Each job's history, those with the most lost runs first."""
        found = {job: replace(history, runs=[]) for job, history in self._others.items()}
        for run in self._runs.values():
            history = found.setdefault(run.job, History(run.job))
            history.records += run.records
            history.rejected += run.rejected
            if run.failures:
                history.runs.append(run)
        for history in found.values():
            history.runs.sort(key=lambda run: (run.first.time, run.first.event_id))
        return sorted(
            found.values(), key=lambda each: (-len(each.lost), -each.records, *_names(each.job))
        )


def call_of(event: Mapping[str, Any]) -> FailedCall:
    """The call of any RunTask event, as if it had failed: who called, and for what.

    Raises NotAFailedCall for what cannot be read.
    """
    detail = event["detail"]
    answer = detail.get("responseElements")
    answer = answer if isinstance(answer, dict) else {}
    shown = {
        "tasks": answer.get("tasks"),
        "failures": answer.get("failures") or [{}],
    }
    changed = {
        "errorCode": None,
        "requestParameters": detail.get("requestParameters") or {},
        "responseElements": shown,
    }
    return read_failed_call(
        {**event, "detail": detail | changed}, event["account"], event["region"]
    )


def attempt_of(call: FailedCall) -> tuple[int, str]:
    """Which attempt of a stack it is, and of what origin; 0 is the caller's own call.

    Tags of ours that another caller sends are anybody's word.
    """
    if STACK.fullmatch(call.caller_arn):
        try:
            tags = tags_in(call.parameters, run_task_shape())
            chain = chain_in(tags, call.parameters.get("clientToken"))
        except NotExact:
            chain = None
        if chain is not None:
            return chain.made, chain.origin
    return 0, origin_of(call.event_id, call.parameters.get("clientToken"))


@cache
def stack_in(account: str, region: str) -> tuple[Stack, Settings]:
    """A stack with the template's defaults, and its function's settings; raises BadInput.

    Resolving the template takes longer than all else that is done about a record.
    """
    stack = stack_of({"account": account, "region": region})
    return stack, Settings.read(stack.environment, stack.function_arn)


@cache
def run_task_shape() -> StructureShape:
    """RunTask's input in botocore's model."""
    with isolated():
        session = botocore.session.get_session()
        model = session.get_service_model("ecs").operation_model("RunTask")
    return cast("StructureShape", model.input_shape)


def _is_answer(answer: object) -> bool:
    """Is it what RunTask answers? CloudTrail omits one above 100 KB."""
    return isinstance(answer, dict) and any(
        isinstance(answer.get(name), list) for name in ("tasks", "failures")
    )


def _names(job: Job) -> tuple[str, ...]:
    return job.name, job.caller, job.account, job.region
