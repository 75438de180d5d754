"""The safeguards under faults: jobs, callers, AWS and operators do what they like, in any order.

Hypothesis drives the whole rehearsal. What is checked is what the README promises; each check is
itself tested with mutants of the function that it alone has to catch.
"""

import copy
import json
import uuid
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import wraps
from itertools import count
from typing import Any

import boto3
import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from moto.ecs.exceptions import ECSException

from conftest import NOW, replay_command
from notify.letter import read_letter
from rehearsal import load_definitions, load_event
from rehearsal.callers import SHOWN_ONLY, parameters_of
from rehearsal.callers import rule as rule_of
from rehearsal.callers import schedule as schedule_of
from rehearsal.cloudtrail import hide_environment, run_task_event
from rehearsal.ecs import family_of
from rehearsal.policies import CAPACITY
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task import (
    chain,
    decision,
    forward,
    handler,
    launch,
    progress,
    proof,
    recover,
    wait,
)
from retry_run_task.chain import (
    ATTEMPT_TAG,
    CHAIN_TAGS,
    ORIGIN_TAG,
    OUR_TAGS,
    Chain,
    origin_of,
    tag_value,
)
from retry_run_task.decision import Stop
from retry_run_task.definition import request_of
from retry_run_task.failed_call import write_time
from retry_run_task.handler import End
from retry_run_task.outcome import Outcome
from retry_run_task.proof import Proof

CALLERS = (
    "launched.fargate-capacity-rule",
    "launched.fargate-capacity-scheduler",
    "launched.fargate-capacity-sdk-client-token",
    "launched.hidden-environment-rule",
    "launched.hidden-environment-schedule",
    "launched.hidden-environment-universal-target",
    "left-alone.partial-placement",  # its count is 5; here, none of them is placed at first
)
# Every request that the function makes: its process may die before it and after it.
OPERATIONS = (
    "RunTask",
    "CreateSchedule",
    "UpdateSchedule",
    "ListEventBuses",
    "ListRuleNamesByTarget",
    "ListTargetsByRule",
    "ListSchedules",
    "GetSchedule",
)
POINTS = [f"{moment} {operation}" for operation in OPERATIONS for moment in ("before", "after")]
WRITES = POINTS[:6]
WHICH = st.integers(0, 9)
HAPPENINGS = ("deliver", "deliver", "deliver and keep", "step", "step", "step twice")
ERRORS = {
    "throttled": ECSException("ThrottlingException", "Rate exceeded"),
    "server error": ECSException("ServerException", "oops"),
    "rejected": ECSException("AccessDeniedException", "no"),
}
# Updates that take effect when the function has given up on them: before they fire, or after.
LATE_UPDATES = {
    "late update": timedelta(seconds=5),
    "update that comes too late": timedelta(minutes=20),
}
OF_UPDATES = ("before UpdateSchedule", "after UpdateSchedule", *LATE_UPDATES)
TROUBLE = (
    *POINTS[6::2],
    *WRITES * 4,
    *[*ERRORS, "late throttled", "late server error", "lost answer", "undelivered"] * 3,
    *[*LATE_UPDATES] * 6,
)
STACKS = (
    {"MaxAttempts": "2"},
    {"MaxAttempts": "3"},
    {"MaxAttempts": "2", "BackoffBaseSeconds": "600"},
    {"MaxAttempts": "3", "BackoffBaseSeconds": "600"},
    {"MaxAttempts": "3", "PullForward": "false"},
    {"MaxAttempts": "3", "MaxAgeMinutes": "2"},
    {"MaxAttempts": "3", "BackoffBaseSeconds": "1800", "BackoffCapSeconds": "3600"},
    {"MaxAttempts": "2", "RetryPartialFailures": "true"},
    {"MaxAttempts": "2", "ClusterArns": "arn:aws:ecs:eu-west-1:123456789012:cluster/none"},
    {"MaxAttempts": "2", "Callers": "SCHEDULED"},
)
MOST = 3  # the largest MaxAttempts above

# A duplicate that comes an hour after the end of its task starts it again (README): here, none is
# as late as that, with Lambda's own retries and the 55 minutes of a token together.
LATEST = timedelta(minutes=5)
TASK_TIME = timedelta(minutes=5)


EDITS = ("change", "delete", "sibling", "other's")


@dataclass
class Job:
    """One job, and what befell it."""

    parameters: dict[str, Any]
    origin: str
    event: dict[str, Any]
    caller: str
    secret: str | None = None  # what its rule or schedule holds
    delivered: bool = False
    lost: bool = False  # CloudTrail is best effort: an event of its chain never came
    refused: bool = False  # something was done to it, after which it may never start: a person can
    edited: bool = False
    replays: int = 0
    replayed_at: str = ""


# What the examples have come upon.
MET: set[str] = set()


