"""What the history comes to: an object for machines, and a table with the sentence that matters."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from account.runs import Failure, History, Run
from account.verdict import LAUNCHED, RETRY, Verdict
from rehearsal.show import line, number, table
from retry_run_task.failed_call import write_time


@dataclass(frozen=True, slots=True)
class Judged:
    """One job's history, and the verdict on each of its runs that failed, in their order."""

    history: History
    verdicts: Sequence[Verdict]

    @property
    def failed(self) -> list[Run]:
        """The runs of which nothing started."""
        return [run for run in self.history.lost if not run.tasks]

    @property
    def partly_placed(self) -> list[Run]:
        """The runs of which some tasks started, and not all."""
        return [run for run in self.history.lost if run.tasks]

    @property
    def reasons(self) -> dict[str, int]:
        """In how many of the lost runs ECS gave which reason."""
        given = Counter(reason for run in self.history.lost for reason in run.first.reasons)
        return dict(given.most_common())

    @property
    def times(self) -> list[datetime]:
        """When the lost runs failed first, in order."""
        return [run.first.time for run in self.history.lost]

    def count(self, name: str) -> int:
        """How many of the verdicts are this one."""
        return sum(verdict.name == name for verdict in self.verdicts)


def judge(history: History, verdict_on: Callable[[Failure], Verdict]) -> Judged:
    """Each lost run by its last failure. Retries have started the others that failed at first."""
    return Judged(
        history,
        [verdict_on(run.last) if run.is_lost else Verdict(LAUNCHED) for run in history.runs],
    )


def as_json(jobs: Sequence[Judged]) -> dict[str, Any]:
    """The object that `--json` prints."""
    each = [_job_as_json(job) for job in jobs]
    keys = ("records", "failed", "partly_placed", "rejected")
    return {
        **{key: sum(job[key] for job in each) for key in keys},
        "would_retry": sum(job.count(RETRY) for job in jobs),
        **_first_and_last([time for job in jobs for time in job.times]),
        "jobs": each,
    }


def _job_as_json(job: Judged) -> dict[str, Any]:
    return {
        "job": job.history.job.name,
        "caller": job.history.job.caller,
        "records": job.history.records,
        "failed": len(job.failed),
        "partly_placed": len(job.partly_placed),
        "rejected": job.history.rejected,
        "reasons": job.reasons,
        **_first_and_last(job.times),
        "verdicts": dict(Counter(verdict.name for verdict in job.verdicts).most_common()),
    }


def _first_and_last(times: Sequence[datetime]) -> dict[str, str | None]:
    return {
        "first": write_time(min(times)) if times else None,
        "last": write_time(max(times)) if times else None,
    }


def report(jobs: Sequence[Judged], days: int, notes: Sequence[str]) -> str:
    """A table of the jobs, their reasons and verdicts, the notes, and the sentence."""
    shown = [job for job in jobs if job.history.runs or job.history.rejected]
    parts = [_table(shown)] if shown else []
    parts += [_details(job) for job in shown if job.history.runs]
    whole = [job for job in jobs if job not in shown]
    if whole:
        records = number(sum(job.history.records for job in whole), "record")
        notes = [f"{number(len(whole), 'other job')}: {records}, nothing failed.", *notes]
    return "\n\n".join(
        [*parts, *(line("", note) for note in notes), line("", sentence(jobs, days))]
    )


def _table(jobs: Sequence[Judged]) -> str:
    figures = ("records", "failed", "partly", "rejected")
    where = "account, Region"
    rows = []
    for judged in jobs:
        job, history = judged.history.job, judged.history
        counts = (history.records, len(judged.failed), len(judged.partly_placed), history.rejected)
        days = [f"{moment:%Y-%m-%d}" for moment in judged.times] or ["-"]
        names = (job.name, job.caller, f"{job.account}, {job.region}")
        rows.append([*names, *(f"{count:,}" for count in counts), days[0], days[-1]])
    if len({row[2] for row in rows}) == 1:
        rows, where = [[*row[:2], *row[3:]] for row in rows], ""
    titles = ("job", "caller", *filter(None, [where]), *figures, "first", "last")
    return table(titles, rows, words=("job", "caller", where))


def _details(judged: Judged) -> str:
    """Why the runs failed, and what the stack would have done."""
    lines = [line("", f"{judged.history.job.name} ({judged.history.job.caller})")]
    lines += [line(f"{count:>7,}  ", reason) for reason, count in judged.reasons.items()]
    for verdict, count in Counter(judged.verdicts).most_common():
        lines.append(line(f"{count:>7,}  ", ": ".join(filter(None, (verdict.name, verdict.why)))))
    return "\n".join(lines)


def sentence(jobs: Sequence[Judged], days: int) -> str:
    """How many runs were lost in so many days, and how many of them would have been retried."""
    period = f"in {number(days, 'day')}"
    failed = [job for job in jobs if job.failed]
    partly = [job for job in jobs if job.partly_placed]
    if not jobs:
        return f"No RunTask call {period}."
    if not failed and not partly:
        return f"No run was lost {period}."
    lost = []
    if failed:
        runs = sum(len(job.failed) for job in failed)
        lost.append(f"{_runs_of(runs, len(failed))} never started")
    if partly:
        runs = sum(len(job.partly_placed) for job in partly)
        lost.append(f"{_runs_of(runs, len(partly))} started in part")
    lost[0] += f" {period}"
    retried = sum(job.count(RETRY) for job in jobs)
    return f"{', and '.join(lost)}; {retried or 'none'} would have been retried."


def _runs_of(runs: int, jobs: int) -> str:
    return f"{number(runs, 'run')} of {number(jobs, 'job')}"
