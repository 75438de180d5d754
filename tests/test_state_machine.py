"""The safeguards under faults: jobs, callers, AWS and operators do what they like, in any order.

Hypothesis drives the whole rehearsal. What is checked is what the README promises; each check is
itself tested with a mutant of the function that it has to catch.
"""

import copy
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any

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

from conftest import NOW
from rehearsal import load_definitions, load_event
from rehearsal.callers import parameters_of
from rehearsal.callers import rule as rule_of
from rehearsal.callers import schedule as schedule_of
from rehearsal.cloudtrail import hide_environment
from rehearsal.ecs import family_of
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task import chain, decision, handler, proof, recover, wait
from retry_run_task.chain import CHAIN_TAGS, ORIGIN_TAG, OUR_TAGS, Chain
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
    "ListEventBuses",
    "ListRuleNamesByTarget",
    "ListTargetsByRule",
    "ListSchedules",
    "GetSchedule",
)
POINTS = [f"{moment} {operation}" for operation in OPERATIONS for moment in ("before", "after")]
WRITES = POINTS[:4]
WHICH = st.integers(0, 9)
HAPPENINGS = ("deliver", "deliver", "deliver and keep", "step", "step", "step twice")
ERRORS = {
    "throttled": ECSException("ThrottlingException", "Rate exceeded"),
    "server error": ECSException("ServerException", "oops"),
    "rejected": ECSException("AccessDeniedException", "no"),
}
TROUBLE = (
    *POINTS,
    *WRITES * 2,
    *[*ERRORS, "late throttled", "late server error", "lost answer"] * 3,
)
STACKS = (
    {"MaxAttempts": "2"},
    {"MaxAttempts": "3"},
    {"MaxAttempts": "3", "MaxAgeMinutes": "2"},
    {"MaxAttempts": "2", "RetryPartialFailures": "true"},
)
MOST = 3  # the largest MaxAttempts above


@dataclass
class Job:
    """One job, and what befell it."""

    parameters: dict[str, Any]
    origin: str
    secret: str | None = None
    delivered: bool = False
    lost: bool = False  # CloudTrail is best effort: an event of its chain never came
    twice: bool = False  # something of it was processed more than once
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