class CloudTrailWorld(World):
    """Events wait until the machine delivers them: late, in any order, twice or never."""

    pending: list[dict[str, Any]]

    def publish(self, event: Any, latency: timedelta = timedelta()) -> None:
        del latency
        if "errorCode" not in event["detail"]:
            self.pending.append(event)


def held(function: Callable[["Faults"], None]) -> Callable[["Faults"], None]:
    """A check, which is left out where a mutant is to be caught by another one."""

    @wraps(function)
    def look(self: "Faults") -> None:
        if self.only in ("", function.__name__):
            function(self)

    return look


class Faults(RuleBasedStateMachine):
    """Everything that can go wrong around the function."""

    # The only check that is made, where a mutant is to be caught by it; and the only things that
    # happen then, beside the passing of time.
    only = ""
    deeds: tuple[str, ...] = ()
    troubles: tuple[str, ...] = TROUBLE
    callers: tuple[str, ...] = CALLERS
    edits: tuple[str, ...] = EDITS

    @initialize(
        parameters=st.sampled_from(STACKS),
        # Mostly the world in which a launch is never repeated, whatever comes twice.
        binds=st.sampled_from([True, True, True, True, False]),
        at_most=st.integers(1, 5),
        task_time=st.sampled_from([TASK_TIME, None]),
        apart=st.sampled_from([timedelta(seconds=2), timedelta(minutes=2)]),
        shows_tokens=st.sampled_from([True, True, True, False]),
        lingers=st.sampled_from([timedelta(), timedelta(minutes=5)]),
    )
    def set_up(
        self,
        parameters: dict[str, str],
        binds: bool,
        at_most: int,
        task_time: timedelta | None,
        apart: timedelta,
        shows_tokens: bool,
        lingers: timedelta,
    ) -> None:
        world = CloudTrailWorld(
            Stack(parameters), NOW, binds_failures=binds, at_most=at_most, task_time=task_time
        )
        world.pending = []
        world.shows_tokens = shows_tokens
        world.lingers = lingers
        world.duplicate_latency = apart
        self.world = world.__enter__()
        self.jobs: dict[str, Job] = {}
        self.delivered_at: dict[str, datetime] = {}
        self.names = count(1)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.settle()
            self.check_that_nothing_is_lost()
            self.check_that_a_replay_starts_what_never_ran()
        finally:
            MET.update(outcome["outcome"] for outcome in self.world.outcomes)
            MET.update(str(entry.data.get("error")) for entry in self.world.timeline)
            MET.update(["pulled forward"] if self.world.moved else [])
            MET.update(["pulled forward, in the end"] if self.world.forwarded else [])
            came_late = any("the update of" in entry.text for entry in self.world.timeline)
            MET.update(["an update that came late"] if came_late else [])
            self.world.__exit__(None, None, None)

    # What callers do.

    @rule(which=WHICH, capacity=st.booleans())
    def call(self, which: int, capacity: bool) -> None:
        caller = self.callers[which % len(self.callers)]
        family = f"job-{len(self.jobs)}"
        event = load_event(caller)
        detail = event["detail"]
        parameters = detail["requestParameters"]
        parameters["taskDefinition"] = parameters["taskDefinition"].replace(
            family_of(parameters), family
        )
        if parameters.pop("clientToken", None) and self.world.shows_tokens:
            parameters["clientToken"] = str(uuid.UUID(int=len(self.jobs), version=4))
        detail["responseElements"]["tasks"] = []
        detail["eventID"] = family
        detail["eventTime"] = write_time(self.world.now)
        job = Job(copy.deepcopy(parameters), family, event, caller)
        if "hidden" in caller:
            job.secret = f"secret-of-{family}"
            job.parameters = self.define(job, family)
            detail["requestParameters"] = hide_environment(job.parameters)
        job.origin = origin_of(family, parameters.get("clientToken"))
        self.jobs[family] = job
        if len(self.world.stacks) > 1:
            self.refuse_what_another_stack_began()
        if not capacity:
            self.world.ecs.families_without_capacity.add(family)
        self.world.publish(event)

    @precondition(lambda self: self.may("an_outage") and len(self.jobs) < 6 and self.waits_for_long)
    @rule(which=WHICH, trouble=st.sampled_from(OF_UPDATES), times=st.integers(0, 2))
    def an_outage(self, which: int, trouble: str, times: int) -> None:
        """Several jobs wait for one capacity: when it is back, one launch pulls others forward."""
        world, before = self.world, set(self.jobs)
        for n in range(3):
            self.call(which + n, capacity=False)
        for _ in range(20):
            while world.pending:
                self.take(world.pending.pop(0))
            if len(world.schedules()) > 1 or not world.is_busy:
                break
            world.step()
        if times and trouble in self.troubles:
            self.begin(trouble, times)
        world.ecs.families_without_capacity -= self.jobs.keys() - before
        for _ in range(3):
            if world.is_busy:
                world.step()

    @property
    def waits_for_long(self) -> bool:
        """What is due within two minutes is not pulled forward."""
        return int(self.world.stack.environment["BACKOFF_BASE_SECONDS"]) > 120

    def define(self, job: Job, family: str) -> dict[str, Any]:
        """The job's rule or schedule holds a secret of its own: the call that it makes."""
        definitions = with_secret(job.caller, family, str(job.secret))
        self.world.define(definitions)
        made_by = (
            rule_of(family)
            if definitions["Rules"]
            else schedule_of(family, definitions["Schedules"][0]["GroupName"])
        )
        return parameters_of(made_by, handler.run_task_shape())

    @precondition(
        lambda self: self.may("an_sdk_repeats_its_call") and self.jobs and self.world.shows_tokens
    )
    @rule(which=WHICH)
    def an_sdk_repeats_its_call(self, which: int) -> None:
        """It has lost the answer: another record of the same call, under its own token."""
        job = list(self.jobs.values())[which % len(self.jobs)]
        if "clientToken" in job.parameters and not job.refused:
            event = copy.deepcopy(job.event)
            event["detail"]["eventID"] += "-repeated"
            first = datetime.fromisoformat(event["detail"]["eventTime"])
            event["detail"]["eventTime"] = write_time(first + timedelta(seconds=3))
            self.world.publish(event)

    @precondition(lambda self: self.may("somebody_copies_tags") and self.world.calls)
    @rule(which=WHICH, shown=st.booleans())
    def somebody_copies_tags(self, which: int, shown: bool) -> None:
        """With a role of his own, in a session of the function's name."""
        world, family = self.world, f"copy-{len(self.jobs)}"
        parameters = copy.deepcopy(world.calls[which % len(world.calls)])
        parameters["taskDefinition"] = family
        parameters["clientToken"] = str(uuid.UUID(int=len(self.jobs), version=4))
        if not shown:
            del parameters["clientToken"]
        event = run_task_event(
            parameters,
            {"tasks": [], "failures": [{"reason": CAPACITY}]},
            event_id=family,
            moment=world.now,
            region=world.stack.region,
            account=world.stack.account,
            role_arn="arn:aws:iam::123456789012:role/somebody",
            session=world.stack.function_name,
        )
        self.jobs[family] = Job(parameters, family, event, "a copy", refused=True)
        world.publish(event)

    # What AWS does.

    @precondition(lambda self: self.jobs)
    @rule(
        happenings=st.lists(st.sampled_from(HAPPENINGS), min_size=3, max_size=12),
        which=WHICH,
        trouble=st.integers(0, len(TROUBLE) - 1),
        times=st.integers(0, 4),
    )
    def time_passes(self, happenings: list[str], which: int, trouble: int, times: int) -> None:
        world = self.world
        if times:
            self.begin(self.troubles[trouble % len(self.troubles)], times)
        for happening in happenings:
            if happening.startswith("deliver") and world.pending:
                event = world.pending[which % len(world.pending)]
                if happening != "deliver and keep":
                    world.pending.remove(event)
                self.take(event)
            elif world.is_busy:
                world.duplicates = happening == "step twice"
                world.step()
                world.duplicates = False

    # Most of what happens is that time passes.
    time_passes_on = time_goes_by = time_passes

    def take(self, event: dict[str, Any]) -> None:
        """Deliver it; unless it is a duplicate that comes too late.

        ECS answers to a call that is repeated as to the first one: these are records of one call.
        """
        world, parameters = self.world, event["detail"]["requestParameters"]
        attempt = str(tag_value(parameters.get("tags") or [], ATTEMPT_TAG)).partition("/")[0]
        call = f"{family_of(parameters)}/{attempt}"
        if world.now <= self.delivered_at.setdefault(call, world.now) + LATEST:
            self.job_of(event).delivered = True
            world.deliver(event)
        elif event in world.pending:
            world.pending.remove(event)

    def begin(self, trouble: str, times: int) -> None:
        """It waits for its time: a crash, for the next request of its kind."""
        ecs = self.world.ecs
        if trouble == "lost answer":
            ecs.lost_answers = times
        elif trouble in LATE_UPDATES:
            self.world.late_updates = [LATE_UPDATES[trouble]] * times
        elif trouble == "undelivered":
            self.world.undelivered = times
        elif trouble.startswith("late "):
            ecs.late_errors = [ERRORS[trouble.removeprefix("late ")]] * times
        elif trouble in ERRORS:
            ecs.errors = [ERRORS[trouble]] * times
        else:
            self.world.crashes = [trouble] * times

    @precondition(lambda self: self.may("services_are_away_for_ten_minutes"))
    @rule(operations=st.sets(st.sampled_from(OPERATIONS), min_size=1))
    def services_are_away_for_ten_minutes(self, operations: set[str]) -> None:
        self.world.away = dict.fromkeys(operations, self.world.now + timedelta(minutes=10))

    @precondition(lambda self: self.may("lose") and self.world.pending)
    @rule(which=WHICH)
    def lose(self, which: int) -> None:
        event = self.world.pending.pop(which % len(self.world.pending))
        self.job_of(event).lost = True

    @precondition(lambda self: self.jobs)
    @rule(which=WHICH)
    def capacity_comes_or_goes(self, which: int) -> None:
        self.world.ecs.families_without_capacity ^= {list(self.jobs)[which % len(self.jobs)]}

    # What people do.

    @precondition(lambda self: self.may("redeploy") and self.jobs)
    @rule(parameters=st.sampled_from(STACKS))
    def redeploy(self, parameters: dict[str, str]) -> None:
        self.world.deploy(Stack(parameters, name=self.world.stack.name))

    @precondition(lambda self: self.may("deploy_another") and len(self.world.stacks) == 1)
    @rule(parameters=st.sampled_from(STACKS))
    def deploy_another(self, parameters: dict[str, str]) -> None:
        self.world.deploy(Stack(parameters, name=f"another-{next(self.names)}"))
        self.refuse_what_another_stack_began()

    @precondition(
        lambda self: self.may("rename") and not self.world.is_busy and not self.world.queue
    )
    @rule(parameters=st.sampled_from(STACKS))
    def rename(self, parameters: dict[str, str]) -> None:
        """Another one takes its place; nothing is pending in it (README, "Deploy")."""
        del self.world.stacks[self.world.stack.name]
        self.world.deploy(Stack(parameters, name=f"renamed-{next(self.names)}"))
        self.refuse_what_another_stack_began()

    def refuse_what_another_stack_began(self) -> None:
        """What one has verified, and what shows no token, is nothing to the other (README)."""
        for job in self.jobs.values():
            job.refused |= bool(job.secret) or not self.world.shows_tokens

    @precondition(
        lambda self: self.may("edit_a_definition") and any(job.secret for job in self.jobs.values())
    )
    @rule(which=WHICH, what=WHICH)
    def edit_a_definition(self, which: int, what: int) -> None:
        """Of a rule that nothing was verified of, a change is not seen: a limit (README)."""
        deed = self.edits[what % len(self.edits)]
        begun = {family_of(call) for call in self.world.calls}
        whole = {f: j for f, j in self.jobs.items() if j.secret and not (j.refused or j.edited)}
        # Those of which an attempt was made are the more interesting.
        chosen = [family for family in whole if family in begun] or list(whole)
        if not chosen:
            return
        family = chosen[which % len(chosen)]
        job = whole[family]
        if "rule" in job.caller and deed == "change" and family not in begun:
            return
        job.refused, job.edited = deed != "other's", True
        if deed == "change" and "rule" not in job.caller:
            # It may have had the universal target before, whose calls do not name their schedule.
            for other in self.jobs.values():
                other.refused |= "universal" in other.caller
        self.world.wait(timedelta(seconds=1))
        edit(self.world, deed, with_secret(job.caller, family, "another secret"))
        # A call within the same second would be taken for an earlier one.
        self.world.wait(timedelta(seconds=1))

    @precondition(lambda self: self.may("redrive") and self.world.queue)
    @rule(fails=st.booleans())
    def redrive(self, fails: bool = False) -> None:
        """What the queue holds goes to the function; not where a duplicate of it has run since."""
        world = self.world
        world.undelivered = 0
        world.queue = [m for m in world.queue if not self.is_protected_no_more(m[1])]
        if fails and world.queue:  # for the third time
            name, message = world.queue.pop()
            world.use(name)
            world.crashes = ["before RunTask"]
            world.invoke(message, retries=())
        world.redrive()

    def is_protected_no_more(self, message: dict[str, Any]) -> bool:
        return self.world.ecs.task_time is not None and bool(self.running(name_in(message)))

    @precondition(lambda self: self.may("replay") and self.world.bus.archive)
    @rule(first=WHICH)
    def replay(self, first: int) -> None:
        """As an operator does who sees to it that what is replayed does not run (README)."""
        world = self.world
        world.wait(timedelta(seconds=1))
        letters = world.bus.archive[first % len(world.bus.archive) :]
        start = datetime.fromisoformat(min(letter["time"] for letter in letters))
        start -= timedelta(seconds=1)
        letters = [x for x in world.bus.archive if start < datetime.fromisoformat(x["time"])]
        if any(map(self.is_protected_no_more, letters)):
            return
        name = f"--replay-name replay-{world.now.timestamp()}"
        command = replay_command(world.stack, start, world.now)
        command = command.replace("--replay-name retry-run-task-$(date +%s)", name)
        for letter in letters:
            job = self.jobs[name_in(letter)]
            job.replays += 1
            job.replayed_at = write_time(world.now)
        world.replay(command)

    # What has to hold at every moment.

    @invariant()
    @held
    def no_job_runs_twice(self) -> None:
        ecs = self.world.ecs
        for family, job in self.jobs.items():
            # Where AWS does not bind the token of a failure, what comes twice, before and after
            # the return of capacity, starts the job, and the chain goes on (README).
            if ecs.binds_failures or family not in ecs.straddled:
                assert self.running(family) <= (job.parameters.get("count") or 1), family

    @invariant()
    @held
    def every_request_is_its_callers(self) -> None:
        for request in self.world.calls[self.checked_calls :]:
            job = self.jobs[family_of(request)]
            assert 1 <= request.get("count", 1) <= (job.parameters.get("count") or 1)
            assert without_ours(request) == without_ours(job.parameters)
            assert {tag["key"] for tag in request["tags"]} >= set(CHAIN_TAGS)
        self.checked_calls = len(self.world.calls)

    checked_calls = 0

    @invariant()
    @held
    def no_chain_exceeds_its_budget(self) -> None:
        for request in self.world.calls:
            tags = {tag["key"]: tag["value"] for tag in request["tags"]}
            counter, *free = tags["retry-run-task:attempt"].split(" ")
            attempt, end = map(int, counter.split("/"))
            job = self.jobs[family_of(request)]
            assert tags[ORIGIN_TAG] == job.origin
            # Only what was pulled forward costs nothing.
            own = {name for name in self.world.forwarded if f"-{job.origin}-" in name}
            forwarded = int(free[0]) if free else 0
            assert forwarded <= len(own)
            # Each replay gives it the budget once more, from where the counter stands then.
            passed = attempts_passed(family_of(request), job, self.world)
            assert attempt <= end <= MOST * (1 + job.replays) + passed + forwarded

    @invariant()
    @held
    def what_is_pulled_forward_is_made_sooner_and_keeps_the_rest(self) -> None:
        world = self.world
        assert all(after < before for before, after in world.moved), world.moved
        for schedule in world.schedules() if world.moved else ():
            target = schedule["Target"]
            assert target["DeadLetterConfig"]["Arn"].endswith("-DeadLetterQueue")
            assert target["RetryPolicy"]["MaximumRetryAttempts"] == 185
            assert schedule["ActionAfterCompletion"] == "DELETE"

    @invariant()
    @held
    def nothing_hidden_leaks(self) -> None:
        world = self.world
        secrets = [job.secret for job in self.jobs.values() if job.secret]
        if not secrets:
            return
        written = (
            world.logs.getvalue(),
            json.dumps(world.outcomes[-3:]),
            *[json.dumps(bus.archive[-3:]) for bus in world.buses.values()],
            *[text for letters in world.letters.values() for text in letters.bodies[-3:]],
            *[m.text for letters in world.letters.values() for m in letters.messages[-3:]],
            json.dumps(world.inputs[-3:]),
            json.dumps([call["tags"] for call in world.calls[-3:]]),
        )
        assert not any(secret in text for secret in secrets for text in written)

    @invariant()
    @held
    def what_passes_is_no_failed_invocation(self) -> None:
        for bus in self.world.buses.values():
            for letter in bus.archive:
                answer = letter["detail"]["responsePayload"]
                is_ours = answer.get("errorType") in ("Crash", "AccessDeniedException", None)
                assert is_ours or "CreateSchedule" in answer["errorMessage"], answer

    # What has to hold when everything has come to rest.

    def settle(self) -> None:
        """Deliver what was held back, and let time pass."""
        world = self.world
        world.crashes, world.ecs.errors, world.ecs.late_errors = [], [], []
        world.ecs.lost_answers = world.undelivered = 0
        world.late_updates = []
        for _ in range(2000):
            while world.pending:
                self.take(world.pending.pop(0))
            if world.queue:
                self.redrive()
            elif world.is_busy:
                world.step()
            elif not world.pending:
                break
        assert not world.is_busy, "a loop that does not end"
        for look in (
            self.no_job_runs_twice,
            self.every_request_is_its_callers,
            self.no_chain_exceeds_its_budget,
            self.what_is_pulled_forward_is_made_sooner_and_keeps_the_rest,
            self.nothing_hidden_leaks,
            self.what_passes_is_no_failed_invocation,
        ):
            look()

    @held
    def check_that_nothing_is_lost(self) -> None:
        for name, bus in self.world.buses.items():
            letters = self.world.letters[name]
            assert (len(letters.bodies), letters.unsent) == (len(bus.archive), [])
            reported = "".join(message.text for message in letters.messages)
            events: dict[Hashable, list[str]] = {}
            for body in letters.bodies:
                read = read_letter("", body, self.world.now)
                events.setdefault(read.identity, []).append(read.event or read.detail)
            assert all(any(event in reported for event in of_one) for of_one in events.values())
        for name in self.world.stacks:
            self.world.use(name)
            assert self.world.schedules() == []
        # Of a job that was replayed, a letter of after that.
        last: dict[str, str] = {}
        for letter in self.letters():
            last[name_in(letter)] = max(letter["time"], last.get(name_in(letter), ""))
        for family, job in self.jobs.items():
            if job.delivered and not job.lost:
                told = family in last and last[family] >= job.replayed_at
                assert told or self.is_complete(family) or self.is_left_alone(family), family

    @held
    def check_that_a_replay_starts_what_never_ran(self) -> None:
        world = self.world
        world.ecs.families_without_capacity.clear()
        world.ecs.at_most, world.ecs.task_time, world.away = 10, None, {}
        lost = set()
        for name in list(world.stacks):
            world.deploy(Stack({"MaxAttempts": "3", "Callers": "ALL"}, name=name))
            if world.bus.archive:
                lost |= set(map(name_in, world.bus.archive))
                self.replay(0)
                self.settle()
        self.check_that_nothing_is_lost()
        for family in lost:
            job = self.jobs[family]
            assert self.is_complete(family) or job.lost or job.refused, family

    # Helpers.

    def may(self, deed: str) -> bool:
        return not self.only or deed in self.deeds

    def letters(self) -> Iterator[dict[str, Any]]:
        for bus in self.world.buses.values():
            yield from bus.archive

    def running(self, family: str) -> int:
        """How many tasks of a job run."""
        launches = self.world.ecs.launches
        return sum(len(arns) for request, arns in launches if family_of(request) == family)

    def is_complete(self, family: str) -> bool:
        return self.running(family) >= (self.jobs[family].parameters.get("count") or 1)

    def is_left_alone(self, family: str) -> bool:
        """Visibly, and before any attempt."""
        ends = [o for o in self.world.outcomes if o["taskDefinition"].rpartition("/")[2] == family]
        ends = ends or [o for o in self.world.outcomes if family in str(o["taskDefinition"])]
        return any(o["outcome"] == "LEFT_ALONE" and o["attempt"][0] == "0" for o in ends)

    def job_of(self, event: dict[str, Any]) -> Job:
        return self.jobs[family_of(event["detail"]["requestParameters"])]


