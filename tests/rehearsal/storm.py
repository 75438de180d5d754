"""Many jobs at once: N calls fail in one minute, capacity is missing, and ECS has its rates.

The project's own policy is its real decision code, behind the template's rule, in an account with
the rules and schedules that hold what a call hides. ECS, Scheduler and CloudTrail are modelled in
memory with the same latencies as in the rehearsal of one chain (world.py), which drives the whole
handler; test_storm.py holds the two against each other.
"""

import heapq
import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, cast

from botocore.exceptions import ClientError

from rehearsal.bus import OutcomeBus, result_of
from rehearsal.lost_jobs import LostJobs, Message
from rehearsal.pattern import matches
from rehearsal.policies import CAPACITY, LEFT_ALONE, OURS, OWN, PUBLISHED, SEED_IDEA
from rehearsal.quotas import Bucket, Scheduler
from rehearsal.records import moment_of
from rehearsal.template import Stack
from rehearsal.world import (
    CLOUDTRAIL_LATENCY,
    DUPLICATE_LATENCY,
    LAMBDA_RETRIES,
    SCHEDULER_LATENCY,
    World,
    asked_and_placed,
    object_in,
    objects_in,
)
from retry_run_task import handler as function
from retry_run_task.backoff import spread
from retry_run_task.caller import Caller, caller_of
from retry_run_task.chain import ORIGIN_TAG, OUR_TAGS, Chain, pool_of
from retry_run_task.decision import Launch, Stop, Wait, decide, give_up
from retry_run_task.failed_call import (
    FailedCall,
    NotAFailedCall,
    read_failed_call,
    write_failed_call,
)
from retry_run_task.follow import Token, follow
from retry_run_task.forward import pull_forward
from retry_run_task.launch import CLIENT_CONFIG
from retry_run_task.progress import Progress, unwrap
from retry_run_task.proof import Proof
from retry_run_task.recover import recover
from retry_run_task.request import NotExact, exact_request
from retry_run_task.settings import Settings
from retry_run_task.wait import schedule

# CloudTrail and Scheduler deliver at least once: this share of their deliveries comes twice.
TWICE = 0.01
# How often the client of the function tries a call, and that of everybody else (botocore, standard
# mode, `max_attempts`).
OWN_TRIES: int = vars(CLIENT_CONFIG)["retries"]["total_max_attempts"]
SDK_TRIES = 3
MINUTE = timedelta(minutes=1)
# When a schedule that was throttled is created again: the SDK's own second try, and Lambda's.
WAIT_RETRIES = (timedelta(seconds=1), *LAMBDA_RETRIES)
NO_PROGRESS = Progress()

# What became of a RunTask call. SPENT: its token is bound to a failure of another request. TAKEN:
# to a launch of another.
Answer = Literal["LAUNCHED", "FAILED", "THROTTLED", "SPENT", "TAKEN"]
Answered = Callable[[Answer], None]

# Tokens and origins begin with one.
UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass
class Job:
    """One job of the storm, and what its retries came to: `outcome`, and when they `ended`.

    `launches` are the moments at which it was started.
    """

    name: str
    failed_at: datetime
    launches: list[datetime] = field(default_factory=list)
    ended: datetime | None = None
    outcome: str = ""

    def end(self, outcome: str, moment: datetime) -> None:
        """A duplicate that comes later changes nothing."""
        if self.ended is None:
            self.outcome, self.ended = outcome, moment