class Faults(RuleBasedStateMachine):
    """Everything that can go wrong around the function."""

    @initialize(
        parameters=st.sampled_from(STACKS),
        # Mostly the world in which a launch is never repeated, whatever comes twice.
        binds=st.sampled_from([True, True, True, True, False]),
        at_most=st.integers(1, 5),
    )
    def set_up(self, parameters: dict[str, str], binds: bool, at_most: int) -> None:
        world = CloudTrailWorld(Stack(parameters), NOW, binds_failures=binds, at_most=at_most)
        world.pending = []
        self.world = world.__enter__()
        self.jobs: dict[str, Job] = {}

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
            self.world.__exit__(None, None, None)

    # What callers do.

    @rule(caller=st.sampled_from(CALLERS), capacity=st.booleans())
    def call(self, caller: str, capacity: bool) -> None:
        family = f"job-{len(self.jobs)}"
        event = load_event(caller)
        parameters = event["detail"]["requestParameters"]
        parameters["taskDefinition"] = parameters["taskDefinition"].replace(
            family_of(parameters), family
        )
        event["detail"]["responseElements"]["tasks"] = []
        event["detail"]["eventID"] = family
        job = Job(copy.deepcopy(parameters), family)
        if "hidden" in caller:
            job.secret = f"secret-of-{family}"
            job.parameters = self.define(caller, family, job.secret)
            event["detail"]["requestParameters"] = hide_environment(job.parameters)
        self.jobs[family] = job
        if not capacity:
            self.world.ecs.families_without_capacity.add(family)
        self.world.pending.append(event)

    def define(self, caller: str, family: str, secret: str) -> dict[str, Any]:
        """The job's rule or schedule holds a secret of its own: the call that it makes."""
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
        self.world.define(definitions)
        if definitions["Rules"]:
            return parameters_of(rule_of(family), handler.run_task_shape())
        return parameters_of(schedule_of(family, made_by["GroupName"]), handler.run_task_shape())

    # What AWS does.

    @precondition(lambda self: self.jobs)
    @rule(
        happenings=st.lists(st.sampled_from(HAPPENINGS), min_size=3, max_size=12),
        which=WHICH,
        trouble=st.sampled_from(TROUBLE),
        count=st.integers(0, 4),
    )
    def time_passes(self, happenings: list[str], which: int, trouble: str, count: int) -> None:
        world = self.world
        if count:
            self.begin(trouble, count)
        for happening in happenings:
            if happening.startswith("deliver") and world.pending:
                event = world.pending[which % len(world.pending)]
                if happening == "deliver and keep":
                    self.everything_twice()
                else:
                    world.pending.remove(event)
                self.take(event)
            elif world.is_busy:
                world.duplicates = happening == "step twice"
                if world.duplicates:
                    self.everything_twice()
                world.step()
                world.duplicates = False

    def take(self, event: dict[str, Any]) -> None:
        self.job_of(event).delivered = True
        self.world.deliver(event)

    def begin(self, trouble: str, count: int) -> None:
        """It waits for its time: a crash, for the next request of its kind."""
        ecs = self.world.ecs
        self.everything_twice()
        if trouble == "lost answer":
            ecs.lost_answers = count
        elif trouble.startswith("late "):
            ecs.late_errors = [ERRORS[trouble.removeprefix("late ")]] * count
        elif trouble in ERRORS:
            ecs.errors = [ERRORS[trouble]] * count
        else:
            self.world.crashes = [trouble] * count

    def everything_twice(self) -> None:
        for job in self.jobs.values():
            job.twice = True

    @precondition(lambda self: self.world.pending)
    @rule(which=st.integers(0, 9))
    def lose(self, which: int) -> None:
        event = self.world.pending.pop(which % len(self.world.pending))
        self.job_of(event).lost = True

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 9))
    def capacity_comes_or_goes(self, which: int) -> None:
        self.world.ecs.families_without_capacity ^= {list(self.jobs)[which % len(self.jobs)]}

    # What people do.

    @precondition(lambda self: self.jobs)
    @rule(parameters=st.sampled_from(STACKS))
    def redeploy(self, parameters: dict[str, str]) -> None:
        self.world.deploy(Stack(parameters))

    @precondition(lambda self: self.world.bus.archive)
    @rule(first=st.integers(0, 9))
    def replay(self, first: int) -> None:
        world = self.world
        world.wait(timedelta(seconds=1))
        letters = world.bus.archive[first % len(world.bus.archive) :]
        start = min(letter["time"] for letter in letters)
        command = world.stack.outputs["StartReplayCommand"]["Value"]
        end = "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
        name = f"--replay-name replay-{world.now.timestamp()}"
        command = command.replace("START", start).replace("END", end)
        command = command.replace("--replay-name retry-run-task-$(date +%s)", name)
        for letter in world.bus.archive:
            if letter["time"] >= start:
                job = self.jobs[origin_of(letter)]
                job.replays += 1
                job.replayed_at = write_time(world.now)
                job.twice = True
        world.replay(command)

    # What has to hold at every moment.

    @invariant()
    def no_job_runs_twice(self) -> None:
        for family, job in self.jobs.items():
            # Where AWS does not bind the token of a failure, a twin may start what the chain then
            # starts again (README, "What it can not promise").
            if self.world.ecs.binds_failures or not job.twice:
                assert self.running(family) <= (job.parameters.get("count") or 1), family

    @invariant()
    def every_request_is_its_callers(self) -> None:
        for request in self.world.calls[self.checked_calls :]:
            job = self.jobs[family_of(request)]
            assert 1 <= request.get("count", 1) <= (job.parameters.get("count") or 1)
            assert without_ours(request) == without_ours(job.parameters)
            assert {tag["key"] for tag in request["tags"]} >= set(CHAIN_TAGS)
        self.checked_calls = len(self.world.calls)

    checked_calls = 0

    @invariant()
    def no_chain_exceeds_its_budget(self) -> None:
        for request in self.world.calls:
            tags = {tag["key"]: tag["value"] for tag in request["tags"]}
            attempt, end = map(int, tags["retry-run-task:attempt"].split("/"))
            job = self.jobs[family_of(request)]
            assert tags[ORIGIN_TAG] == job.origin
            # Each replay gives it the budget once more, from where the counter stands then.
            assert attempt <= end <= MOST * (1 + job.replays) + attempts_passed(job, self.world)

    @invariant()
    def nothing_hidden_leaks(self) -> None:
        world = self.world
        secrets = [job.secret for job in self.jobs.values() if job.secret]
        if not secrets:
            return
        written = (
            world.logs.getvalue(),
            json.dumps(world.outcomes[-3:]),
            json.dumps(world.bus.archive[-3:]),
            json.dumps(world.bus.messages[-3:]),
            json.dumps(world.inputs[-3:]),
            json.dumps([call["tags"] for call in world.calls[-3:]]),
        )
        assert not any(secret in text for secret in secrets for text in written)

    # What has to hold when everything has come to rest.

    def settle(self) -> None:
        """Deliver what was held back, and let time pass."""
        world = self.world
        world.crashes, world.ecs.errors, world.ecs.late_errors = [], [], []
        world.ecs.lost_answers = 0
        for _ in range(1000):
            while world.pending:
                self.take(world.pending.pop(0))
            if not world.is_busy:
                break
            world.step()
        assert not world.is_busy, "a loop that does not end"
        for check in (
            self.no_job_runs_twice,
            self.every_request_is_its_callers,
            self.no_chain_exceeds_its_budget,
            self.nothing_hidden_leaks,
        ):
            check()

    def check_that_nothing_is_lost(self) -> None:
        assert len(self.world.bus.messages) == len(self.world.bus.archive)
        assert self.world.schedules() == []
        # Of a job that was replayed, a letter of after that.
        last = {origin_of(letter): letter["time"] for letter in self.world.bus.archive}
        for family, job in self.jobs.items():
            if job.delivered and not job.lost:
                told = family in last and last[family] >= job.replayed_at
                assert told or self.is_complete(family), family

    def check_that_a_replay_starts_what_never_ran(self) -> None:
        if not self.world.bus.archive:
            return
        lost = {origin_of(letter) for letter in self.world.bus.archive}
        self.world.ecs.families_without_capacity.clear()
        self.world.ecs.at_most = 10
        self.replay(0)
        self.settle()
        for family in lost:
            assert self.is_complete(family) or self.jobs[family].lost, family

    # Helpers.

    def running(self, family: str) -> int:
        """How many tasks of a job run."""
        launches = self.world.ecs.launches
        return sum(len(arns) for request, arns in launches if family_of(request) == family)

    def is_complete(self, family: str) -> bool:
        return self.running(family) >= (self.jobs[family].parameters.get("count") or 1)

    def job_of(self, event: dict[str, Any]) -> Job:
        return self.jobs[family_of(event["detail"]["requestParameters"])]