def with_secret(caller: str, family: str, secret: str) -> dict[str, Any]:
    """The rule or schedule of an event file, for this job: its name, and a secret of its own."""
    definitions = load_definitions(caller)
    (made_by,) = definitions["Rules"] or definitions["Schedules"]
    made_by["Name"] = family
    target = made_by["Targets"][0] if definitions["Rules"] else made_by["Target"]
    given = json.loads(target["Input"])
    if "EcsParameters" in target:
        target["EcsParameters"]["TaskDefinitionArn"] = family
        given["containerOverrides"][0]["environment"] = [{"name": "SECRET", "value": secret}]
    else:
        given["TaskDefinition"] = family
        (container,) = given["Overrides"]["ContainerOverrides"]
        container["Environment"] = [{"Name": "SECRET", "Value": secret}]
    target["Input"] = json.dumps(given)
    return definitions


def edit(world: World, deed: str, definitions: dict[str, Any]) -> None:
    """What people and schedules do to a definition after its call."""
    events, scheduler = boto3.client("events"), boto3.client("scheduler")
    is_rule = bool(definitions["Rules"])
    (made_by,) = definitions["Rules"] or definitions["Schedules"]
    target = made_by["Targets"][0] if is_rule else made_by["Target"]
    if deed in ("sibling", "other's"):  # of the same name: on another bus, or in another group
        made_by["EventBusName" if is_rule else "GroupName"] = "siblings"
        if deed == "other's":
            target["RoleArn"] = "arn:aws:iam::123456789012:role/of-another-job"
        world.define(definitions)
    elif is_rule and deed == "change":
        events.put_targets(Rule=made_by["Name"], Targets=made_by["Targets"])
    elif is_rule:
        events.remove_targets(Rule=made_by["Name"], Ids=[target["Id"]])
        events.delete_rule(Name=made_by["Name"])
    elif deed == "change":
        given = {k: v for k, v in made_by.items() if k not in SHOWN_ONLY}
        scheduler.update_schedule(**given)
    else:
        scheduler.delete_schedule(Name=made_by["Name"], GroupName=made_by["GroupName"])


