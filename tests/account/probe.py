"""The probe: what ECS and CloudTrail do with a RunTask call that places nothing.

AWS documents none of it. A request that no container instance can hold is sent twice under one
client token: nothing starts, and nothing is paid for.
"""

import argparse
import json
import time
import uuid
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from account import probe_report
from account.chain_log import SKEW, entries, outcomes_of
from account.deployed import find_stack
from account.event_history import CLIENT_CONFIG, event_history
from account.probe_report import Answer, Probed
from account.session import (
    ERRORS,
    ONE_TRY,
    account_of,
    client_of,
    code_of,
    open_session,
    problem_of,
)
from account.terminal import confirm, say, show
from rehearsal.records import BadInput
from rehearsal.show import line
from retry_run_task.chain import MAX_ATTEMPTS_TAG
from retry_run_task.failed_call import read_time
from retry_run_task.transient import transient

# Between two looks. CloudTrail has a call in its Event history about five minutes later (CloudTrail
# user guide, "Viewing CloudTrail Event history"; LookupEvents takes two calls a second).
PAUSE = timedelta(seconds=15)

# How much longer than the record the event may take to the function's log.
LATER = timedelta(minutes=5)

# AWS's own capacity providers, which are none of EC2.
FARGATE = {"FARGATE", "FARGATE_SPOT"}

# The most CPU units that a task can be given (RunTask, overrides `cpu`): 192 vCPU. That a container
# can be given as many is a guess.
TOO_MUCH = 196_608


def probe(options: argparse.Namespace) -> int:
    """Do what the options ask for, and print the report. Returns the exit status; raises BadInput.

    BadInput means that nothing was asked of ECS.
    """
    session = open_session(options.profile, options.region)
    ecs = client_of(session, "ecs", config=ONE_TRY)
    cloudtrail = client_of(session, "cloudtrail", config=CLIENT_CONFIG)
    try:
        account_of(session)
        request = impossible_request(ecs, *options.probe)
        cloudtrail.lookup_events(MaxResults=1)  # before anything is asked
    except ERRORS as error:
        raise BadInput(f"nothing was asked of ECS: {problem_of(error)}") from error
    show(line("", "This asks ECS, twice, for a task that no container instance can hold."))
    confirm("Ask?", is_sure=options.yes)
    probed = Probed(datetime.now(UTC))
    try:
        ask_twice(ecs, request, probed)
        if probed.has_failed:
            watch(session, options, request, cloudtrail, probed)
    except KeyboardInterrupt:
        say("drill: interrupted: this is what was seen until then")
    except ERRORS as error:
        say(f"drill: {problem_of(error)}")
    try:
        has_started_nothing = stop_all(ecs, request, probed)
        facts = probe_report.facts_of(probed, request)
        title = f"A probe of retry-run-task, {probed.began:%Y-%m-%d}, {session.region_name}"
        show(f"\n{probe_report.report(title, facts)}\n")
    except KeyboardInterrupt:  # once more
        say(f"drill: interrupted. {look_for(request)}")
        return 1
    return 0 if has_started_nothing and probed.is_complete else 1


def impossible_request(ecs: Any, cluster: str, task_definition: str) -> dict[str, Any]:
    """A request that no instance of the cluster can hold; raises BadInput if that is not sure."""
    found = ecs.describe_clusters(clusters=[cluster])["clusters"]
    if not found or found[0]["status"] != "ACTIVE":
        raise BadInput(f"there is no active cluster {cluster}")
    refuse_scaling(ecs, cluster, found[0].get("capacityProviders", []))
    largest = max(cpus_of(ecs, cluster), default=0)
    if not 0 < largest < TOO_MUCH:
        nothing = "no active container instance of EC2"
        problem = nothing if not largest else "an instance that is too large"
        raise BadInput(f"{cluster} has {problem}: take another cluster")
    described = ecs.describe_task_definition(taskDefinition=task_definition)["taskDefinition"]
    system = described.get("runtimePlatform", {}).get("operatingSystemFamily", "LINUX")
    if (
        described.get("status") != "ACTIVE"
        or described.get("networkMode") == "awsvpc"
        or "EC2" not in described.get("compatibilities", [])
        # Of Windows, ECS ignores what a whole task is limited to (RegisterTaskDefinition `cpu`).
        or system != "LINUX"
    ):
        problem = "is not active, or not for EC2 and Linux without network mode awsvpc"
        raise BadInput(f"{task_definition} {problem}: take another task definition")
    container: dict[str, Any] = {
        "name": described["containerDefinitions"][0]["name"],
        "environment": [],
    }
    # Where the task definition limits the whole task, that limit is what is overridden.
    has_limit = bool(described.get("cpu"))
    overrides = {"cpu": str(TOO_MUCH)} if has_limit else {}
    own = {} if has_limit else {"cpu": TOO_MUCH}
    return {
        "cluster": cluster,
        "taskDefinition": task_definition,
        "launchType": "EC2",  # no capacity provider, which could scale
        "startedBy": f"retry-run-task-probe/{uuid.uuid4().hex[:8]}",
        "clientToken": str(uuid.uuid4()),
        "placementConstraints": [],
        "overrides": {**overrides, "containerOverrides": [container | own]},
        # No stack retries it.
        "tags": [{"key": MAX_ATTEMPTS_TAG, "value": "0"}],
    }


def refuse_scaling(ecs: Any, cluster: str, providers: Sequence[str]) -> None:
    """Raises BadInput for a cluster that scales, or of which that is not sure."""
    left = set(providers) - FARGATE
    page: dict[str, Any] = {"nextToken": None}
    while left and "nextToken" in page:
        token = {"nextToken": page["nextToken"]} if page["nextToken"] else {}
        # That this gives all providers of the cluster is a guess; one that is missing is refused.
        page = ecs.describe_capacity_providers(cluster=cluster, **token)
        for provider in page["capacityProviders"]:
            group = provider.get("autoScalingGroupProvider")
            if group and group.get("managedScaling", {}).get("status") != "ENABLED":
                left.discard(provider["name"])
    if left:
        raise BadInput(f"{cluster} may scale ({', '.join(sorted(left))}): take another cluster")