def attempts_passed(job: Job, world: World) -> int:
    """How many spent tokens replays of old letters have passed: no more than requests were made."""
    if not job.replays:
        return 0
    return sum(family_of(call) == job.origin for call in world.calls)


def without_ours(parameters: dict[str, Any]) -> dict[str, Any]:
    """A request without what a retry changes: token, reference, count, and AWS's tags and ours."""
    changed = ("clientToken", "referenceId", "count", "tags")
    kept = {k: v for k, v in parameters.items() if k not in changed and v is not None}
    tags = [t for t in parameters.get("tags") or [] if t["key"] not in OUR_TAGS]
    return kept | {"tags": [t for t in tags if not t["key"].startswith("aws:")]}


def origin_of(letter: dict[str, Any]) -> str:
    """The family of the failed call inside of a letter, which is the name of its job."""
    while "requestPayload" in letter["detail"]:
        letter = letter["detail"]["requestPayload"]
    return family_of(letter["detail"]["requestParameters"])


PROFILE = hypothesis_settings(max_examples=80, stateful_step_count=25)


def test_the_safeguards_hold_under_faults() -> None:
    MET.clear()
    run_state_machine_as_test(Faults, settings=PROFILE)
    # It has been through all of it.
    assert {f"Crash: {point}" for point in WRITES} <= MET
    assert any(error.startswith("AccessDenied") for error in MET)
    held_by_small_tests = {
        Outcome.OPTED_OUT,
        Outcome.LEFT_ALONE,
        Outcome.NOT_RETRYABLE,
        Outcome.NOT_REPLAYABLE,
    }
    assert set(Outcome) - held_by_small_tests <= MET


# Mutants of the function, each caught by one of the checks: tests of the test.

REAL_END, REAL_PROVE = decision._end, proof.prove
REAL_TOKEN = chain.client_token
REAL_RETRY, REAL_SCHEDULE = handler.retry, wait.schedule
NUMBERS = count()


def no_token_twice(chain: Chain, *_: Any, **__: Any) -> str:
    return f"{chain.origin}-{next(NUMBERS)}"


def passes_over_unspent_tokens(chain: Chain, last: object, **_: Any) -> str:
    return REAL_TOKEN(chain, last, unspent=False)


def schedules_replays_only(scheduler: Any, wait: Any, settings: Any) -> tuple[Outcome, str]:
    if "replay-name" in json.loads(wait.payload):
        return REAL_SCHEDULE(scheduler, wait, settings)
    return Outcome.SCHEDULED, ""


def swallows_errors(call: Any, *rest: Any) -> Any:
    try:
        return REAL_RETRY(call, *rest)
    except Exception:  # noqa: BLE001
        return End(Chain(call.event_id, call.event_time, 0, 0), Outcome.OPTED_OUT)


def drops_overrides(parameters: Any, *_: Any, **__: Any) -> dict[str, Any]:
    kept = ("cluster", "taskDefinition", "startedBy", "count", "tags")
    return {name: parameters[name] for name in kept if name in parameters}


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


MUTANTS = [
    (decision, "client_token", no_token_twice, "no_job_runs_twice"),
    (decision, "client_token", passes_over_unspent_tokens, "no_job_runs_twice"),
    (handler, "schedule", schedules_replays_only, "check_that_nothing_is_lost"),
    (handler, "retry", swallows_errors, "check_that_nothing_is_lost"),
    (handler, "retry", gives_up_on_replays, "check_that_a_replay_starts_what_never_ran"),
    (decision, "exact_request", drops_overrides, "every_request_is_its_callers"),
    (decision, "_end", gives_two_attempts_more, "no_chain_exceeds_its_budget"),
    (recover, "prove", tells_values, "nothing_hidden_leaks"),
]


@pytest.mark.parametrize(
    ("module", "name", "mutant", "check"), MUTANTS, ids=[m.__name__ for _, _, m, _ in MUTANTS]
)
def test_each_check_catches_a_mutant(
    module: Any, name: str, mutant: Any, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, mutant)
    profile = hypothesis_settings(PROFILE, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(Faults, settings=profile)
    assert check in {entry.name for entry in caught.traceback}