def name_in(message: dict[str, Any]) -> str:
    """The family of the failed call inside of a letter or a queue's message: its job's name."""
    while True:
        if "FunctionName" in message:
            message = json.loads(message["Payload"])
        elif "requestPayload" in message["detail"]:
            message = message["detail"]["requestPayload"]
        else:
            return family_of(message["detail"]["requestParameters"])


def attempts_passed(family: str, job: Job, world: World) -> int:
    """How many spent tokens replays of old letters have passed: no more than requests were made."""
    if not job.replays:
        return 0
    return sum(family_of(call) == family for call in world.calls)


def without_ours(parameters: dict[str, Any]) -> dict[str, Any]:
    """A request without what a retry changes: token, reference, count, and AWS's tags and ours."""
    changed = ("clientToken", "referenceId", "count", "tags")
    kept = {k: v for k, v in parameters.items() if k not in changed and v is not None}
    tags = [t for t in parameters.get("tags") or [] if t["key"] not in OUR_TAGS]
    return kept | {"tags": [t for t in tags if not t["key"].startswith("aws:")]}


# In the suite the same examples in each run; `HYPOTHESIS_PROFILE=long` plays other ones, for hours.
IS_LONG = hypothesis_settings.get_current_profile_name() == "long"
PROFILE = (
    hypothesis_settings()
    if IS_LONG
    else hypothesis_settings(max_examples=70, stateful_step_count=30, database=None)
)
SEED = "_hypothesis_internal_use_seed"  # what hypothesis.seed sets on a test


