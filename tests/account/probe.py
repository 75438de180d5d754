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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from account.chain_log import entries, outcomes_of
from account.deployed import find_stack
from account.event_history import CLIENT_CONFIG, event_history
from account.fire_drill import confirm
from account.session import ERRORS, account_of, client_of, open_session, problem_of
from account.terminal import say
from rehearsal.records import BadInput
from rehearsal.show import line, table
from retry_run_task.chain import MAX_ATTEMPTS_TAG
from retry_run_task.failed_call import read_time
from retry_run_task.request import HIDDEN

# A call that the SDK repeats would be one more than the report is about.
ONE_TRY = Config(retries={"mode": "standard", "total_max_attempts": 1})

# Between two looks. CloudTrail has a call in its Event history about five minutes later (CloudTrail
# user guide, "Viewing CloudTrail Event history"; LookupEvents takes two calls a second).
PAUSE = timedelta(seconds=15)

# DescribeContainerInstances takes 100 at once (API reference).
INSTANCES_AT_ONCE = 100

# In place of the account's number, so that the report can be sent to anybody.
NOBODY = "111122223333"


@dataclass(frozen=True, slots=True)
class Answer:
    """What ECS said to one of the calls. `error` is the code of an error, empty without one.

    `bound` is what ConflictException says of the tasks that the token is bound to.
    """

    request_id: str
    called_at: datetime
    tasks: tuple[str, ...] = ()
    error: str = ""
    bound: object = None


def probe(options: argparse.Namespace) -> int:
    """Do what the options ask for, and print the report. Returns the exit status; raises BadInput.

    The status is 1 if anything started, or if not all could be seen in time.
    """
    # What is wrong with a profile is said here, in a line.
    logging.getLogger("botocore").addHandler(logging.NullHandler())
    session = open_session(options.profile, options.region)
    ecs = client_of(session, "ecs", config=ONE_TRY)
    try:
        account = account_of(session)
        request = impossible_request(ecs, *options.probe)
        print(line("", "This asks ECS, twice, for a task that no container instance can hold."))
        confirm("Ask?", is_sure=options.yes)
        first = ask(ecs, request)
    except (ClientError, BotoCoreError) as error:
        raise BadInput(f"nothing was started: {problem_of(error)}") from error
    if first.error:
        raise BadInput(f"the request ended in {first.error}: try another task definition")
    second = ask(ecs, request | {"startedBy": f"{request['startedBy']}-2"})
    until = first.called_at + options.timeout
    started = [task for answer in (first, second) for task in answer.tasks]
    for task in started:
        ecs.stop_task(cluster=request["cluster"], task=task, reason="A probe of retry-run-task")
        say(f"drill: a task has started, and is stopped: {task}")
    records, seen_at = wait_for_records(session, (first, second), until)
    facts = {
        "client token": token_of(second),
        "resourceIds": json.dumps(second.bound) if second.error else "-",
        **facts_of(records.get(first.request_id), request),
        "record of the second call": shown_in(records.get(second.request_id)),
        "seconds to the function": arrival(session, options.stack, request, first),
        "seconds to the Event history": (
            str(round((seen_at - first.called_at).total_seconds())) if seen_at else "-"
        ),
    }
    title = f"A probe of retry-run-task, {first.called_at:%Y-%m-%d}, {session.region_name}"
    text = table((title, ""), facts.items(), words=(title, ""))
    print(f"\n{text.replace(account, NOBODY)}\n")
    if len(records) < 2:
        say("drill: not all records came in time: --timeout makes it longer")
    return 1 if started or len(records) < 2 else 0


def impossible_request(ecs: Any, cluster: str, task_definition: str) -> dict[str, Any]:
    """A request that no instance of the cluster can hold; raises BadInput if that is not sure."""
    found = ecs.describe_clusters(clusters=[cluster])["clusters"]
    if not found or found[0]["status"] != "ACTIVE":
        raise BadInput(f"there is no active cluster {cluster}")
    providers = found[0].get("capacityProviders", [])
    if providers:
        described = ecs.describe_capacity_providers(capacityProviders=providers)
        for provider in described["capacityProviders"]:
            scaling = provider.get("autoScalingGroupProvider", {}).get("managedScaling", {})
            if scaling.get("status") == "ENABLED":
                raise BadInput(
                    f"{cluster} scales ({provider['name']}): take a cluster that does not"
                )
    largest = max(cpus_of(ecs, cluster), default=0)
    if not largest:
        raise BadInput(f"{cluster} has no container instance, and so its failure would be another")
    described = ecs.describe_task_definition(taskDefinition=task_definition)["taskDefinition"]
    if described.get("networkMode") == "awsvpc" or "EC2" not in described.get(
        "compatibilities", []
    ):
        raise BadInput(
            f"{task_definition} is not for EC2 without network mode awsvpc: take another"
        )
    cpu = largest + 1
    container = {"name": described["containerDefinitions"][0]["name"], "environment": []}
    # A limit of the whole task is above those of its containers.
    has_limit = bool(described.get("cpu"))
    overrides = {"cpu": str(cpu)} if has_limit else {}
    return {
        "cluster": cluster,
        "taskDefinition": task_definition,
        "launchType": "EC2",
        "startedBy": f"retry-run-task-probe/{uuid.uuid4().hex[:8]}",
        "clientToken": str(uuid.uuid4()),
        "placementConstraints": [],
        "overrides": {
            **overrides,
            "containerOverrides": [container if has_limit else container | {"cpu": cpu}],
        },
        # No stack retries it.
        "tags": [{"key": MAX_ATTEMPTS_TAG, "value": "0"}],
    }


