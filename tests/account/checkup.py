"""Check: look at the trail, the stack and each job, and print what is to be fixed."""

import argparse
import functools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from account.deployed import (
    Deployed,
    find_stack,
    function_of,
    resources_of,
    settings_from_parameters,
    stacks_in,
)
from account.finding import Finding, Mark, fix, looked, ok, unknown, why_not
from account.job_checks import JobChecks
from account.jobs import Job, rules, schedules, wanted
from account.reach import Reach, reach_by_parameters, reach_of, reach_of_defaults
from account.session import account_of, open_session
from account.stack_checks import StackChecks
from account.terminal import progress_bar
from account.trails import trail_findings
from rehearsal.records import BadInput
from rehearsal.show import can_show, line, number, table
from retry_run_task.settings import Settings

SIGNS = {Mark.OK: "✔", Mark.FIX: "✘", Mark.UNKNOWN: "?"}
ASCII_SIGNS = {Mark.OK: "+", Mark.FIX: "x", Mark.UNKNOWN: "?"}


@dataclass(slots=True)
class Checkup:
    """The findings of each part, each once, and which jobs were not judged, by the reason."""

    account: str
    region: str
    parts: dict[str, list[Finding]] = field(default_factory=dict)
    left_out: Mapping[str, list[str]] = field(default_factory=dict)

    def add(self, part: str, findings: Iterable[Finding]) -> None:
        """What many jobs have in common is said once."""
        known = self.parts.setdefault(part, [])
        for finding in findings:
            if finding not in known:
                known.append(finding)

    def count(self, mark: Mark) -> int:
        """How many findings have this mark."""
        return sum(finding.mark is mark for found in self.parts.values() for finding in found)


def check(options: argparse.Namespace) -> int:
    """Do what the options ask for, and print it. Returns the exit status; raises BadInput."""
    # What is wrong with a profile is said here, in a line.
    logging.getLogger("botocore").addHandler(logging.NullHandler())
    which = wanted(options.job)
    session = open_session(options.profile, options.region)
    checkup = Checkup(account_of(session), str(session.region_name))
    now, jobs = datetime.now(UTC), []
    with progress_bar() as progress:
        bar = progress.add_task("trail", total=None)
        checkup.add("trail", looked("CloudTrail", trail_findings(session)))
        progress.update(bar, description="stack")
        stack = looked_for(session, options.stack, checkup)
        reach = examined(session, stack, checkup)
        checks = JobChecks(session, reach)

        def judged(found: Iterable[Job]) -> Iterator[Finding]:
            for job in found:
                progress.update(bar, description=job.title)
                jobs.append(job)
                yield from checks.of_job(job, now)

        checkup.add("jobs", looked("rules", judged(rules(session, which))))
        checkup.add("jobs", looked("schedules", judged(schedules(session, which))))
        if stack is not None:
            others = other_stacks(session, stack, reach.settings)
            checkup.add("stack", looked("other stacks", others))
    checkup.left_out = checks.left_out
    if options.job:
        if not jobs and not checkup.parts["jobs"]:
            raise BadInput(f"no rule or schedule {options.job} starts an ECS task here")
        for why, titles in checks.left_out.items():
            checkup.add("jobs", (fix(title, f"It is not retried ({why}).") for title in titles))
    print(json.dumps(as_json(checkup), indent=2) if options.json else report(checkup))
    if checkup.count(Mark.FIX):
        return 1
    return 2 if checkup.count(Mark.UNKNOWN) else 0


def looked_for(session: boto3.Session, name: str, checkup: Checkup) -> Deployed | None:
    """The stack of this name, if there is one that can be looked at."""
    try:
        stack = find_stack(session, name)
    except (ClientError, BotoCoreError) as error:
        checkup.add("stack", [unknown("stack", why_not(error))])
        return None
    if stack is None:
        where = f"There is no stack {name} in {checkup.region}"
        checkup.add("stack", [fix("stack", f"{where}: deploy it, or give --stack.")])
    elif not stack.outputs:
        failed = f"The stack {name} has no outputs ({stack.status})"
        checkup.add("stack", [fix("stack", f"{failed}: delete it, and deploy it again.")])
        return None
    return stack


def examined(session: boto3.Session, stack: Deployed | None, checkup: Checkup) -> Reach:
    """What the stack reaches. Adds what is found about it."""
    if stack is None:
        return reach_of_defaults(session, checkup.account)
    function = functools.cache(lambda: function_of(session, stack))
    resources = functools.cache(lambda: resources_of(session, stack))
    checkup.add("stack", StackChecks(session, stack, function, resources).findings())
    try:
        return reach_of(session, stack, function())
    except (ClientError, BotoCoreError, BadInput) as error:
        checkup.add("stack", [unknown("settings", why_not(error))])
        return reach_by_parameters(session, stack, checkup.account)


def other_stacks(session: boto3.Session, stack: Deployed, settings: Settings) -> Iterator[Finding]:
    """Other stacks of this template over the same jobs, if their rules are enabled."""
    subject, found = "other stacks", False
    for other in stacks_in(session):
        is_enabled = other.parameters.get("RuleState") != "DISABLED"
        if other.name == stack.name or not is_enabled:
            continue
        theirs = settings_from_parameters(other, settings.account, settings.region)
        if overlap(settings, theirs):
            found = True
            yield fix(
                subject,
                f"{other.name} covers the same jobs: narrow one of the stacks (ClusterArns, "
                "TaskDefinitionArns), or delete one.",
            )
    if not found:
        yield ok(subject, "No other stack covers the same jobs.")


def overlap(ours: Settings, theirs: Settings) -> bool:
    """Is there a job that both cover, as far as the one's patterns show to the other?"""
    return any(
        one.covers(cluster, task_definition)
        for one, other in ((ours, theirs), (theirs, ours))
        for cluster in other.cluster_arns
        for task_definition in other.task_definition_arns
    )


def as_json(checkup: Checkup) -> dict[str, Any]:
    """For machines (see `check --help`)."""
    return {
        "account": checkup.account,
        "region": checkup.region,
        "fix": checkup.count(Mark.FIX),
        "unknown": checkup.count(Mark.UNKNOWN),
        "findings": [
            {
                "part": part,
                "subject": finding.subject,
                "mark": finding.mark,
                "sentence": finding.sentence,
            }
            for part, found in checkup.parts.items()
            for finding in found
        ],
        "left_out": dict(checkup.left_out),
    }


def report(checkup: Checkup) -> str:
    """For people."""
    signs = SIGNS if can_show("".join(SIGNS.values())) else ASCII_SIGNS
    tables = [
        table(
            ("", part, ""),
            ((signs[f.mark], f.subject, f.sentence) for f in found),
            words=("", part),
        )
        for part, found in checkup.parts.items()
        if found
    ]
    notes = [
        line("", f"Not judged ({why}): {', '.join(titles)}.")
        for why, titles in checkup.left_out.items()
    ]
    to_fix, not_known = checkup.count(Mark.FIX), checkup.count(Mark.UNKNOWN)
    sums = [f"{to_fix:,} to fix"] if to_fix else ["Nothing to fix"]
    sums += [f"{number(not_known, 'thing')} not looked at"] if not_known else []
    head = f"{checkup.account}, {checkup.region}"
    return "\n\n".join([head, *tables, *notes, f"{', '.join(sums)}."])