def test_the_safeguards_hold_under_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    if not IS_LONG:
        monkeypatch.setattr(Faults, SEED, 8, raising=False)
    MET.clear()
    run_state_machine_as_test(Faults, settings=PROFILE)
    # It has been through all of it.
    for operation in OPERATIONS[:3]:
        assert {f"Crash: before {operation}", f"Crash: after {operation}"} & MET
    assert any(error.startswith("AccessDenied") for error in MET)
    held_by_small_tests = {Outcome.OPTED_OUT, Outcome.NOT_RETRYABLE}
    assert set(Outcome) - held_by_small_tests <= MET
    assert {"pulled forward", "pulled forward, in the end", "an update that came late"} <= MET


# Mutants of the function, each caught by one of the checks: tests of the test.

REAL_END, REAL_PROVE, REAL_DECIDE = decision._end, proof.prove, decision.decide
REAL_TOKEN, REAL_CHAIN = chain.client_token, decision._chain_of
REAL_RETRY, REAL_SCHEDULE = handler.retry, wait.schedule
NUMBERS = count()


def no_token_twice(chain: Chain, *_: Any, **__: Any) -> str:
    return f"{chain.origin}-{next(NUMBERS)}"


def passes_over_unspent_tokens(chain: Chain, last: object, **_: Any) -> str:
    return REAL_TOKEN(chain, last, unspent=False)


