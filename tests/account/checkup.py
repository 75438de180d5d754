"""Check: look at the trail, the stack and each job, and print what is to be fixed."""

import argparse
import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from account import permissions
from account.deployed import (
    Deployed,
    find_stack,
    function_of,
    resources_of,
    settings_from_parameters,
    stacks_in,
)
from account.finding import Finding, Mark, fix, is_gone, looked, ok, unknown, why_not
from account.job_checks import OUTSIDE, JobChecks
from account.jobs import Job, rules, schedules, wanted
from account.once import once
from account.reach import Reach, reach_by_parameters, reach_of, reach_of_defaults
from account.session import account_of, open_session
from account.simulation import Simulation
from account.stack_checks import StackChecks
from account.terminal import progress_bar
from account.trails import trail_findings
from rehearsal.records import BadInput
from rehearsal.show import can_show, line, number, table
from retry_run_task.settings import BadSetting, Settings

# What of the stack has to work for any call to be retried.
NEEDED = ("rule", "pattern", "resource policy", "function", "layer", "settings")

# A stack in one of these has nothing, and cannot be deployed again as it is.
NEVER_MADE = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED")

SIGNS = {Mark.OK: "✔", Mark.FIX: "✘", Mark.UNKNOWN: "?"}
ASCII_SIGNS = {Mark.OK: "+", Mark.FIX: "x", Mark.UNKNOWN: "?"}


