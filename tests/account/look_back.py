"""Look back: read the records, judge the runs that were lost, and print what it comes to."""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
from rich.progress import Progress

from account.event_history import CLIENT_CONFIG, MOST_DAYS, event_history
from account.logs import Read, events_in, files_in, read_logs
from account.look_ups import LookUps
from account.runs import Failure, Run, Runs
from account.session import ERRORS, client_of, open_session, problem_of
from account.summary import Judged, as_json, judge, report
from account.terminal import progress_bar, say
from account.verdict import FAILED, LAUNCHED, Verdict, verdict_on
from rehearsal.records import BadInput, held_in, moment_of
from rehearsal.show import number
from retry_run_task.caller import GROUPS
from retry_run_task.failed_call import NotAFailedCall

DAY = timedelta(days=1)
TOO_DEEP = "it is nested too deeply"


def look_back(options: argparse.Namespace) -> int:
    """Do what the options ask for, and print it. Returns the exit status; raises BadInput."""
    now = datetime.now(UTC)
    session, why_not = None, "--offline" if options.offline else ""
    if not options.files:
        session = open_session(options.profile, options.region)
    elif not options.offline:
        try:
            session = open_session(options.profile, options.region)
        except BadInput as problem:  # of use only if a call hides something
            why_not = str(problem)
    look_ups = LookUps(session, why_not)
    if options.failures:
        make_directory(Path(options.failures))
    since = now - options.days * DAY if options.days else None
    with progress_bar() as progress:
        if session is None or options.files:
            found = gather(from_files(options.files, progress), since, options.region)
        else:
            since = since or now - MOST_DAYS * DAY
            found = gather(from_event_history(session, since, now, progress), since)
        jobs = judged(found.runs, look_ups, progress)
    notes = list(notes_on(jobs, found, look_ups))
    if options.json:
        for note in notes:
            say(note)
        print(json.dumps(as_json(jobs), indent=2))
    else:
        if session is not None and not options.files:
            print(f"Event history of {session.region_name}\n")
        print(report(jobs, period_of(found, since, now, is_live=not options.files), notes))
    lost = [run for job in jobs for run in job.history.lost]
    if options.failures:
        write_events(lost, Path(options.failures))
    return 1 if lost else 2 * found.has_problems


@dataclass(frozen=True, slots=True)
class Found:
    """What was read, and whether that is all."""

    runs: Runs
    has_problems: bool = False
    is_interrupted: bool = False


def gather(reads: Iterator[Read], since: datetime | None, region: str | None = None) -> Found:
    """All runs since then, or all, in one Region or all. Says in a line each what cannot be read.

    Raises BadInput if it is interrupted before it has a record.
    """
    runs, has_problems = Runs(), False
    try:
        for read in reads:
            problems = []
            for event in events_in(read):
                try:
                    if isinstance(event, BadInput):
                        raise event
                    is_wanted = region in (None, event["region"])
                    if is_wanted and (since is None or moment_of(event) >= since):
                        runs.add(event)
                except (BadInput, NotAFailedCall) as problem:
                    problems.append(str(problem).partition(". Nothing was launched")[0])
                except RecursionError:
                    problems.append(TOO_DEEP)
            if problems:
                has_problems = True
                more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
                say(f"history: {read.title}: {problems[0]}{more}")
    except KeyboardInterrupt as interrupt:
        if not runs.records:
            raise BadInput("interrupted, before anything was read") from interrupt
        return Found(runs, has_problems, is_interrupted=True)
    return Found(runs, has_problems)


def from_files(paths: Iterable[Path], progress: Progress) -> Iterator[Read]:
    """What the files hold, and the log files of directories."""
    files = list(files_in(paths))
    bar = progress.add_task("files", total=len(files))
    for read in read_logs(files):
        yield read
        progress.advance(bar)