def names_each_chain_for_its_event(event_id: str, _: object) -> str:
    return event_id


def believes_copied_tags(call: Any, _: Any, tags: Any, first: Chain) -> Chain:
    return chain.chain_in(tags, None) or REAL_CHAIN(call, _, tags, first)


def schedules_replays_only(scheduler: Any, wait: Any, settings: Any) -> tuple[Outcome, str]:
    if "replay-name" in json.loads(wait.payload):
        return REAL_SCHEDULE(scheduler, wait, settings)
    return Outcome.SCHEDULED, ""


def swallows_errors(call: Any, *rest: Any) -> Any:
    try:
        return REAL_RETRY(call, *rest)
    except Exception:  # noqa: BLE001
        return End(Chain(call.event_id, call.event_time, 0, 0), Outcome.OPTED_OUT)


def looks_at_what_is_covered_first(call: Any, *rest: Any) -> Any:
    settings = rest[2]
    if settings.covers(call.parameters.get("cluster"), call.parameters["taskDefinition"]):
        return REAL_DECIDE(call, *rest)
    return Stop(Chain(call.event_id, call.event_time, None, 0), Outcome.LEFT_ALONE, "")


def drops_overrides(parameters: Any, *_: Any, **__: Any) -> dict[str, Any]:
    kept = ("cluster", "taskDefinition", "startedBy", "count", "tags")
    return {name: parameters[name] for name in kept if name in parameters}


