"""What the history comes to: an object for machines, and a table with the sentence that matters."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from account.runs import Failure, History, Run
from account.verdict import LAUNCHED, RETRY, Verdict
from rehearsal.show import line, number, table, width
from retry_run_task.failed_call import write_time

NARROW = 80


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


def report(jobs: Sequence[Judged], period: str, notes: Sequence[str]) -> str:
    """For each account and Region a table of its jobs; then the notes, and the sentence."""
    shown = [job for job in jobs if job.history.runs or job.history.rejected]
    places = dict.fromkeys((job.history.job.account, job.history.job.region) for job in shown)
    parts = []
    for place in places:
        here = [j for j in shown if (j.history.job.account, j.history.job.region) == place]
        parts += [f"{', '.join(place)}:", _table(here)]
        parts += [_details(job) for job in here if job.history.runs]
    whole = [job for job in jobs if job not in shown]
    if whole:
        records = number(sum(job.history.records for job in whole), "record")
        notes = [f"{number(len(whole), 'other job')}: {records}, nothing failed.", *notes]
    lines = [line("", text) for text in (*notes, sentence(jobs, period))]
    return "\n\n".join([*parts, *lines])


def _table(jobs: Sequence[Judged]) -> str:
    rows = []
    for job in jobs:
        days = [f"{moment:%Y-%m-%d}" for moment in job.times] or ["-"]
        rows.append(
            {
                "job": job.history.job.name,
                "caller": job.history.job.caller,
                "records": f"{job.history.records:,}",
                "failed": f"{len(job.failed):,}",
                "partly": f"{len(job.partly_placed):,}",
                "rejected": f"{job.history.rejected:,}",
                "first": days[0],
                "last": days[-1],
            }
        )
    # A narrow terminal has no room for all.
    left_out = {"caller", "records", "rejected", "first"} if width() < NARROW else set()
    titles = [title for title in rows[0] if title not in left_out]
    return table(titles, ([row[title] for title in titles] for row in rows), ("job", "caller"))


def _details(judged: Judged) -> str:
    """Why the runs failed, and what the stack would have done."""
    lines = [line("", f"{judged.history.job.name} ({judged.history.job.caller})")]
    lines += [line(f"{count:>7,}  ", reason) for reason, count in judged.reasons.items()]
    for verdict, count in Counter(judged.verdicts).most_common():
        lines.append(line(f"{count:>7,}  ", ": ".join(filter(None, (verdict.name, verdict.why)))))
    return "\n".join(lines)


def sentence(jobs: Sequence[Judged], period: str) -> str:
    """How many runs were lost in that period, and how many of them would have been retried."""
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
    return (
        f"{', and '.join(lost)}; {f'{retried:,}' if retried else 'none'} would have been retried."
    )


def _runs_of(runs: int, jobs: int) -> str:
    return f"{number(runs, 'run')} of {number(jobs, 'job')}"