def cpus_of(ecs: Any, cluster: str) -> Iterator[int]:
    """The CPU units of each container instance of EC2 that takes tasks."""
    pages = ecs.get_paginator("list_container_instances").paginate(cluster=cluster, status="ACTIVE")
    for page in pages:
        if not page["containerInstanceArns"]:
            continue
        described = ecs.describe_container_instances(
            cluster=cluster, containerInstances=page["containerInstanceArns"]
        )
        for instance in described["containerInstances"]:
            names = {attribute["name"] for attribute in instance.get("attributes", [])}
            if "ecs.capability.external" in names or not instance.get("agentConnected"):
                continue
            for resource in instance["registeredResources"]:
                if resource["name"] == "CPU":
                    yield resource["integerValue"]


def ask_twice(ecs: Any, request: dict[str, Any], probed: Probed) -> None:
    """The second time only if the first was as it should be. Says what is not."""
    ask(ecs, request, probed)
    if probed.has_failed:
        ask(ecs, request | {"group": "retry-run-task-probe"}, probed)
    else:
        (first,) = probed.answers
        problem = first.problem or "a task has started"
        say(f"drill: the first call did not fail as it should: {problem}")


def ask(ecs: Any, request: Mapping[str, Any], probed: Probed) -> None:
    """One RunTask call, of which the answer is kept."""
    called_at = datetime.now(UTC)
    try:
        answer = ecs.run_task(**request)
        given = Answer(
            called_at,
            answer["ResponseMetadata"].get("RequestId", ""),
            tasks=tuple(task["taskArn"] for task in answer["tasks"]),
            failures=tuple(answer["failures"]),
        )
    except ClientError as error:
        response: dict[str, Any] = {**error.response}
        request_id = response.get("ResponseMetadata", {}).get("RequestId", "")
        code, bound = code_of(error), response.get("resourceIds")
        given = Answer(called_at, request_id, error=code, bound=bound, problem=problem_of(error))
    except ERRORS as error:
        given = Answer(
            called_at, "", error=type(error).__name__, problem=problem_of(error), is_lost=True
        )
    except KeyboardInterrupt:
        probed.answers.append(
            Answer(called_at, "", error="interrupted", problem="interrupted", is_lost=True)
        )
        raise
    probed.answers.append(given)


def stop_all(ecs: Any, request: Mapping[str, Any], probed: Probed) -> bool:
    """Stop what should not have started. Has nothing started, as far as is known?"""
    started = [task for answer in probed.answers for task in answer.tasks]
    for task in started:
        try:
            ecs.stop_task(
                cluster=request["cluster"], task=task, reason="Placed by a probe of retry-run-task"
            )
            say(f"drill: a task has started, and is stopped: {task}")
        except ERRORS as error:
            say(f"drill: a task has started: stop {task} by hand ({problem_of(error)})")
    is_lost = any(answer.is_lost for answer in probed.answers)
    if is_lost:
        say(f"drill: a call was not answered. {look_for(request)}")
    return not started and not is_lost


def look_for(request: Mapping[str, Any]) -> str:
    """How to find a task that has started after all."""
    command = f"aws ecs list-tasks --cluster {request['cluster']} --started-by"
    return f"See that nothing runs: `{command} {request['startedBy']}`"


def watch(
    session: boto3.Session,
    options: argparse.Namespace,
    request: Mapping[str, Any],
    cloudtrail: Any,
    probed: Probed,
) -> None:
    """Wait for the records, and for the event; raises what AWS raises."""
    until = probed.began + options.timeout
    wait_for_records(cloudtrail, probed, until)
    stack = find_stack(session, options.stack)
    if stack is None or not stack.is_ours:
        say(f"drill: there is no stack {options.stack}, whose log would show when the event came")
        return
    pattern, group = outcomes_of("startedBy", request["startedBy"]), stack.outputs["LogGroupName"]
    until = min(until, datetime.now(UTC) + LATER)
    logs = client_of(session, "logs")
    for entry in entries(logs, group, pattern, probed.began, until):
        probed.arrived = read_time(entry.line.get("time")) or entry.moment
        return
    say("drill: the stack's log has no outcome of the call")


def wait_for_records(cloudtrail: Any, probed: Probed, until: datetime) -> None:
    """Until CloudTrail's Event history has the records of the calls, or the time is over."""
    wanted = {answer.request_id for answer in probed.answers} - {""}
    while True:
        now = datetime.now(UTC)
        try:
            look(cloudtrail, probed, wanted, now)
        except (ClientError, BotoCoreError) as error:
            if transient(error) is None or now >= until:
                raise
        if probed.answers[0].request_id in probed.records:
            probed.seen = probed.seen or now
        if len(probed.records) == len(wanted):
            return
        if now >= until:
            say("drill: not all records came in time: --timeout makes it longer")
            return
        time.sleep(min(PAUSE, until - now).total_seconds())


def look(cloudtrail: Any, probed: Probed, wanted: Container[str], now: datetime) -> None:
    """Keep the records of the calls, as far as they are there."""
    for page in event_history(cloudtrail, probed.began - SKEW, now + SKEW):
        for event in page:
            record = json.loads(event["CloudTrailEvent"])
            # That it is the identifier which the answer's header has, is a guess.
            if record.get("requestID") in wanted:
                probed.records[record["requestID"]] = record
        if len(probed.records) == len(probed.answers):
            return
