"""A fire drill: make the record of a failed call, invoke the deployed function, and follow it."""

import argparse
import json
import logging
import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from rich.prompt import Confirm

from account.chain_log import Entry, chain_of, entries
from account.deployed import Deployed, find_stack, function_of
from account.finding import Mark
from account.job_checks import Call, JobChecks, call_of
from account.jobs import rules, schedules, wanted
from account.reach import reach_of
from account.runs import run_task_shape
from account.session import ERRORS, account_of, client_of, open_session, problem_of
from account.terminal import say
from rehearsal.cloudtrail import run_task_event
from rehearsal.policies import CAPACITY
from rehearsal.records import BadInput, parse, read_bytes
from rehearsal.show import elapsed, line, number
from rehearsal.template import Stack
from retry_run_task.chain import origin_of
from retry_run_task.outcome import Outcome
from retry_run_task.request import NotExact, exact_request
from retry_run_task.settings import Settings

# What the caller of a request in a file looks like: a program that nobody knows.
AGENT = "Boto3 (made up by a drill of retry-run-task)"

LAUNCHED = (Outcome.LAUNCHED, Outcome.ALREADY_LAUNCHED)
GOES_ON = (Outcome.FAILED_AGAIN, Outcome.SCHEDULED, Outcome.ALREADY_SCHEDULED)

# Where nobody knows the identifier of the invocation's request.
NO_REQUEST = "unknown"

# The width of "+0:00:03  " in front of what is printed of an outcome.
INDENT = 11


@dataclass(slots=True)
class Followed:
    """What the log has shown of the chain: its last outcome, its tasks, and what came back.

    `came_back`: an outcome was that of another event than the one which the drill has made up.
    """

    last: Outcome | None = None
    tasks: tuple[str, ...] = ()
    cluster: str = ""
    came_back: bool = False


def drill(options: argparse.Namespace) -> int:
    """Do what the options ask for, and print it. Returns the exit status; raises BadInput."""
    # What is wrong with a profile is said here, in a line.
    logging.getLogger("botocore").addHandler(logging.NullHandler())
    session = open_session(options.profile, options.region)
    try:
        account = account_of(session)
        stack = deployed(session, options.stack)
        function = function_of(session, stack)
        reach = reach_of(session, stack, function)
        now = datetime.now(UTC)
        call = named_call(session, options.job, reach.settings, now)
        refuse(JobChecks(session, reach), call)
    except (ClientError, BotoCoreError) as error:
        raise BadInput(f"nothing was started: {problem_of(error)}") from error
    print(f"{account}, {session.region_name}, the stack {stack.name}\n")
    print(line("", warning(call)))
    confirm("Start it?", is_sure=options.yes)
    followed, problem = Followed(), ""
    try:
        request_id = invoke(session, function["FunctionArn"], call.event)
        follow(session, stack, call, request_id, now, now + options.timeout, followed)
    except KeyboardInterrupt:
        problem = "Interrupted. The job goes on: see the function's log."
    except ERRORS as error:
        problem = f"The log cannot be read: {problem_of(error)}. The job goes on."
    print(f"\n{line('', problem or verdict(followed, options))}")
    is_stopped = stop(session, followed) if options.stop else True
    print(f"\n{line('', not_verified(followed))}")
    return 0 if followed.last in LAUNCHED and is_stopped else 1


def deployed(session: boto3.Session, name: str) -> Deployed:
    """The stack of this name, which has to be there; raises BadInput."""
    stack = find_stack(session, name)
    if stack is None or not stack.outputs:
        raise BadInput(
            f"there is no stack {name} in {session.region_name}: deploy it, or give --stack"
        )
    return stack


def named_call(session: boto3.Session, job: str, settings: Settings, now: datetime) -> Call:
    """The call of a rule or schedule, or the one in a file; raises BadInput."""
    if os.path.isfile(job):  # noqa: PTH113 - Path's raises for long names
        return call_in(Path(job), settings, now)
    which = wanted(job)
    found = [*rules(session, which), *schedules(session, which)]
    if not found:
        raise BadInput(
            f"{job}: no rule or schedule of this name starts an ECS task, and no file is it"
        )
    if len(found) > 1:
        titles = ", ".join(each.title for each in found)
        raise BadInput(
            f"{job} is the name of several ({titles}): give BUS/NAME, GROUP/NAME or the ARN, or "
            "the request in a file"
        )
    try:
        return call_of(found[0], now)
    except NotExact as problem:
        raise BadInput(f"{found[0].title}: its call cannot be predicted: {problem}") from problem


def call_in(path: Path, settings: Settings, now: datetime) -> Call:
    """The call that a file's RunTask request makes; raises BadInput."""
    request = parse(read_bytes(path))
    try:
        if not isinstance(request, dict):
            raise NotExact("the file", "holds no RunTask request")
        request = exact_request(request, run_task_shape())
    except NotExact as problem:
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