def takes_what_a_definition_holds_now(definition: Any, *_: Any) -> Any:
    return request_of(definition, handler.run_task_shape())


def gives_two_attempts_more(*arguments: Any) -> Any:
    call, caller, progress, chain, *rest = arguments
    return REAL_END(call, caller, progress, replace(chain, end=chain.end + 2), *rest)


def gives_up_on_replays(call: Any, progress: Any, *rest: Any) -> Any:
    if progress.replay_name is None:
        return REAL_RETRY(call, progress, *rest)
    return End(Chain(call.event_id, call.event_time, 0, 0), Outcome.EXHAUSTED)


def tells_values(*arguments: Any) -> Proof:
    proof = REAL_PROVE(*arguments)
    return replace(proof, note=json.dumps(proof.overrides))


def nothing_passes(_: Exception) -> None:
    return None


def pulls_to_a_later_time(_: str, planned: datetime, *__: Any) -> datetime:
    return planned + timedelta(minutes=10)


def moves_the_end_by_two(chain: Chain, planned: datetime) -> Chain:
    further = REAL_PULLED(chain, planned)
    return replace(further, end=further.end + 1)


def changes_the_request(payload: Any, planned: datetime, due: datetime) -> str:
    payload["detail"]["requestParameters"]["group"] = "pulled-forward"
    return REAL_MOVED(payload, planned, due)


