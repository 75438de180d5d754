"""What a storm prints: figures under each policy, the policies' settings, and what is pending."""

import json
from collections.abc import Mapping
from typing import Any

from rehearsal.lost_jobs import Message
from rehearsal.policies import BEFORE, OURS, PUBLISHED, SEED_IDEA
from rehearsal.show import MARK, can_show, elapsed, figure, line, number, plot, table, width
from rehearsal.storm import Storm

# Titles, and keys of Storm.summary.
JOBS = {
    "launched": "launched",
    "dead\nletters": "dead_letters",
    "left\nalone": "left_alone",
    "lost": "lost",
    "duplicates": "duplicates",
}
CALLS = {
    "RunTask\ncalls": "runtask_calls",
    "calls\nper job": "runtask_calls_per_job",
    "throttled": "throttled_calls",
    "p50 s": "seconds_to_launch_p50",
    "p95 s": "seconds_to_launch_p95",
}
MOST_SAMPLES = 60


def report(storms: Mapping[str, Storm], by_outage: Mapping[str, Mapping[str, int]]) -> str:
    """The same storm under each policy.

    `by_outage` says of each policy how many jobs were launched in other outages, if that was asked.
    """
    storm = next(iter(storms.values()))
    jobs, outage = len(storm.jobs), storm.outage_ends - storm.start
    results = {}
    for name, played in storms.items():
        figures = played.summary()
        per_job = {"runtask_calls_per_job": figures["runtask_calls"] / jobs}
        results[name] = figures | per_job | dict(by_outage.get(name, {}))
    outages = dict.fromkeys(title for each in by_outage.values() for title in each)
    fails = "fails" if jobs == 1 else "fail within a minute"
    then = f", and comes back for {number(storm.trickle, 'task')} a minute" if storm.trickle else ""
    missing = f"capacity is missing for {elapsed(outage)}{then}"
    parts = [
        line("", f"{number(jobs, 'job')} {fails}; {missing}."),
        figures_of(results, JOBS | {title: title for title in outages}),
        line("", f"{', '.join(outages)}: launched, had capacity been missing for that long."),
        figures_of(results, CALLS),
        line("", "p50, p95: from the return of capacity to the launch."),
        settings_of(storms),
        line("", f"Pending jobs, from the first failure to {elapsed(outage * 2)} after it:"),
        pending_in(storms),
    ]
    if not outages:
        del parts[2]
    return "\n\n".join(parts + [text for s in storms.values() if s.messages for text in sent(s)])


def sent(storm: Storm) -> list[str]:
    """The messages about lost jobs: all their subjects, and the first one as it arrives by mail."""
    messages = [message for _, message in storm.messages]
    subjects = [
        line(f"{elapsed(moment - storm.start):>8}  ", message.subject)
        for moment, message in storm.messages
    ]
    lost = storm.summary()["dead_letters"]
    title = f"{number(len(messages), 'message')} about {number(lost, 'lost job')}"
    title += " (what arrives twice may be in two):" if len(messages) > 1 else ":"
    return [line("", title), "\n".join(subjects), mail(messages[0])]


def mail(message: Message) -> str:
    """A message as it arrives. Its lines stay whole, for a command among them is to be copied."""
    parts = ["The message, as it arrives by mail:", f"Subject: {message.subject}", message.text]
    if message.chat is not None:
        notification = json.dumps(message.chat, indent=2, ensure_ascii=False)
        parts += ["And at https subscribers, such as Amazon Q Developer:", notification]
    return "\n\n".join(parts)


def figures_of(results: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A row for each policy."""
    rows = [
        (name, *(figure(figures[key]) for key in columns.values()))
        for name, figures in results.items()
    ]
    return table(("", *columns), rows)


def settings_of(storms: Mapping[str, Storm]) -> str:
    """How often each policy tries after the failed call, when, and where that is from."""
    settings = next(iter(storms.values())).settings
    base, cap = (
        int(wait.total_seconds()) for wait in (settings.backoff_base, settings.backoff_cap)
    )
    attempts, waits = str(settings.max_attempts), f"{base} s, doubled up to {cap} s"
    own = {
        OURS: (attempts, waits, "the stack's parameters"),
        BEFORE: (attempts, waits, "the same, PullForward=false"),
        SEED_IDEA: ("no limit", "none", "what this project began with"),
    }
    theirs = {name: (str(p.attempts), p.shown, p.source) for name, p in PUBLISHED.items()}
    rows = [(name, *(own | theirs)[name]) for name in storms]
    return table(("", "attempts", "waits", "source"), rows, words=("waits", "source"))


def pending_in(storms: Mapping[str, Storm]) -> str:
    """A plot of how many jobs are pending: capacity is back in its middle."""
    storm = next(iter(storms.values()))
    names = max(map(len, storms)) + 2
    samples = min(MOST_SAMPLES, (width() - names) // 2 * 2)
    until = storm.start + (storm.outage_ends - storm.start) * 2
    series = {name: played.pending(samples, until) for name, played in storms.items()}
    mark, words, middle = (
        (MARK if can_show(MARK) else "^"),
        "capacity is back",
        names + samples // 2,
    )
    label = f"{' ' * middle}{mark} {words}"
    if len(label) > width():
        label = f"{words} {mark}".rjust(middle + 1)
    return f"{plot(series, len(storm.jobs))}\n{label}"
