"""The probe: what ECS and CloudTrail do with a RunTask call that places nothing.

AWS documents none of it. A request that no container instance can hold is sent twice under one
client token: nothing starts, and nothing is paid for.
"""

import argparse
import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from account import probe_report
from account.chain_log import SKEW, entries, outcomes_of
from account.deployed import find_stack
from account.event_history import CLIENT_CONFIG, event_history
from account.probe_report import Answer
from account.session import ERRORS, account_of, client_of, open_session, problem_of
from account.terminal import confirm, say, show
from rehearsal.records import BadInput
from rehearsal.show import line
from retry_run_task.chain import MAX_ATTEMPTS_TAG
from retry_run_task.failed_call import read_time

# A call that the SDK repeats would be one more than the report is about.
ONE_TRY = Config(retries={"mode": "standard", "total_max_attempts": 1})

# Between two looks. CloudTrail has a call in its Event history about five minutes later (CloudTrail
# user guide, "Viewing CloudTrail Event history"; LookupEvents takes two calls a second).
PAUSE = timedelta(seconds=15)

# How much longer than the record the event may take to the function's log.
LATER = timedelta(minutes=5)

# The most CPU units that a task can be given (RunTask, overrides `cpu`): 192 vCPU.
TOO_MUCH = 196_608


@dataclass(slots=True)
class Probed:
    """What is known so far: the records by their requests' identifiers, and two durations.

    `seen` is when the Event history had the first call's record, and `arrived` when the deployed
    function had its event.
    """

    answers: tuple[Answer, ...]
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    seen: datetime | None = None
    arrived: datetime | None = None


def probe(options: argparse.Namespace) -> int:
    """Do what the options ask for, and print the report. Returns the exit status; raises BadInput.

    BadInput means that nothing was asked of ECS. The status is 1 if anything has started, or if not
    all could be seen in time.
    """
    # What is wrong with a profile is said here, in a line.
    logging.getLogger("botocore").addHandler(logging.NullHandler())
    session = open_session(options.profile, options.region)
    ecs = client_of(session, "ecs", config=ONE_TRY)
    cloudtrail = client_of(session, "cloudtrail", config=CLIENT_CONFIG)
    try:
        account = account_of(session)
        request = impossible_request(ecs, *options.probe)
        cloudtrail.lookup_events(MaxResults=1)  # while nothing is asked yet
    except (ClientError, BotoCoreError) as error:
        raise BadInput(f"nothing was asked of ECS: {problem_of(error)}") from error
    show(line("", "This asks ECS, twice, for a task that no container instance can hold."))
    confirm("Ask?", is_sure=options.yes)
    first = ask(ecs, request)
    answers: tuple[Answer, ...] = (first,)
    if first.has_failed:
        answers += (ask(ecs, request | {"startedBy": f"{request['startedBy']}-2"}),)
    else:
        say(f"drill: the first call did not fail as it should: {first.problem or 'it has started'}")
    is_clean = stop_all(ecs, request["cluster"], answers)
    probed = Probed(answers)
    try:
        watch(session, options, request, cloudtrail, probed)
    except KeyboardInterrupt:
        say("drill: interrupted: this is what was seen until then")
    except ERRORS as error:
        say(f"drill: {problem_of(error)}")
    facts = probe_report.facts_of(answers, probed.records, request)
    facts |= probe_report.durations_of(first, probed.records, probed.arrived, probed.seen)
    names = {account: "111122223333", request["cluster"].rpartition("/")[2]: "CLUSTER"}
    title = f"A probe of retry-run-task, {first.called_at:%Y-%m-%d}, {session.region_name}"
    show(f"\n{probe_report.report(title, facts, names)}\n")
    return 0 if is_clean and len(answers) == len(probed.records) == 2 else 1


def impossible_request(ecs: Any, cluster: str, task_definition: str) -> dict[str, Any]:
    """A request that no instance of the cluster can hold; raises BadInput if that is not sure."""
    found = ecs.describe_clusters(clusters=[cluster])["clusters"]
    if not found or found[0]["status"] != "ACTIVE":
        raise BadInput(f"there is no active cluster {cluster}")
    refuse_scaling(ecs, cluster, found[0].get("capacityProviders", []))
    largest = max(cpus_of(ecs, cluster), default=0)
    if not 0 < largest < TOO_MUCH:
        problem = "no container instance on EC2" if not largest else "an instance that is too large"
        raise BadInput(f"{cluster} has {problem}: take another cluster")
    described = ecs.describe_task_definition(taskDefinition=task_definition)["taskDefinition"]
    system = described.get("runtimePlatform", {}).get("operatingSystemFamily", "LINUX")
    if (
        described.get("networkMode") == "awsvpc"
        or "EC2" not in described.get("compatibilities", [])
        # Of Windows, ECS ignores what a whole task is limited to (RegisterTaskDefinition `cpu`).
        or system != "LINUX"
    ):
        problem = "is not for EC2 and Linux, without network mode awsvpc"
        raise BadInput(f"{task_definition} {problem}: take another task definition")
    container: dict[str, Any] = {
        "name": described["containerDefinitions"][0]["name"],
        "environment": [],
    }
    # A task that has a limit takes no container above it.
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
    """Raises BadInput for a cluster that scales."""
    if not providers:
        return
    described = ecs.describe_capacity_providers(capacityProviders=list(providers))
    for provider in described["capacityProviders"]:
        group = provider.get("autoScalingGroupProvider", {})
        scales = group.get("managedScaling", {}).get("status") == "ENABLED"
        if scales or "managedInstancesProvider" in provider:
            raise BadInput(f"{cluster} scales ({provider['name']}): take another cluster")