def cpus_of(ecs: Any, cluster: str) -> Iterator[int]:
    """The CPU units of each container instance."""
    pages = ecs.get_paginator("list_container_instances").paginate(
        cluster=cluster, status="ACTIVE", PaginationConfig={"PageSize": INSTANCES_AT_ONCE}
    )
    for page in pages:
        if not page["containerInstanceArns"]:
            continue
        described = ecs.describe_container_instances(
            cluster=cluster, containerInstances=page["containerInstanceArns"]
        )
        for instance in described["containerInstances"]:
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
        code = response["Error"]["Code"]
        return Answer(request_id, called_at, error=code, bound=response.get("resourceIds"))
    except BotoCoreError as error:
        return Answer("", called_at, error=type(error).__name__)
    tasks = tuple(task["taskArn"] for task in answer["tasks"])
    return Answer(answer["ResponseMetadata"]["RequestId"], called_at, tasks)


def wait_for_records(
    session: boto3.Session, answers: Sequence[Answer], until: datetime
) -> tuple[dict[str, Any], datetime | None]:
    """CloudTrail's records of the calls by their requests' identifiers, and when one first came."""
    cloudtrail = client_of(session, "cloudtrail", config=CLIENT_CONFIG)
    wanted = {answer.request_id for answer in answers}
    found: dict[str, Any] = {}
    seen_at = None
    since = answers[0].called_at - timedelta(minutes=1)
    while True:
        now = datetime.now(UTC)
        try:
            for page in event_history(cloudtrail, since, now):
                for event in page:
                    record = json.loads(event["CloudTrailEvent"])
                    if record.get("requestID") in wanted:
                        found[record["requestID"]] = record
        except (ClientError, BotoCoreError) as error:
            say(f"drill: the Event history cannot be read: {problem_of(error)}")
            return found, seen_at
        if answers[0].request_id in found:
            seen_at = seen_at or now
        if len(found) == len(wanted) or now >= until:
            return found, seen_at
        time.sleep(min(PAUSE, until - now).total_seconds())


def token_of(second: Answer) -> str:
    """Whether ECS has bound the token to the first call, which failed."""
    if second.error == "ConflictException":
        return "a failure binds it: the second call, with other parameters, is a conflict"
    if second.error:
        return f"not known: the second call ended in {second.error}"
    return "a failure does not bind it: the second call, with other parameters, is none"


def facts_of(record: Mapping[str, Any] | None, request: Mapping[str, Any]) -> dict[str, str]:
    """What the record of the first call shows."""
    if record is None:
        return {"record of the first call": "-"}
    shown = record.get("requestParameters") or {}
    answer = record.get("responseElements") or {}
    token = shown.get("clientToken")
    container = (shown.get("overrides") or {}).get("containerOverrides", [{}])[0]
    is_whole = token == request["clientToken"]
    return {
        "clientToken in the record": "shown" if is_whole else _value(shown, "clientToken"),
        "members of requestParameters": ", ".join(sorted(shown)),
        "a list that was sent empty": _value(shown, "placementConstraints"),
        "an environment that was empty": _value(container, "environment"),
        "tasks in responseElements": _value(answer, "tasks"),
        "failures in responseElements": _value(answer, "failures"),
    }


def shown_in(record: Mapping[str, Any] | None) -> str:
    """What the record of the second call shows."""
    if record is None:
        return "-"
    members = {name: record.get(name) for name in ("errorCode", "responseElements")}
    has_request = "shown" if record.get("requestParameters") else "not shown"
    return f"{json.dumps(members)}, requestParameters {has_request}"


def arrival(
    session: boto3.Session, stack_name: str, request: Mapping[str, Any], first: Answer
) -> str:
    """Seconds until the deployed function had the event of the first call; `-` if not known."""
    try:
        stack = find_stack(session, stack_name)
        if stack is None:
            return "- (no stack)"
        now = datetime.now(UTC)
        pattern = outcomes_of("startedBy", request["startedBy"])
        group = stack.outputs["LogGroupName"]
        for entry in entries(client_of(session, "logs"), group, pattern, first.called_at, now):
            arrived = read_time(entry.line.get("time"))
            if arrived is not None:
                return str(round((arrived - first.called_at).total_seconds()))
    except (*ERRORS, BadInput) as error:
        return f"- ({problem_of(error)})"
    return "- (the log has no outcome of it)"


def _value(found: Mapping[str, Any], name: str) -> str:
    if name not in found:
        return "absent"
    return "hidden" if found[name] == HIDDEN else json.dumps(found[name])