class Storm:
    """`count` jobs make the call of `event` within a minute from its time on, under one policy.

    `definitions` are the rules and schedules of the account, `reason` that of the failures.
    Capacity comes back at once, or for `trickle` tasks a minute; what is not used is kept.
    """

    def __init__(
        self,
        event: dict[str, Any],
        stack: Stack,
        count: int,
        outage: timedelta,
        policy: str,
        *,
        definitions: Mapping[str, Any] | None = None,
        reason: str = CAPACITY,
        trickle: int | None = None,
    ) -> None:
        self.stack, self.policy, self.reason, self.trickle = stack, policy, reason, trickle
        self.definitions = definitions or {}
        settings = Settings.read(stack.environment, stack.function_arn)
        self.settings = replace(settings, pull_forward=settings.pull_forward and policy == OURS)
        self.start = self.now = moment_of(event)
        self.outage_ends = self.start + outage
        self.runtask_calls = self.throttled_calls = self.placed = 0
        self.pulled_forward = self.pull_forward_errors = 0
        # ECS: 40 calls a second that change a cluster's tasks, 100 at once; Fargate: 20 RunTask
        # calls a second (ECS and Fargate throttling quotas; aws-facts, section 6).
        self.buckets = (Bucket(40, 100), Bucket(20, 20))
        # What was answered under a token is answered again; failures bind theirs as well.
        self.tokens: dict[str, tuple[Mapping[str, Any], Answer]] = {}
        self._scheduler = Scheduler(lambda: self.now, self._wait_for)
        self._waiting: dict[str, Job] = {}
        self._recovered: dict[tuple[str, object], Proof | NotExact] = {}
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._counter = self._events = 0
        # The rule looks at nothing in which the jobs differ.
        self._is_seen = stack.takes_failed_calls and matches(stack.pattern, event)
        self._event, self._names = json.dumps(event), _names_in(event["detail"])
        asked, placed = asked_and_placed(event["detail"])
        self._is_placed = len(placed) >= asked
        self._count = count
        self.jobs: list[Job] = []
        self.messages: list[tuple[datetime, Message]] = []

    def run(self) -> "Storm":
        """To the end, when nothing is due any more."""
        with World(self.stack, self.start, definitions=self.definitions) as self._world:
            self._run_task = function.run_task_shape()
            letters = LostJobs(self.stack, self._at, lambda: self.now, self._arrived)
            self._bus = OutcomeBus(lambda _: None, letters.send)
            self.jobs = [self._begin(n) for n in range(self._count)]
            while self._due:
                self.now, _, action = heapq.heappop(self._due)
                action()
        return self

    def summary(self) -> dict[str, Any]:
        """The figures of the table; seconds are from the return of capacity to the first launch.

        `outcomes` counts what the jobs came to: the function's outcomes, UNMATCHED where the rule
        does not see the calls, FAILED where the function cannot read them, GAVE_UP where a caller
        has tried in vain, LOST where nobody knows.
        """
        launched = [job.launches[0] for job in self.jobs if job.launches]
        waited = [at - self.outage_ends for at in launched if at >= self.outage_ends]
        seconds = sorted(wait.total_seconds() for wait in waited)
        outcomes = Counter(
            "LAUNCHED" if job.launches else job.outcome or "LOST" for job in self.jobs
        )
        left_alone = sum(outcomes[name] for name in LEFT_ALONE)
        dead = outcomes.total() - outcomes["LAUNCHED"] - outcomes["LOST"] - left_alone
        return {
            "jobs": len(self.jobs),
            "launched": outcomes["LAUNCHED"],
            "dead_letters": dead,
            "left_alone": left_alone,
            "lost": outcomes["LOST"],
            "duplicates": sum(max(0, len(job.launches) - 1) for job in self.jobs),
            "outcomes": dict(outcomes),
            "messages": [message.subject for _, message in self.messages],
            "runtask_calls": self.runtask_calls,
            "throttled_calls": self.throttled_calls,
            "pulled_forward": self.pulled_forward,
            "pull_forward_errors": self.pull_forward_errors,
            "seconds_to_launch_p50": round(statistics.median(seconds), 1) if seconds else None,
            "seconds_to_launch_p95": (
                round(seconds[min(len(seconds) - 1, int(len(seconds) * 0.95))], 1)
                if seconds
                else None
            ),
        }

    def pending(self, samples: int, until: datetime) -> list[int]:
        """How many jobs neither run nor are given up, at so many moments up to `until`."""
        ends = [job.launches[0] if job.launches else job.ended for job in self.jobs]
        step = (until - self.start) / samples
        moments = [self.start + step * (n + 1) for n in range(samples)]
        return [sum(end is None or end > moment for end in ends) for moment in moments]

    def _begin(self, n: int) -> Job:
        """Job `n`: its call is made, and what follows is due."""
        later = (MINUTE * (n / self._count)) // timedelta(seconds=1) * timedelta(seconds=1)
        job = Job(f"job-{n}", self.start + later)
        self.runtask_calls += 1  # the caller's own
        if self._is_placed:
            job.launches.append(job.failed_at)
        elif self.policy in PUBLISHED:
            waits = PUBLISHED[self.policy].waits(job.name)
            self._at(job.failed_at, lambda: self._retry_by_itself(job, waits))
        elif not self._is_seen:
            job.end("UNMATCHED", job.failed_at)
        else:
            event = self.event_of(n)
            try:
                unwrapped, progress = unwrap(event)
                call = read_failed_call(unwrapped, self.stack.account, self.stack.region)
            except NotAFailedCall as problem:
                job.end("FAILED", job.failed_at)
                if self.policy in OWN:
                    self._cannot_be_read(job, event, problem)
            else:
                call = replace(call, event_time=call.event_time + later)
                if self.policy in OWN or self._can_be_sent(call.parameters):
                    self._publish(job, call, job.failed_at, progress)
        return job

    def event_of(self, n: int) -> dict[str, Any]:
        """The event of job `n`, whose call and chain have names of their own."""
        text = self._event
        for name in self._names if n else ():
            text = text.replace(name, f"{name[:24]}{n:012}")
        event: dict[str, Any] = json.loads(text)
        return event

    def _can_be_sent(self, parameters: Mapping[str, Any]) -> bool:
        """Does botocore send the request? If not, it raises, Lambda gives up, and nobody knows."""
        try:
            exact_request(parameters, self._run_task)
        except NotExact:
            return False
        return True

    def _publish(
        self, job: Job, call: FailedCall, moment: datetime, progress: Progress = NO_PROGRESS
    ) -> None:
        """The event of a call that failed at this moment, from CloudTrail to the function."""
        arrives = moment + CLOUDTRAIL_LATENCY
        if self.policy == SEED_IDEA:
            self._at_least_once(arrives, call.event_id, lambda: self._replay_at_once(job, call))
        else:
            self._at_least_once(arrives, call.event_id, lambda: self._decide(job, call, progress))

    def _decide(self, job: Job, call: FailedCall, progress: Progress) -> None:
        """This project: its decision code, and what its handler does about each decision."""
        caller = caller_of(call, self.settings)
        decision = decide(call, caller, progress, self.settings, self.now, self._run_task)
        request: Mapping[str, Any] = {}
        if isinstance(decision, Launch):
            request = decision.request
            if decision.source is not None:
                recovered = self._recover(decision)
                if isinstance(recovered, NotExact):
                    decision = give_up(decision, recovered)
                else:
                    request = {**request, "tags": [*request["tags"], recovered.tag]}
        if isinstance(decision, Launch):
            answered = partial(self._answered, job, call, progress, request, decision.chain)
            self._ask(job, request, answered)
        elif isinstance(decision, Wait):
            self._wait(job, decision, call)
        elif decision.outcome.is_dead_letter or decision.outcome in LEFT_ALONE:
            job.end(decision.outcome, self.now)
            self._report(call, caller, decision)

    def _report(self, call: FailedCall, caller: Caller, stop: Stop) -> None:
        """The outcome goes to the bus, as Lambda sends it."""
        end = function.End(stop.chain, stop.outcome, (), stop.detail)
        outcome = function.describe(call, caller, end, self.now)
        self._put("Success", "Success", self._written(call), outcome)

    def _written(self, call: FailedCall) -> dict[str, Any]:
        return write_failed_call(call, self.settings.account, self.settings.region)

    def _cannot_be_read(self, job: Job, event: dict[str, Any], problem: NotAFailedCall) -> None:
        """Lambda gives up on it after its tries."""
        error = {"errorType": type(problem).__name__, "errorMessage": str(problem)}
        gives_up = job.failed_at + sum(LAMBDA_RETRIES, CLOUDTRAIL_LATENCY)
        self._at(gives_up, lambda: self._put("Failure", "RetriesExhausted", event, error))

    def _put(self, kind: str, condition: str, event: dict[str, Any], answer: object) -> None:
        self._counter += 1
        record = result_of(self.stack, kind, condition, event, answer, self.now, self._counter)
        role_arn = self.stack.attribute("RetryRunTaskRole", "Arn")
        self._bus.put(self.stack, record, role_arn, self.stack.policy)

    def _arrived(self, message: Message) -> None:
        self.messages.append((self.now, message))

    def _recover(self, launch: Launch) -> Proof | NotExact:
        """What the function's own look-up finds in the account: once for all jobs that agree."""
        assert launch.source is not None
        asked = dict(launch.asked)
        asked["tags"] = [tag for tag in asked.get("tags") or [] if tag.get("key") not in OUR_TAGS]
        key = json.dumps(asked, sort_keys=True), launch.source
        if key not in self._recovered:
            clients = (function.events_client, function.scheduler_client)
            try:
                found = recover(
                    launch.asked, launch.source, self.settings, self._run_task, *clients
                )
                assert isinstance(found, Proof)  # nothing is throttled in this account
                self._recovered[key] = found
            except NotExact as problem:
                self._recovered[key] = problem
        return self._recovered[key]

    def _wait(
        self, job: Job, wait: Wait, call: FailedCall, retries: tuple[timedelta, ...] = WAIT_RETRIES
    ) -> None:
        """The handler's own schedule."""
        self._waiting.setdefault(wait.name, job)
        try:
            schedule(cast("Any", self._scheduler), wait, self.settings)
        except ClientError as error:  # Scheduler throttles as well
            if retries:
                later = partial(self._wait, job, wait, call, retries[1:])
                self._at(self.now + retries[0], later)
            else:
                job.end("FAILED", self.now)
                answer = {"errorType": "ClientError", "errorMessage": str(error)}
                self._put("Failure", "RetriesExhausted", self._written(call), answer)

    def _wait_for(self, name: str, due: datetime, version: int) -> None:
        """A schedule was created or updated."""
        self._at(due + SCHEDULER_LATENCY, lambda: self._fire(name, version))

    def _fire(self, name: str, version: int) -> None:
        payload = self._scheduler.fire(name, version)
        if payload is None:
            return
        job = self._waiting.pop(name)

        def due() -> None:
            event, progress = unwrap(json.loads(payload))
            call = read_failed_call(event, self.stack.account, self.stack.region)
            self._decide(job, call, progress)

        self._at_least_once(self.now, name, due)

    def _pull_others_forward(self, call: FailedCall, launched: Chain) -> None:
        """The handler's own code, but for what it logs and counts; it takes no time here."""
        self._world.wait(self.now - self._world.now)
        scheduler, pool = cast("Any", self._scheduler), pool_of(call.parameters, self.settings)
        try:
            for _ in pull_forward(scheduler, launched, pool, self.settings, lambda: 10**6):
                self.pulled_forward += 1
        except ClientError:
            self.pull_forward_errors += 1

    def _answered(
        self,
        job: Job,
        call: FailedCall,
        progress: Progress,
        request: Mapping[str, Any],
        chain: Chain,
        answer: Answer,
    ) -> None:
        is_pulling = self.settings.pull_forward and progress.due is not None
        if answer == "LAUNCHED" and is_pulling:
            self._pull_others_forward(call, chain)
        elif answer in ("THROTTLED", "SPENT"):  # no event will continue the chain
            token = Token.TAKEN if answer == "SPENT" else Token.SENT
            self._decide(job, *follow(call, progress, request, token))
        elif answer == "FAILED":
            self._publish(job, self._failed_call(request), self.now)

    def _failed_call(self, request: Mapping[str, Any]) -> FailedCall:
        self._events += 1
        return FailedCall(
            event_id=f"event-{self._events}",
            event_time=self.now,
            parameters=request,
            reasons=(self.reason,),
            caller_arn=self.settings.session_arn,
        )

    def _replay_at_once(
        self, job: Job, call: FailedCall, retries: tuple[timedelta, ...] = LAMBDA_RETRIES
    ) -> None:
        """The seed of this project: the same call again on every failure, with nothing counted."""

        def answered(answer: Answer) -> None:
            if answer == "THROTTLED" and retries:
                later = partial(self._replay_at_once, job, call, retries[1:])
                self._at(self.now + retries[0], later)
            elif answer == "FAILED":
                self._publish(job, self._failed_call(call.parameters), self.now)

        self._ask(job, None, answered)

    def _retry_by_itself(self, job: Job, waits: Iterator[float]) -> None:
        """A caller that waits and retries, until it runs out of attempts and says so."""
        wait = next(waits, None)
        if wait is None:
            job.end("GAVE_UP", self.now)
            return

        def answered(answer: Answer) -> None:
            if answer != "LAUNCHED":
                self._retry_by_itself(job, waits)

        self._at(self.now + timedelta(seconds=wait), lambda: self._ask(job, None, answered))

    def _ask(
        self, job: Job, request: Mapping[str, Any] | None, answered: Answered, tries: int = 1
    ) -> None:
        """One RunTask with the SDK's own tries; without a request, with a token of its own."""
        self.runtask_calls += 1
        if not all(bucket.take(self.now) for bucket in self.buckets):
            self.throttled_calls += 1
            if tries == (OWN_TRIES if self.policy in OWN else SDK_TRIES):
                answered("THROTTLED")
                return
            # botocore, standard mode: a random part of 1, 2, 4, … s.
            wait = timedelta(seconds=2 ** (tries - 1) * spread(f"{job.name}/{self.runtask_calls}"))
            self._at(self.now + wait, lambda: self._ask(job, request, answered, tries + 1))
            return
        token = request["clientToken"] if request else f"random-{self.runtask_calls}"
        if token not in self.tokens:
            launched = self._has_capacity()
            if launched:
                self.placed += 1
                job.launches.append(self.now)
            self.tokens[token] = request or {}, "LAUNCHED" if launched else "FAILED"
        before, answer = self.tokens[token]
        if request and before != request:
            answer = "SPENT" if answer == "FAILED" else "TAKEN"
        answered(answer)

    def _has_capacity(self) -> bool:
        since = self.now - self.outage_ends
        if self.trickle is None or since < timedelta():
            return since >= timedelta()
        # One task at the moment of its return, and then one after the other.
        return self.placed <= since / MINUTE * self.trickle

    def _at(self, moment: datetime, action: Callable[[], None]) -> None:
        self._counter += 1
        heapq.heappush(self._due, (moment, self._counter, action))

    def _at_least_once(self, moment: datetime, name: str, action: Callable[[], None]) -> None:
        self._at(moment, action)
        if spread(name) < TWICE:
            self._at(moment + DUPLICATE_LATENCY, action)


def _names_in(detail: Mapping[str, Any]) -> list[str]:
    """What names the call and its chain: each job of a storm has its own."""
    parameters = object_in(detail.get("requestParameters"))
    tags = objects_in(parameters.get("tags"))
    origins = [tag.get("value") for tag in tags if tag.get("key") == ORIGIN_TAG]
    texts = (detail.get("eventID"), parameters.get("clientToken"), *origins)
    found = (UUID.match(text) for text in texts if isinstance(text, str))
    return list(dict.fromkeys(name[0] for name in found if name))
