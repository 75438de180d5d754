"""Many jobs at once: N calls fail in one minute, capacity is missing, and ECS has its rates.

The project's own policy is its real decision code. ECS, Scheduler and CloudTrail are modelled in
memory with the same latencies as in the rehearsal of one chain (world.py), which drives the whole
handler; test_storm.py holds the two against each other.
"""

import heapq
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import botocore.session
from botocore.model import StructureShape

from rehearsal.ecs import CAPACITY
from rehearsal.template import Stack
from rehearsal.world import CLOUDTRAIL_LATENCY, DUPLICATE_LATENCY, LAMBDA_RETRIES, SCHEDULER_LATENCY
from retry_run_task.backoff import spread
from retry_run_task.caller import caller_of
from retry_run_task.decision import Launch, Wait, decide
from retry_run_task.failed_call import FailedCall, read_failed_call
from retry_run_task.follow import Token, follow
from retry_run_task.launch import CLIENT_CONFIG
from retry_run_task.progress import Progress
from retry_run_task.settings import Settings

# CloudTrail and Scheduler deliver at least once: this share of their deliveries comes twice.
TWICE = 0.01
SDK_TRIES: int = vars(CLIENT_CONFIG)["retries"]["total_max_attempts"]
MINUTE = timedelta(minutes=1)

# What became of a RunTask call. SPENT: its token is bound to a failure of another request.
Answer = Literal["LAUNCHED", "FAILED", "THROTTLED", "SPENT"]
Answered = Callable[[Answer], None]

# The waits after each failed attempt of a job that its own caller tries again, as published.
Waits = Callable[[str], Iterator[float]]
PUBLISHED: dict[str, Waits] = {
    # A state machine whose author wrote a Retry, with the defaults of Amazon States Language:
    # IntervalSeconds 1, BackoffRate 2.0, MaxAttempts 3. Without one there is no retry at all.
    "step-functions-retry": lambda _: iter((1, 2, 4)),
    # dagster-aws, EcsRunLauncher: 0.1 s, doubled, 5 retries.
    "dagster": lambda _: iter(0.1 * 2**n for n in range(5)),
    # prefect-aws, ECS worker: 3 attempts, 1 s and up to 3 s of jitter between them.
    "prefect": lambda job: iter(1 + 3 * spread(f"{job}/{n}") for n in range(2)),
    # apache-airflow-providers-amazon, ECS executor: 4^n s, at most 120 s, 3 attempts.
    "airflow": lambda _: iter(min(4.0**n, 120) for n in (1, 2)),
    "fixed-60s": lambda _: iter((60, 60, 60)),
}
USUAL_OUTAGE = timedelta(minutes=25)
POLICIES = ("retry-run-task", "seed-idea", *PUBLISHED)

# The table's columns: titles, and keys of Storm.summary.
COLUMNS = (
    ("launched", "launched"),
    ("dead letters", "dead_letters"),
    ("lost", "lost"),
    ("duplicates", "duplicates"),
    ("RunTask calls", "runtask_calls"),
    ("calls per job", "runtask_calls_per_job"),
    ("throttled", "throttled_calls"),
    ("p50 s", "seconds_to_launch_p50"),
    ("p95 s", "seconds_to_launch_p95"),
)


@dataclass
class Bucket:
    """A token bucket: `rate` a second, at most `burst` at once."""

    rate: float
    burst: float
    level: float = field(init=False)
    filled: datetime | None = None

    def __post_init__(self) -> None:
        self.level = self.burst

    def take(self, now: datetime) -> bool:
        if self.filled is not None:
            gained = (now - self.filled).total_seconds() * self.rate
            self.level = min(self.burst, self.level + gained)
        self.filled = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


@dataclass
class Job:
    """One job of the storm; `ended` when it came to a dead letter, `launches` when it started."""

    name: str
    call: FailedCall
    launches: list[datetime] = field(default_factory=list)
    ended: datetime | None = None


