"""A fire drill: make the record of a failed call, invoke the deployed function, and follow it."""

import argparse
import copy
import itertools
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from account.chain import Chain
from account.deployed import Deployed, find_stack, function_of, resources_of
from account.finding import Finding, Mark
from account.job_checks import OVER, Call, JobChecks, call_of, next_call_at
from account.jobs import Job, rules, schedules, wanted
from account.once import once
from account.reach import Reach, reach_of
from account.runs import run_task_shape
from account.session import ERRORS, account_of, open_session, problem_of
from account.simulation import Simulation
from account.stack_checks import StackChecks
from account.terminal import confirm, say, show
from rehearsal.cloudtrail import run_task_event
from rehearsal.policies import CAPACITY
from rehearsal.records import BadInput, parse, read_bytes
from rehearsal.show import line, number
from retry_run_task.failed_call import write_time
from retry_run_task.request import NotExact, exact_request
from retry_run_task.settings import BadSetting, Settings

# What the caller of a request in a file looks like: a program that nobody knows.
AGENT = "Boto3 (made up by a drill of retry-run-task)"


def drill(options: argparse.Namespace) -> int:
    """Do what the options ask for, and print it. Returns the exit status; raises BadInput.

    BadInput means that nothing was started.
    """
    session = open_session(options.profile, options.region)
    try:
        account = account_of(session)
        stack = deployed(session, options.stack)
        call = verified_call(session, stack, options.job)
        chain = Chain(session, stack)
        chain.look()  # before anything is started
    except ERRORS as error:
        raise BadInput(f"nothing was started: {problem_of(error)}") from error
    show(f"{account}, {session.region_name}, the stack {stack.name}\n\n{line('', warning(call))}\n")
    confirm("Start it?", is_sure=options.yes)
    event = renewed(call.event, datetime.now(UTC))  # the question may have taken a while
    try:
        problem = chain.follow(event, options.timeout)
        return chain.finish(problem, options)
    except KeyboardInterrupt:  # once more, while the first is being answered
        tasks = ", ".join(chain.followed.tasks) or "none that is known"
        say(f"drill: interrupted; placed: {tasks}. {chain.search}")
        return 1


def deployed(session: boto3.Session, name: str) -> Deployed:
    """The stack of this name, which has to be there and at work; raises BadInput."""
    stack = find_stack(session, name)
    if stack is None or not stack.is_ours:
        raise BadInput(
            f"there is no stack {name} of this template in {session.region_name}: deploy it, or "
            "give --stack"
        )
    if stack.is_being_changed:
        raise BadInput(f"the stack {name} is being changed ({stack.status}): try it again later")
    return stack


def verified_call(session: boto3.Session, stack: Deployed, job: str) -> Call:
    """The call of the job, if it would be retried now.

    Raises BadInput, for all that `check` has to say against it, and what AWS raises.
    """
    function = once(lambda: function_of(session, stack))
    stack_checks = StackChecks(session, stack, function, once(lambda: resources_of(session, stack)))
    looked_at = (stack_checks.version(), stack_checks.rule(), stack_checks.function())
    for finding in itertools.chain(*looked_at):
        if finding.mark is not Mark.OK:
            raise BadInput(f"nothing was started: the {finding.subject}: {finding.sentence}")
    try:
        reach = reach_of(session, stack, function())
    except BadSetting as bad:
        raise BadInput(str(bad)) from bad
    now = datetime.now(UTC)
    call = named_call(session, job, reach.settings, now)
    refuse(session, reach, call, now)
    return call


def named_call(session: boto3.Session, job: str, settings: Settings, now: datetime) -> Call:
    """The call of a rule or schedule, or the one in a file; raises BadInput."""
    is_file = os.path.isfile(job)  # noqa: PTH113 - Path's raises for long names
    try:
        which = wanted(job)
    except BadInput:
        if is_file:
            return call_in(Path(job), settings, now)
        raise
    found: list[Job] = []
    for each in itertools.chain(rules(session, which), schedules(session, which)):
        if isinstance(each, Finding):
            raise BadInput(f"nothing was started: {each.subject}: {each.sentence}")
        found.append(each)
    if not found:
        if is_file:
            return call_in(Path(job), settings, now)
        raise BadInput(
            f"{job} is neither a rule or schedule of {session.region_name} that starts an ECS "
            "task, nor a file"
        )
    if is_file:
        problem = f"{job} is a file, and {found[0].title} as well"
        raise BadInput(f"{problem}: give ./{job} for the file, or the ARN")
    if len(found) > 1:
        titles = ", ".join(each.title for each in found)
        raise BadInput(
            f"{job} means several ({titles}): give BUS/NAME, GROUP/NAME or the ARN; of a rule with "
            "several targets, the request in a file"
        )
    try:
        return call_of(found[0], now)
    except NotExact as problem:
        raise BadInput(f"{found[0].title}: its call cannot be predicted: {problem}") from problem


def call_in(path: Path, settings: Settings, now: datetime) -> Call:
    """The call that a file's RunTask request makes; raises BadInput."""
    try:
        request = parse(read_bytes(path))
        if not isinstance(request, dict):
            raise NotExact("the file", "holds no RunTask request")
        request = exact_request(request, run_task_shape())
    except (BadInput, NotExact) as problem:
        raise BadInput(f"{path}: {problem}") from problem
    event = run_task_event(
        request,
        {"tasks": [], "failures": [{"reason": CAPACITY}]},
        event_id=str(uuid.uuid4()),
        moment=now,
        region=settings.region,
        account=settings.account,
        role_arn=f"arn:{settings.partition}:iam::{settings.account}:role/drill",
        session="drill",
        user_agent=AGENT,
    )
    return Call(title=str(path), request=request, event=event)


def refuse(session: boto3.Session, reach: Reach, call: Call, now: datetime) -> None:
    """Raises BadInput for a call that would not be retried, or of which that is not known.

    What the policies allow may stay unknown: that is said.
    """
    checks = JobChecks(session, reach, Simulation(session))
    why: str | list[Finding] = checks.of_call(call)
    if call.job is not None and next_call_at(call.job, now) is None:
        why = OVER
    if isinstance(why, str):
        raise BadInput(f"{call.title} is not retried ({why}): nothing was started")
    for finding in why:
        if finding.mark is Mark.FIX or finding.subject in (call.title, "pattern"):
            raise BadInput(f"{finding.subject}: {finding.sentence} Nothing was started")
        say(f"drill: {finding.subject}: {finding.sentence}")


def warning(call: Call) -> str:
    """What is about to happen."""
    count = number(call.request.get("count", 1), "task")
    task = call.request["taskDefinition"].rpartition("/")[2]
    cluster = (call.request.get("cluster") or "default").rpartition("/")[2]
    off = "" if call.job is None or call.job.is_enabled else " It is disabled otherwise."
    return (
        f"This really starts {call.title}: {count} of {task} in the cluster {cluster}, as its call "
        f"does, whether or not it runs already.{off} If an attempt fails, it is retried as in an "
        "emergency, and people are alerted if the job is lost."
    )


def renewed(event: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    """The event as if it were of a call at this moment."""
    event_id, time = str(uuid.uuid4()), write_time(moment)
    new = copy.deepcopy(dict(event))
    new |= {"id": f"envelope-of-{event_id}", "time": time}
    new["detail"] |= {"eventID": event_id, "eventTime": time}
    return new