@dataclass(slots=True)
class Checkup:
    """The findings of each part, each once, and which jobs were not judged, by the reason."""

    account: str
    region: str
    parts: dict[str, list[Finding]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

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
    which = wanted(options.job)
    session = open_session(options.profile, options.region)
    checkup = Checkup(account_of(session), str(session.region_name))
    with progress_bar() as progress:
        bar = progress.add_task("trail", total=None)
        checkup.add("trail", looked("CloudTrail", trail_findings(session)))
        progress.update(bar, description="stack")
        stack = found_stack(session, options.stack, checkup)
        reach = examined(session, stack, checkup)
        simulation = Simulation(session)
        checks = JobChecks(session, reach, simulation)
        if reach.role_arn is not None:
            policy = permissions.of_function(simulation, reach.settings, reach.role_arn)
            checkup.add("stack", looked("policy", policy))
        if stack is not None:
            others = other_stacks(session, stack, reach.settings)
            checkup.add("stack", looked("other stacks", others))
        jobs = 0
        for job in chain(rules(session, which), schedules(session, which)):
            if isinstance(job, Finding):
                checkup.add("jobs", [job])
                continue
            progress.update(bar, description=job.title)
            jobs += 1
            judge(checkup, checks, job)
    if options.job and not jobs and "jobs" not in checkup.parts:
        where = f"in {checkup.region} of account {checkup.account}"
        raise BadInput(f"no rule or schedule {options.job} starts an ECS task {where}")
    if options.job:
        say_why_left_out(checkup)
    elif "jobs" not in checkup.parts and not checkup.left_out:
        checkup.add("jobs", [ok("jobs", "No rule or schedule of this Region starts an ECS task.")])
    print(json.dumps(as_json(checkup), indent=2) if options.json else report(checkup))
    if checkup.count(Mark.FIX):
        return 1
    return 2 if checkup.count(Mark.UNKNOWN) else 0


def judge(checkup: Checkup, checks: JobChecks, job: Job) -> None:
    """Add what there is to say about a job."""
    try:
        found = checks.of_job(job, datetime.now(UTC))
    except (ClientError, BotoCoreError, OSError, BadInput) as error:
        found = [unknown(job.title, why_not(error))]
    if isinstance(found, str):
        checkup.left_out.setdefault(found, []).append(job.title)
    else:
        checkup.add("jobs", found)


def say_why_left_out(checkup: Checkup) -> None:
    """Who asks for one job wants to know, even where nothing is wrong with it."""
    for why, titles in checkup.left_out.items():
        if why == OUTSIDE:
            way_out = "widen the stack, or give --stack with another one"
            checkup.add("jobs", (fix(t, f"It is not retried ({why}): {way_out}.") for t in titles))
        else:
            checkup.add("jobs", (ok(t, f"It is not retried: {why}.") for t in titles))


def found_stack(session: boto3.Session, name: str, checkup: Checkup) -> Deployed | None:
    """The stack of this name, if it can be looked at. Adds why, if it cannot."""
    try:
        stack = find_stack(session, name)
        if stack is None:
            here = sorted(other.name for other in stacks_in(session))
            known = f" ({', '.join(here)})" if here else ""
            where = f"There is no stack {name} in {checkup.region}"
            checkup.add("stack", [fix("stack", f"{where}: deploy it, or give --stack{known}.")])
            return None
    except (ClientError, BotoCoreError) as error:
        checkup.add("stack", [unknown("stack", why_not(error))])
        return None
    if stack.is_ours:
        return stack
    if stack.is_being_changed:
        problem = f"The stack {name} is being made ({stack.status}): look again later."
        checkup.add("stack", [unknown("stack", problem)])
    elif stack.status in NEVER_MADE:
        problem = f"The stack {name} could not be made ({stack.status})"
        checkup.add("stack", [fix("stack", f"{problem}: delete it, and deploy it again.")])
    else:
        problem = f"The stack {name} is not one of this template: give --stack."
        checkup.add("stack", [fix("stack", problem)])
    return None


def examined(session: boto3.Session, stack: Deployed | None, checkup: Checkup) -> Reach:
    """What the stack reaches. Adds what is found about it."""
    if stack is None:
        return reach_of_defaults(session, checkup.account)
    function = once(lambda: function_of(session, stack))
    resources = once(lambda: resources_of(session, stack))
    checkup.add("stack", StackChecks(session, stack, function, resources).findings())
    reach = None
    try:
        reach = reach_of(session, stack, function())
    except BadSetting as bad:
        checkup.add("stack", [fix("settings", f"The function cannot run: {bad}")])
    except (ClientError, BotoCoreError, BadInput) as error:
        if not is_gone(error):  # which is said already
            checkup.add("stack", [unknown("settings", why_not(error))])
    reach = reach or reach_by_parameters(session, stack, checkup.account)
    found = checkup.parts["stack"]
    is_broken = any(each.mark is Mark.FIX and each.subject in NEEDED for each in found)
    return replace(reach, how=", once the stack is in order") if is_broken else reach


def other_stacks(session: boto3.Session, stack: Deployed, settings: Settings) -> Iterator[Finding]:
    """Other stacks of this template over the same jobs, if their rules are enabled."""
    subject, found = "other stacks", False
    for other in stacks_in(session):
        if other.name == stack.name or other.parameters.get("RuleState") == "DISABLED":
            continue
        theirs = settings_from_parameters(other, settings.account, settings.region)
        if overlap(settings, theirs):
            found = True
            yield fix(
                subject,
                f"{other.name} may cover the same jobs: narrow one of the stacks (ClusterArns, "
                "TaskDefinitionArns), or delete one.",
            )
    if not found:
        yield ok(subject, "No other stack covers the same jobs.")


def overlap(ours: Settings, theirs: Settings) -> bool:
    """Could there be a job that both cover?"""
    return all(
        any(meet(one, other) for one in mine for other in others)
        for mine, others in (
            (ours.cluster_arns, theirs.cluster_arns),
            (ours.task_definition_arns, theirs.task_definition_arns),
        )
    )


@functools.cache
def meet(one: str, other: str) -> bool:
    """Is there a text that both patterns (with * and ?) match?"""
    if not one or not other:
        return not (one + other).strip("*")
    if "*" in (one[0], other[0]):
        return meet(one[1:], other) or meet(one, other[1:])
    return ("?" in (one[0], other[0]) or one[0] == other[0]) and meet(one[1:], other[1:])


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