def from_event_history(
    session: boto3.Session, since: datetime, until: datetime, progress: Progress
) -> Iterator[Read]:
    """What the Event history holds. Raises BadInput where nothing of it can be read."""
    cloudtrail = client_of(session, "cloudtrail", config=CLIENT_CONFIG)
    bar = progress.add_task(f"{until:%Y-%m-%d}", total=(until - since).total_seconds())
    reached, is_begun = until, False
    try:
        for page in event_history(cloudtrail, since, until):
            is_begun = True
            yield Read("Event history", list(held_in({"Events": page})))
            reached = page[-1]["EventTime"] if page else reached
            done = (until - reached).total_seconds()
            day = f"{reached:%Y-%m-%d}"
            progress.update(bar, completed=done, description=day, refresh=True)
    except ERRORS as error:
        if not is_begun:
            raise BadInput(problem_of(error)) from error
        before = f"nothing was read from before {reached:%Y-%m-%d %H:%M}"
        yield Read("Event history", problem=f"{before}: {problem_of(error)}")


def judged(runs: Runs, look_ups: LookUps, progress: Progress) -> list[Judged]:
    """Each job's history, with the verdicts on its runs."""
    histories = runs.jobs()
    total = sum(len(history.lost) for history in histories)
    bar = progress.add_task("verdicts", total=total)

    def verdict(failure: Failure) -> Verdict:
        progress.advance(bar)
        try:
            event = json.loads(failure.event)
            try:
                return verdict_on(event, look_ups)
            except KeyboardInterrupt:
                look_ups.stop("interrupted")
                return verdict_on(event, look_ups)
        except RecursionError:
            return Verdict(FAILED, f"The event cannot be read: {TOO_DEEP}.")

    return [judge(history, verdict) for history in histories]


def notes_on(jobs: Sequence[Judged], found: Found, look_ups: LookUps) -> Iterator[str]:
    """What has to be known to read the figures."""
    if found.runs.unanswered:
        calls = number(found.runs.unanswered, "call")
        yield f"Of {calls}, CloudTrail does not show the answer: what ECS placed is not known."
    if later := sum(job.count(LAUNCHED) for job in jobs):
        yield f"{number(later, 'run')} failed at first, and a retry or a repeated call started it."
    attended = [job for job in jobs if GROUPS.get(job.history.job.caller) == "ATTENDED"]
    if runs := sum(len(job.history.lost) for job in attended):
        callers = sorted({job.history.job.caller for job in attended if job.history.lost})
        yield (
            f"{number(runs, 'lost run')} of callers that see failures ({', '.join(callers)}): they "
            "may have started the task with another call."
        )
    if look_ups.refused:
        yield (
            "Rules and schedules were read as they are now. A stack reads them a minute or two "
            "after the call, and so finds those that were changed or deleted since."
        )
    for why, count in look_ups.not_made.items():
        hidden = number(count, "lost run")
        yield f"{hidden}: the environment that CloudTrail hides was not looked up ({why})."
    if found.is_interrupted:
        yield "Interrupted: this is what was read until then."


def period_of(found: Found, since: datetime | None, now: datetime, *, is_live: bool) -> str:
    """Of which time the figures are."""
    first, last = found.runs.first, found.runs.last
    if is_live and (found.is_interrupted or found.has_problems):
        since = first or now
    if since is not None:
        days = -(-(now - since) // DAY) or 1
    elif first and last:
        days = (last.date() - first.date()).days + 1
    else:
        return "could be read" if found.has_problems else "was found"
    what = " of what could be read" if found.has_problems else ""
    return f"in {number(days, 'day')}{what}"


def make_directory(directory: Path) -> None:
    """For --failures, before it is known whether there are any; raises BadInput."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--failures: {directory}: {error.strerror}") from error


def write_events(runs: Iterable[Run], directory: Path) -> None:
    """A file for each run, with the event of its first failed call; raises BadInput."""
    for run in runs:
        failure = run.first
        words = (f"{failure.time:%Y-%m-%dT%H%M%SZ}", run.job.name[:80], failure.event_id)
        name = ".".join(re.sub(r"[^\w-]", "-", word, flags=re.ASCII) for word in words)
        try:
            text = json.dumps(json.loads(failure.event), indent=2)
            (directory / f"{name}.json").write_text(f"{text}\n", "utf-8")
        except (OSError, RecursionError) as error:
            why = getattr(error, "strerror", TOO_DEEP)
            raise BadInput(f"--failures: {directory / name}.json: {why}") from error