def refuse(checks: JobChecks, call: Call) -> None:
    """Raises BadInput for a call that would not be retried; says what is not known."""
    if why := checks.why_left_out(call):
        raise BadInput(f"{call.title} is not retried ({why}): nothing was started")
    for finding in checks.of_call(call):
        if finding.mark is Mark.FIX:
            raise BadInput(f"{finding.subject}: {finding.sentence} Nothing was started")
        say(f"drill: {finding.subject}: {finding.sentence}")


def warning(call: Call) -> str:
    """What is about to happen."""
    count = call.request.get("count", 1)
    return (
        f"This really starts {call.title}: {number(count, 'task')} of "
        f"{call.request['taskDefinition'].rpartition('/')[2]} in the cluster "
        f"{call.request.get('cluster', 'default').rpartition('/')[2]}, as its call does, and "
        "whether or not it runs already."
    )


def confirm(question: str, *, is_sure: bool) -> None:
    """Raises BadInput unless a person says yes, or has said so."""
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise BadInput("nothing was started: give --yes where no terminal can be asked")
    try:
        is_sure = Confirm.ask(question, default=False)
    except EOFError:
        is_sure = False
    if not is_sure:
        raise BadInput("nothing was started")


def invoke(session: boto3.Session, function_arn: str, event: Mapping[str, Any]) -> str:
    """Invoke the function as EventBridge does; the identifier of its request.

    Raises BadInput where Lambda does not take the event.
    """
    try:
        answer = client_of(session, "lambda").invoke(
            FunctionName=function_arn, InvocationType="Event", Payload=json.dumps(event)
        )
    except ClientError as error:
        raise BadInput(f"nothing was started: {problem_of(error)}") from error
    except BotoCoreError as error:
        say(f"drill: no answer to Invoke ({error}): the function may run all the same")
        return NO_REQUEST
    request_id: str = answer["ResponseMetadata"]["RequestId"]
    return request_id


def follow(
    session: boto3.Session,
    stack: Deployed,
    call: Call,
    request_id: str,
    since: datetime,
    until: datetime,
    followed: Followed,
) -> None:
    """Print each line of the chain, until it ends or the time is over."""
    detail = call.event["detail"]
    token = detail["requestParameters"].get("clientToken")
    pattern = chain_of(origin_of(detail["eventID"], token), request_id)
    invocations = Stack().function["EventInvokeConfig"]["MaximumRetryAttempts"] + 1
    logs, group = client_of(session, "logs"), stack.outputs["LogGroupName"]
    for entry in entries(logs, group, pattern, since, until):
        print(shown(entry, since), flush=True)
        if entry.error:
            invocations -= 1
            if not invocations:
                return
            continue
        outcome = Outcome(entry.line["outcome"])
        followed.came_back |= entry.line.get("event") != detail["eventID"]
        followed.last = outcome
        followed.cluster = str(entry.line.get("cluster", ""))
        followed.tasks += tuple(entry.line.get("tasks", []))
        if outcome not in GOES_ON:
            return


def shown(entry: Entry, since: datetime) -> str:
    """One line of the timeline."""
    before = f"+{elapsed(entry.moment - since)}".ljust(INDENT)
    if entry.error:
        return line(before, f"The function failed: {entry.error}")
    said = entry.line
    text = f"{said['outcome']}, attempt {said['attempt']}"
    return line(before, f"{text}: {said['detail']}" if said.get("detail") else text)


def verdict(followed: Followed, options: argparse.Namespace) -> str:
    """How it ended."""
    if followed.last in LAUNCHED:
        return f"Launched: {', '.join(followed.tasks) or 'by an earlier invocation'}."
    if followed.last is None:
        return "Not launched: the log shows no outcome. Errors of the function stand above."
    if followed.last in GOES_ON:
        more = " Its task will not be stopped then." if options.stop else ""
        return f"Not launched within {elapsed(options.timeout)}: the retries go on.{more}"
    return "Not launched: the chain has ended, and a dead letter may be in the archive."


def stop(session: boto3.Session, followed: Followed) -> bool:
    """Stop the tasks that were placed. Could all be stopped?"""
    is_stopped = followed.last is not Outcome.ALREADY_LAUNCHED
    if not is_stopped:
        say("drill: the log does not name the task: stop it by hand")
    for task in followed.tasks:
        try:
            client_of(session, "ecs").stop_task(
                cluster=followed.cluster, task=task, reason="Placed by a drill of retry-run-task"
            )
        except (*ERRORS, BadInput) as error:
            say(f"drill: {task} was not stopped: {problem_of(error)}")
            is_stopped = False
        else:
            print(line("", f"Stopped: {task}."))
    return is_stopped


def not_verified(followed: Followed) -> str:
    """What a drill does not show."""
    if followed.came_back:
        return (
            "An attempt failed, and its own event came back: CloudTrail, the rule and the "
            "function are connected."
        )
    return (
        "Not verified: that CloudTrail sends the event of a failed call to the rule, and that the "
        "rule invokes the function. `uv run check` looks at both."
    )