REAL_MOVED, REAL_PULLED = progress.moved_forward, Chain.pulled_forward


NO_SECRET = CALLERS[:2]
SDK = ("launched.fargate-capacity-sdk-client-token",)
SECRET = CALLERS[3:6]


@dataclass(frozen=True)
class Mutant:
    """In place of a function of this module: what `check` has to see, when these things happen."""

    module: Any
    name: str
    function: Any
    check: str
    deeds: tuple[str, ...] = ()
    troubles: tuple[str, ...] = TROUBLE
    callers: tuple[str, ...] = NO_SECRET
    edits: tuple[str, ...] = EDITS
    seed: int = 0  # one of those that come to it soon


SOONER = "what_is_pulled_forward_is_made_sooner_and_keeps_the_rest"
OUTAGE = ("an_outage",)
ERRORS_THAT_PASS = ("throttled", "late server error", "lost answer")
LOST, REPLAYED = "check_that_nothing_is_lost", "check_that_a_replay_starts_what_never_ran"
MUTANTS = [
    Mutant(decision, "client_token", no_token_twice, "no_job_runs_twice"),
    Mutant(
        decision,
        "client_token",
        passes_over_unspent_tokens,
        "no_job_runs_twice",
        troubles=ERRORS_THAT_PASS,
        seed=1,
    ),
    Mutant(
        decision,
        "origin_of",
        names_each_chain_for_its_event,
        "no_job_runs_twice",
        ("an_sdk_repeats_its_call",),
        callers=SDK,
        seed=3,
    ),
    Mutant(decision, "_chain_of", believes_copied_tags, LOST, ("somebody_copies_tags",), seed=4),
    Mutant(handler, "schedule", schedules_replays_only, LOST),
    Mutant(handler, "retry", swallows_errors, LOST, seed=1),
    Mutant(handler, "decide", looks_at_what_is_covered_first, LOST, ("redeploy",)),
    Mutant(handler, "retry", gives_up_on_replays, REPLAYED),
    Mutant(decision, "exact_request", drops_overrides, "every_request_is_its_callers"),
    Mutant(
        proof,
        "_judge_again",
        takes_what_a_definition_holds_now,
        "every_request_is_its_callers",
        ("edit_a_definition",),
        callers=SECRET[:2],
        edits=("change",),
    ),
    Mutant(decision, "_end", gives_two_attempts_more, "no_chain_exceeds_its_budget"),
    Mutant(recover, "prove", tells_values, "nothing_hidden_leaks", callers=SECRET),
    Mutant(
        launch,
        "transient",
        nothing_passes,
        "what_passes_is_no_failed_invocation",
        ("services_are_away_for_ten_minutes",),
    ),
    # Of pulling forward.
    Mutant(forward, "sooner", pulls_to_a_later_time, SOONER, OUTAGE),
    Mutant(forward, "KEPT", forward.KEPT[1:], SOONER, OUTAGE, seed=2),
    Mutant(
        Chain,
        "pulled_forward",
        moves_the_end_by_two,
        "no_chain_exceeds_its_budget",
        OUTAGE,
        seed=2,
    ),
    Mutant(
        forward,
        "moved_forward",
        changes_the_request,
        "every_request_is_its_callers",
        OUTAGE,
        seed=2,
    ),
]


def name_of(mutant: Mutant) -> str:
    return getattr(mutant.function, "__name__", "resets_what_it_does_not_keep")


@pytest.mark.parametrize("mutant", MUTANTS, ids=[name_of(m) for m in MUTANTS])
def test_each_check_catches_a_mutant(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant.module, mutant.name, mutant.function)
    # No other check can take its place.
    monkeypatch.setattr(Faults, "only", mutant.check)
    monkeypatch.setattr(Faults, SEED, mutant.seed, raising=False)
    for focus in ("deeds", "troubles", "callers", "edits"):
        monkeypatch.setattr(Faults, focus, getattr(mutant, focus))
    profile = hypothesis_settings(
        PROFILE,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        max_examples=100,
        stateful_step_count=20,
    )
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(Faults, settings=profile)
    assert mutant.check in {entry.name for entry in caught.traceback}