class Storm:
    """`count` jobs whose calls fail in the minute from `event`'s time on, under one policy."""

    def __init__(
        self, event: dict[str, Any], stack: Stack, count: int, outage: timedelta, policy: str
    ) -> None:
        self.settings = Settings.read(stack.environment, stack.function_arn)
        call = read_failed_call(event, stack.account, stack.region)
        self.start = self.now = call.event_time
        self.outage_ends = self.start + outage
        self.policy = policy
        self.runtask_calls = self.throttled_calls = 0
        # ECS: 40 calls a second that change a cluster's tasks, 100 at once; Fargate: 20 RunTask
        # calls a second (ECS and Fargate throttling quotas; aws-facts, section 6).
        self.buckets = (Bucket(40, 100), Bucket(20, 20))
        # What was answered under a token is answered again; failures bind theirs as well.
        self.tokens: dict[str, tuple[Mapping[str, Any], Answer]] = {}
        self.schedules: set[str] = set()
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._counter = self._events = 0
        model = botocore.session.get_session().get_service_model("ecs").operation_model("RunTask")
        assert isinstance(model.input_shape, StructureShape)
        self._run_task = model.input_shape
        self.jobs = [self._begin(call, n, count) for n in range(count)]

    def run(self) -> "Storm":
        """To the end, when nothing is due any more."""
        while self._due:
            self.now, _, action = heapq.heappop(self._due)
            action()
        return self

    def summary(self) -> dict[str, Any]:
        """The figures of the table; seconds are from the return of capacity to the first launch."""
        launched = [job.launches[0] for job in self.jobs if job.launches]
        seconds = sorted((at - self.outage_ends).total_seconds() for at in launched)
        dead = sum(job.ended is not None and not job.launches for job in self.jobs)
        return {
            "jobs": len(self.jobs),
            "launched": len(launched),
            "dead_letters": dead,
            "lost": len(self.jobs) - len(launched) - dead,
            "duplicates": sum(max(0, len(job.launches) - 1) for job in self.jobs),
            "runtask_calls": self.runtask_calls,
            "throttled_calls": self.throttled_calls,
            "seconds_to_launch_p50": round(statistics.median(seconds), 1) if seconds else None,
            "seconds_to_launch_p95": (
                round(seconds[min(len(seconds) - 1, int(len(seconds) * 0.95))], 1)
                if seconds
                else None
            ),
        }

    def waiting(self, samples: int, until: datetime) -> list[int]:
        """How many jobs neither run nor are given up, at so many moments up to `until`."""
        ends = [job.launches[0] if job.launches else job.ended for job in self.jobs]
        step = (until - self.start) / samples
        moments = [self.start + step * (n + 1) for n in range(samples)]
        return [sum(end is None or end > moment for end in ends) for moment in moments]

    def _begin(self, call: FailedCall, n: int, count: int) -> Job:
        name = f"{call.event_id[:24]}{n:012}" if n else call.event_id
        failed_at = (self.start + MINUTE * (n / count)).replace(microsecond=0)
        job = Job(name, replace(call, event_id=name, event_time=failed_at))
        self.runtask_calls += 1  # the caller's own
        if self.policy in PUBLISHED:
            waits = PUBLISHED[self.policy](name)
            self._at(failed_at, lambda: self._retry_by_itself(job, waits))
        else:
            self._publish(job, job.call)
        return job

    def _publish(self, job: Job, call: FailedCall) -> None:
        """The event of a failed call, from CloudTrail to the function."""
        moment = call.event_time + CLOUDTRAIL_LATENCY
        if self.policy == "seed-idea":
            self._at_least_once(moment, call.event_id, lambda: self._replay_at_once(job, call))
        else:
            self._at_least_once(moment, call.event_id, lambda: self._decide(job, call, Progress()))

    def _decide(self, job: Job, call: FailedCall, progress: Progress) -> None:
        """This project: its decision code, and what its handler does about each decision."""
        caller = caller_of(call, self.settings)
        decision = decide(call, caller, progress, self.settings, self.now, self._run_task)
        if isinstance(decision, Launch):
            answered = partial(self._answered, job, call, progress, decision.request)
            self._ask(job, decision.request, answered)
        elif isinstance(decision, Wait):
            if decision.name not in self.schedules:
                self.schedules.add(decision.name)
                due = replace(progress, due=decision.until, taken_on=True)
                self._at_least_once(
                    decision.until + SCHEDULER_LATENCY,
                    decision.name,
                    lambda: self._fire(decision.name, job, call, due),
                )
        elif decision.outcome.is_dead_letter and job.ended is None:
            job.ended = self.now

    def _fire(self, name: str, job: Job, call: FailedCall, due: Progress) -> None:
        self.schedules.discard(name)
        self._decide(job, call, due)

    def _answered(
        self,
        job: Job,
        call: FailedCall,
        progress: Progress,
        request: Mapping[str, Any],
        answer: Answer,
    ) -> None:
        if answer in ("THROTTLED", "SPENT"):  # no event will continue the chain
            token = Token.TAKEN if answer == "SPENT" else Token.SENT
            self._decide(job, *follow(call, progress, request, token))
        elif answer == "FAILED":
            self._publish(job, self._failed_call(request))

    def _failed_call(self, request: Mapping[str, Any]) -> FailedCall:
        self._events += 1
        return FailedCall(
            event_id=f"event-{self._events}",
            event_time=self.now,
            parameters=request,
            reasons=(CAPACITY,),
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
                self._publish(job, self._failed_call(call.parameters))

        self._ask(job, None, answered)

    def _retry_by_itself(self, job: Job, waits: Iterator[float]) -> None:
        """A caller that waits and asks again, until it runs out of attempts and says so."""
        wait = next(waits, None)
        if wait is None:
            job.ended = self.now
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
            if tries == SDK_TRIES:
                answered("THROTTLED")
                return
            # botocore, standard mode: a random part of 1, 2, 4, … s.
            wait = timedelta(seconds=2 ** (tries - 1) * spread(f"{job.name}/{self.runtask_calls}"))
            self._at(self.now + wait, lambda: self._ask(job, request, answered, tries + 1))
            return
        token = request["clientToken"] if request else f"random-{self.runtask_calls}"
        if token not in self.tokens:
            launched = self.now >= self.outage_ends
            if launched:
                job.launches.append(self.now)
            self.tokens[token] = request or {}, "LAUNCHED" if launched else "FAILED"
        before, answer = self.tokens[token]
        answered("SPENT" if answer == "FAILED" and request and before != request else answer)

    def _at(self, moment: datetime, action: Callable[[], None]) -> None:
        self._counter += 1
        heapq.heappush(self._due, (moment, self._counter, action))

    def _at_least_once(self, moment: datetime, name: str, action: Callable[[], None]) -> None:
        self._at(moment, action)
        if spread(name) < TWICE:
            self._at(moment + DUPLICATE_LATENCY, action)


def report(storms: Mapping[str, Storm]) -> str:
    """The same storm under each policy: the figures in a table, and who waits in a plot."""
    storm = next(iter(storms.values()))
    jobs, outage = len(storm.jobs), storm.outage_ends - storm.start
    waiting = {
        name: played.waiting(60, storm.start + outage * 2) for name, played in storms.items()
    }
    return "\n".join(
        (
            f"{jobs:,} jobs fail within a minute; capacity is missing for {outage}.\n",
            table({name: played.summary() for name, played in storms.items()}),
            f"\nJobs that wait, from the first failure to {outage * 2} after it:\n",
            plot(waiting, jobs),
            " " * (max(map(len, waiting)) + 2 + 30) + "▲ capacity is back",
        )
    )


def table(results: Mapping[str, dict[str, Any]]) -> str:
    """The figures of each policy, a row each."""
    name_width = max(map(len, results))
    lines = [" " * name_width + "".join(f"  {title:>9}" for title, _ in COLUMNS)]
    for policy, figures in results.items():
        per_job = {"runtask_calls_per_job": figures["runtask_calls"] / figures["jobs"]}
        cells = ((title, _number((figures | per_job)[key])) for title, key in COLUMNS)
        row = "".join(f"  {cell:>{max(9, len(title))}}" for title, cell in cells)
        lines.append(policy.ljust(name_width) + row)
    return "\n".join(lines)


def plot(series: Mapping[str, list[int]], most: int) -> str:
    """One line of bars a policy: how many jobs wait, of `most`."""
    width = max(map(len, series))
    bars = " ▁▂▃▄▅▆▇█"
    return "\n".join(
        f"{name.ljust(width)}  {''.join(bars[-(-value * 8 // most)] for value in values)}"
        for name, values in series.items()
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