def cpus_of(ecs: Any, cluster: str) -> Iterator[int]:
    """The CPU units of each container instance that is one of EC2."""
    pages = ecs.get_paginator("list_container_instances").paginate(cluster=cluster)
    for page in pages:
        if not page["containerInstanceArns"]:
            continue
        described = ecs.describe_container_instances(
            cluster=cluster, containerInstances=page["containerInstanceArns"]
        )
        for instance in described["containerInstances"]:
            names = {attribute["name"] for attribute in instance.get("attributes", [])}
            if "ecs.capability.external" in names:
                continue
            for resource in instance["registeredResources"]:
                if resource["name"] == "CPU":
                    yield resource["integerValue"]


def ask(ecs: Any, request: Mapping[str, Any]) -> Answer:
    """One RunTask call."""
    called_at = datetime.now(UTC)
    try:
        answer = ecs.run_task(**request)
    except ClientError as error:
        response: dict[str, Any] = {**error.response}
        request_id = response["ResponseMetadata"].get("RequestId", "")
        code, bound = response["Error"].get("Code", ""), response.get("resourceIds")
        return Answer(called_at, request_id, error=code, bound=bound, problem=problem_of(error))
    except BotoCoreError as error:
        name = type(error).__name__
        return Answer(called_at, "", error=name, problem=problem_of(error))
    return Answer(
        called_at,
        answer["ResponseMetadata"]["RequestId"],
        tasks=tuple(task["taskArn"] for task in answer["tasks"]),
        failures=tuple(answer["failures"]),
    )


def stop_all(ecs: Any, cluster: str, answers: Sequence[Answer]) -> bool:
    """Stop what should not have started. Has nothing started?"""
    started = [task for answer in answers for task in answer.tasks]
    for task in started:
        try:
            ecs.stop_task(cluster=cluster, task=task, reason="Placed by a probe of retry-run-task")
            say(f"drill: a task has started, and is stopped: {task}")
        except (ClientError, BotoCoreError) as error:
            say(f"drill: a task has started: stop {task} by hand ({problem_of(error)})")
    return not started


def watch(
    session: boto3.Session,
    options: argparse.Namespace,
    request: Mapping[str, Any],
    cloudtrail: Any,
    probed: Probed,
) -> None:
    """Wait for the records, and for the event; raises what AWS raises."""
    until = probed.answers[0].called_at + options.timeout
    wait_for_records(cloudtrail, probed, until)
    if not probed.answers[0].has_failed:  # no rule matches it
        return
    stack = find_stack(session, options.stack)
    if stack is None or not stack.is_ours:
        say(f"drill: there is no stack {options.stack}, whose log would tell when the event came")
        return
    pattern, group = outcomes_of("startedBy", request["startedBy"]), stack.outputs["LogGroupName"]
    until = min(until, datetime.now(UTC) + LATER)
    logs, since = client_of(session, "logs"), probed.answers[0].called_at
    for entry in entries(logs, group, pattern, since, until):
        probed.arrived = read_time(entry.line.get("time")) or entry.moment
        return


def wait_for_records(cloudtrail: Any, probed: Probed, until: datetime) -> None:
    """Until CloudTrail's Event history has the records of the calls, or the time is over."""
    wanted = {answer.request_id for answer in probed.answers} - {""}
    since = probed.answers[0].called_at - SKEW
    while True:
        now = datetime.now(UTC)
        for page in event_history(cloudtrail, since, now + SKEW):
            for event in page:
                record = json.loads(event["CloudTrailEvent"])
                if record.get("requestID") in wanted:
                    probed.records[record["requestID"]] = record
        if probed.answers[0].request_id in probed.records:
            probed.seen = probed.seen or now
        if len(probed.records) == len(wanted):
            return
        if now >= until:
            say("drill: not all records came in time: --timeout makes it longer")
            return
        time.sleep(min(PAUSE, until - now).total_seconds())
