"""Whose call: each caller as its calls really look, and what each value of Callers does with it."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from moto.ecs.exceptions import ECSException

from conftest import NOW
from rehearsal import EVENT_NAMES, load_event
from rehearsal.pattern import matches
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task.caller import GROUPS, KINDS, OURS, SIGNS, UNKNOWN, caller_of, job_of
from retry_run_task.failed_call import FailedCall, read_failed_call
from retry_run_task.settings import Callers, Settings

FARGATE = "launched.fargate-capacity-rule"
PARTIAL = "left-alone.partial-placement"
SCHEDULED = {"events-rule", "scheduler", "pipes"}

# One event file for each row of the callers whose source was read (README, "Whose calls"), with the
# kind that its calls are recognised as.
ROWS = {
    FARGATE: "events-rule",
    "launched.fargate-capacity-scheduler": "scheduler",
    "launched.scheduler-universal-target": "scheduler",
    "launched.pipes": "pipes",
    "left-alone.step-functions-request-response": "step-functions",
    "left-alone.step-functions": "step-functions",
    "left-alone.batch": "batch",
    "left-alone.airflow-operator": "airflow",
    "left-alone.airflow-executor": "airflow",
    "left-alone.dagster": "dagster",
    "left-alone.prefect": "prefect",
    "left-alone.dask": "dask",
    "left-alone.jenkins": "jenkins",
    "left-alone.sqs-runner": "sqs-runner",
    "left-alone.github-actions": "github-actions",
    "left-alone.copilot": "copilot",
    "left-alone.cli": "cli",
    "left-alone.console": "console",
    "launched.sleeper": UNKNOWN,
    "launched.ecspresso": UNKNOWN,
    "launched.ecs-deploy": UNKNOWN,
    "launched.lambda-function": UNKNOWN,
}
OPTED_IN = {
    "launched.step-functions-opted-in": "step-functions",
    "launched.cli-opted-in": "cli",
}


def call(name: str, change: Callable[[Any], object] = copy.copy) -> FailedCall:
    event = copy.deepcopy(load_event(name))
    change(event["detail"])
    return read_failed_call(event, event["account"], event["region"])


def kind(settings: Settings, name: str, change: Callable[[Any], object]) -> str:
    return caller_of(call(name, change), settings).kind


def outcome_of(name: str, **parameters: str) -> dict[str, Any]:
    """What comes of the event where its rule lets it through, with capacity there again."""
    event, stack = load_event(name), Stack(parameters)
    assert matches(stack.pattern, event)
    with World(stack, NOW) as world:
        outcome = world.call_handler(event)
        assert len(world.points) == 2 * len(world.calls), "a call that is left alone costs nothing"
    return outcome


# Each row, through the rule and the handler.


@pytest.mark.parametrize(("name", "kind"), (ROWS | OPTED_IN).items())
def test_each_caller_is_recognised_and_its_verdict_is_that_of_the_file(
    name: str, kind: str
) -> None:
    outcome = outcome_of(name)
    assert outcome["outcome"] == name.partition(".")[0].upper().replace("-", "_")
    issuer = load_event(name)["detail"]["userIdentity"]["sessionContext"]["sessionIssuer"]
    assert outcome["caller"] == {"kind": kind, "role": issuer["arn"]}


@pytest.mark.parametrize(("name", "kind"), ROWS.items())
def test_a_stack_for_schedules_retries_rules_schedules_and_pipes(name: str, kind: str) -> None:
    outcome = outcome_of(name, Callers="SCHEDULED")
    assert (outcome["outcome"] == "LAUNCHED") is (kind in SCHEDULED)
    if kind not in SCHEDULED:
        assert (outcome["outcome"], outcome["attempt"]) == ("LEFT_ALONE", "0/10")
        assert outcome["detail"] == (
            f"The stack leaves calls of {kind} callers alone (Callers is SCHEDULED); "
            "the tag retry-run-task:max-attempts on the job opts it in."
        )


@pytest.mark.parametrize("name", ROWS)
def test_a_stack_for_all_retries_everybody(name: str) -> None:
    assert outcome_of(name, Callers="ALL")["outcome"] == "LAUNCHED"


def test_every_kind_has_an_event_file_and_every_file_of_a_caller_is_tested() -> None:
    assert set(ROWS.values()) == GROUPS.keys() | {UNKNOWN}
    left_alone = {name for name in EVENT_NAMES if name.startswith("left-alone.")}
    assert left_alone <= ROWS.keys() | {PARTIAL}


OWN_CALLS = (
    "launched.second-attempt",
    "launched.partial-placement-of-our-own",
    "exhausted.last-attempt",
    "not-replayable.own-call-without-counter",
)


@pytest.mark.parametrize("name", OWN_CALLS)
@pytest.mark.parametrize("callers", Callers)
def test_own_calls_are_retried_whatever_the_stack_says(
    name: str, callers: Callers, settings: Settings
) -> None:
    caller = caller_of(call(name), settings)
    assert (caller.kind, caller.is_covered(callers)) == (OURS, True)


def test_a_chain_that_has_begun_goes_on_where_callers_is_narrowed_meanwhile() -> None:
    # The attempt was throttled, so that no event shows it as a call of ours.
    with World(Stack(), NOW) as world:
        world.ecs.errors = [ECSException("ThrottlingException", "Rate exceeded")]
        world.begin(load_event("launched.ecspresso"))
        while not world.outcomes:
            world.step()
        world.deploy(Stack({"Callers": "SCHEDULED"}))
        world.run()
    assert [outcome["outcome"] for outcome in world.outcomes] == ["SCHEDULED", "LAUNCHED"]
    kinds = [outcome["caller"]["kind"] for outcome in world.outcomes]
    assert kinds == [UNKNOWN, UNKNOWN]  # who made the call that both are about


# The tag wins over Callers, either way.


def tagged(name: str, value: str) -> dict[str, Any]:
    event = load_event(name)
    tags = event["detail"]["requestParameters"].setdefault("tags", [])
    tags.append({"key": "retry-run-task:max-attempts", "value": value})
    return event


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("callers", Callers)
@pytest.mark.parametrize(
    ("value", "expected"), [("1", "LAUNCHED"), ("100", "LAUNCHED"), ("0", "OPTED_OUT")]
)
def test_the_jobs_own_tag_opts_in_and_out_whoever_the_caller_is(
    name: str, callers: Callers, value: str, expected: str
) -> None:
    with World(Stack({"Callers": callers}), NOW) as world:
        assert world.call_handler(tagged(name, value))["outcome"] == expected


@pytest.mark.parametrize("value", ["", "-1", "101", "yes"])
def test_an_unreadable_tag_opts_neither_in_nor_out(value: str) -> None:
    with World(Stack(), NOW) as world:
        left = world.call_handler(tagged("left-alone.cli", value))
        taken = world.call_handler(tagged(FARGATE, value))
    assert (left["outcome"], taken["outcome"]) == ("LEFT_ALONE", "LAUNCHED")
    for outcome in (left, taken):
        assert "retry-run-task:max-attempts is not a whole number" in outcome["detail"]


@pytest.mark.parametrize(
    "parameters",
    [{"tags": "hidden"}, {"tags": [7]}, {"omitted": True, "tags": None}, {"taskDefinition": None}],
)
def test_a_caller_that_sees_failures_is_left_alone_even_if_its_request_cannot_be_read(
    parameters: dict[str, Any],
) -> None:
    event = load_event("left-alone.cli")
    event["detail"]["requestParameters"].update(parameters)
    with World(Stack(), NOW) as world:
        assert world.call_handler(event)["outcome"] == "LEFT_ALONE"


def test_a_job_whose_tags_cannot_be_read_is_told_so_and_not_to_add_one() -> None:
    event = tagged("left-alone.cli", "5")
    event["detail"]["requestParameters"]["tags"].append({"key": "x", "value": 7})
    with World(Stack(), NOW) as world:
        outcome = world.call_handler(event)
    assert outcome["outcome"] == "LEFT_ALONE"
    assert "Its tags cannot be read: tags[1].value is not of type string." in outcome["detail"]


def test_opting_in_widens_neither_clusters_nor_partial_placement() -> None:
    narrow = Stack({"ClusterArns": "arn:aws:ecs:eu-west-1:123456789012:cluster/other"})
    with World(narrow, NOW) as world:
        assert world.call_handler(tagged(FARGATE, "5"))["outcome"] == "LEFT_ALONE"
    with World(Stack(), NOW) as world:
        assert world.call_handler(tagged(PARTIAL, "5"))["outcome"] == "LEFT_ALONE"


# Partly placed calls.


def partly_placed(name: str) -> dict[str, Any]:
    event, partial = load_event(name), load_event(PARTIAL)
    event["detail"]["requestParameters"]["count"] = 5
    event["detail"]["responseElements"] = partial["detail"]["responseElements"]
    return event


@pytest.mark.parametrize(("name", "kind"), ROWS.items())
@pytest.mark.parametrize("chosen", ["true", "false"])
def test_partly_placed_calls_are_retried_where_the_caller_never_counts(
    name: str, kind: str, chosen: str
) -> None:
    stack = Stack({"RetryPartialFailures": chosen, "Callers": "ALL"})
    with World(stack, NOW) as world:
        outcome = world.call_handler(partly_placed(name))
    expected = "LAUNCHED" if kind in SCHEDULED or chosen == "true" else "LEFT_ALONE"
    assert outcome["outcome"] == expected
    assert [call["count"] for call in world.calls] == ([2] if expected == "LAUNCHED" else [])


# Which sign wins.


def service(name: str | None) -> Callable[[Any], object]:
    return lambda detail: detail["userIdentity"].update(invokedBy=name)


def agent(text: object) -> Callable[[Any], object]:
    return lambda detail: detail.update(userAgent=text, sourceIPAddress="203.0.113.17")


def asked(**parameters: Any) -> Callable[[Any], object]:
    return lambda detail: detail["requestParameters"].update(parameters)


def all_of(*changes: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda detail: [change(detail) for change in changes]


def tag(text: str) -> Callable[[Any], object]:
    key, _, value = text.partition("=")
    return asked(tags=[{"key": "team", "value": "x"}, {"key": key, "value": value}])


DAGSTER = [{"key": "dagster/run-id", "value": "x"}]
BY_NOBODY = all_of(service(None), agent("Boto3/1.40.1"), asked(startedBy=None, tags=[]))
CLI = agent("aws-cli/2.22.4 md/command#ecs.run-task")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (BY_NOBODY, UNKNOWN),
        # invokedBy wins over startedBy,
        (
            all_of(service("states.amazonaws.com"), asked(startedBy="events-rule/x")),
            "step-functions",
        ),
        (all_of(service("batch.amazonaws.com"), asked(startedBy="events-rule/x")), "batch"),
        (all_of(service("events.amazonaws.com"), asked(startedBy="copilot-task")), "events-rule"),
        # an address of AWS is as good,
        (
            all_of(BY_NOBODY, lambda d: d.update(sourceIPAddress="pipes.amazonaws.com")),
            "pipes",
        ),
        # startedBy wins over the user agent,
        (all_of(BY_NOBODY, CLI, asked(startedBy="events-rule/x")), "events-rule"),
        (all_of(BY_NOBODY, CLI, asked(startedBy="chronos-schedule/x")), "scheduler"),
        (all_of(BY_NOBODY, asked(startedBy="AWS Step Functions")), "step-functions"),
        (all_of(BY_NOBODY, asked(startedBy="arn:aws-cn:sqs:cn-north-1:1:q")), "sqs-runner"),
        # and over tags.
        (all_of(BY_NOBODY, asked(startedBy="copilot-task", tags=DAGSTER)), "copilot"),
        (all_of(BY_NOBODY, asked(tags=DAGSTER)), "dagster"),
        # EventBridge Scheduler as it appears, and in the shape that was assumed before.
        (all_of(BY_NOBODY, agent("AmazonEventBridgeScheduler aws-sdk-java/2.28")), "scheduler"),
        (all_of(BY_NOBODY, service("scheduler.amazonaws.com")), "scheduler"),
        (all_of(BY_NOBODY, agent("scheduler.amazonaws.com")), "scheduler"),
        # A user agent wins over tags.
        (all_of(BY_NOBODY, CLI, asked(tags=DAGSTER)), "cli"),
        # What is only like a sign is none.
        (all_of(BY_NOBODY, agent("Boto3/1.40.1 NotAirflow/2.10")), UNKNOWN),
        (all_of(BY_NOBODY, agent("AmazonEventBridgeSchedulerLike x")), UNKNOWN),
        (all_of(BY_NOBODY, agent("my-aws-copilot/1")), UNKNOWN),
        (all_of(BY_NOBODY, tag("jenkins.other=x")), UNKNOWN),
        (all_of(BY_NOBODY, asked(startedBy="events-rule/line\nbreak")), "events-rule"),
        (all_of(BY_NOBODY, agent("NotAmazonEventBridgeScheduler x")), UNKNOWN),
        (all_of(BY_NOBODY, agent("my-aws-cli/1")), UNKNOWN),
        (all_of(BY_NOBODY, asked(startedBy="AWS Step Functions Express")), UNKNOWN),
        (all_of(BY_NOBODY, asked(startedBy="airflow")), UNKNOWN),
        (all_of(BY_NOBODY, asked(startedBy="my-events-rule/x")), UNKNOWN),
        (all_of(BY_NOBODY, service("states.amazonaws.com.example")), UNKNOWN),
        (all_of(BY_NOBODY, asked(tags=[{"key": "my-dagster/run-id", "value": "x"}])), UNKNOWN),
        (all_of(BY_NOBODY, asked(tags=[{"key": "createdBy", "value": "terraform"}])), UNKNOWN),
        # The console, by its session.
        (all_of(BY_NOBODY, lambda d: d.update(sessionCredentialFromConsole="true")), "console"),
        (all_of(BY_NOBODY, lambda d: d.update(sessionCredentialFromConsole="false")), UNKNOWN),
        (all_of(BY_NOBODY, agent("signin.amazonaws.com")), "console"),
        # What is ill-typed says nothing.
        (all_of(BY_NOBODY, asked(startedBy=["copilot-task"])), UNKNOWN),
        (all_of(BY_NOBODY, asked(tags=[None, 7, {"key": 7}, {"value": "x"}])), UNKNOWN),
        (all_of(BY_NOBODY, asked(tags={"dagster/run-id": "x"})), UNKNOWN),
        (all_of(BY_NOBODY, lambda d: d.update(userIdentity=None, userAgent=None)), UNKNOWN),
        (
            all_of(BY_NOBODY, lambda d: d.update(userIdentity=["aws"], userAgent=["aws-cli/2"])),
            UNKNOWN,
        ),
        (
            all_of(BY_NOBODY, lambda d: d["userIdentity"].update(sessionContext=[])),
            UNKNOWN,
        ),
    ],
)
def test_the_stronger_sign_wins(
    change: Callable[[Any], object], expected: str, settings: Settings
) -> None:
    assert kind(settings, FARGATE, change) == expected


def test_only_role_and_session_together_prove_that_a_call_is_ours(settings: Settings) -> None:
    ours = settings.session_arn
    agent_of_ours = call("launched.second-attempt").user_agent
    assert caller_of(replace(call(FARGATE), user_agent=agent_of_ours), settings).kind != OURS
    for arn in (
        f"{ours}x",
        ours.replace("123456789012", "999999999999"),
        ours.replace(settings.role_name, "another-role"),  # a session's name is anybody's choice
        ours.rpartition("/")[0] + "/another-session",
        f"arn:aws:iam::123456789012:user/{settings.function_name}",
    ):
        assert caller_of(replace(call(FARGATE), caller_arn=arn), settings).kind == "events-rule"
    assert caller_of(replace(call(FARGATE), caller_arn=ours), settings).kind == OURS


def started_by(text: str) -> Callable[[Any], object]:
    return asked(startedBy=text)


# Each sign by itself, as it is seen; the user agents of SDKs have it at either end.
SIGNS_SEEN = (
    ("events-rule", "invoked_by", "events.amazonaws.com"),
    ("events-rule", "started_by", "events-rule/nightly"),
    ("events-rule", "user_agent", "events.amazonaws.com"),
    ("scheduler", "invoked_by", "scheduler.amazonaws.com"),
    ("scheduler", "started_by", "chronos-schedule/nightly"),
    ("scheduler", "user_agent", "AmazonEventBridgeScheduler aws-sdk-java/2.28.29 md/io#async"),
    ("scheduler", "user_agent", "scheduler.amazonaws.com"),
    ("pipes", "invoked_by", "pipes.amazonaws.com"),
    ("step-functions", "invoked_by", "states.amazonaws.com"),
    ("step-functions", "started_by", "AWS Step Functions"),
    ("batch", "invoked_by", "batch.amazonaws.com"),
    ("batch", "tag", "aws:batch:job-queue=nightly"),
    ("airflow", "user_agent", "Boto3/1.40.1 md/Botocore#1.40.1 Airflow/2.10.3 EcsHook/1"),
    ("dagster", "tag", "dagster/run-id=1"),
    ("prefect", "tag", "prefect.io/flow-run-name=otter"),
    ("dask", "tag", "createdBy=dask-cloudprovider"),
    ("jenkins", "tag", "jenkins.label=maven"),
    ("jenkins", "tag", "jenkins.templatename=maven-large"),
    ("sqs-runner", "started_by", "arn:aws:sqs:eu-west-1:123456789012:photos"),
    ("github-actions", "started_by", "GitHub-Actions"),
    (
        "github-actions",
        "user_agent",
        "amazon-ecs-deploy-task-definition-for-github-actions aws-sdk-js/3.700.0",
    ),
    (
        "github-actions",
        "user_agent",
        "aws-sdk-js/3.700.0 amazon-ecs-deploy-task-definition-for-github-actions",
    ),
    ("copilot", "started_by", "copilot-task"),
    ("copilot", "user_agent", "aws-copilot/v1.34.0 (darwin)"),
    ("copilot", "user_agent", "aws-sdk-go/1.55.5 (go1.22.5) aws-copilot/v1.34.0 (darwin)"),
    ("cli", "user_agent", "aws-cli/2.22.4 md/command#ecs.run-task"),
    ("console", "user_agent", "console.amazonaws.com"),
    ("console", "user_agent", "signin.amazonaws.com"),
)
SHOWN: dict[str, Callable[[Any], Callable[[Any], object]]] = {
    "invoked_by": service,
    "started_by": started_by,
    "user_agent": agent,
    "tag": tag,
}


@pytest.mark.parametrize(("name", "sign", "value"), SIGNS_SEEN)
def test_each_sign_is_enough_by_itself(
    name: str, sign: str, value: str, settings: Settings
) -> None:
    assert kind(settings, FARGATE, all_of(BY_NOBODY, SHOWN[sign](value))) == name


def test_each_sign_of_each_kind_is_tested_by_itself() -> None:
    read = {(kind.name, sign) for kind in KINDS for sign in kind.signs}
    assert read == {(name, sign) for name, sign, _ in SIGNS_SEEN}
    assert {sign for _, sign in read} == set(SIGNS)


# The job as its owner knows it.


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (asked(), "nightly-report"),
        (asked(startedBy="chronos-schedule/nightly-report-in-t"), "nightly-report-in-t"),
        (asked(startedBy="batch-runner"), "nightly-report"),
        (asked(startedBy=None, group="nightly"), "nightly"),
        (asked(startedBy=None, group="family:backfill"), "backfill"),
        (asked(startedBy=None, group=7), "nightly-report"),
        (asked(startedBy=None, taskDefinition="weekly", group=None), "weekly"),
        (asked(startedBy=None, group=None), "nightly-report"),
        (asked(startedBy=None, taskDefinition=None), ""),
    ],
)
def test_a_job_is_named_as_its_owner_knows_it(
    change: Callable[[Any], object], expected: str
) -> None:
    assert job_of(call(FARGATE, change)) == expected


@pytest.mark.parametrize("name", [name for name in EVENT_NAMES if not name.startswith("unmatch")])
def test_every_outcome_names_job_caller_and_event(name: str) -> None:
    event = load_event(name)
    with World(Stack(), NOW) as world:
        outcome = world.call_handler(event)
    detail = event["detail"]
    assert outcome["event"] == detail["eventID"]
    assert outcome["time"] == "2026-11-23T00:01:30Z"
    assert outcome["startedBy"] == detail["requestParameters"].get("startedBy")
    assert outcome["caller"]["kind"] in {*GROUPS, OURS, UNKNOWN}
    assert outcome["job"] or "omitted" in name
    # Names, and no secret.
    assert detail["userIdentity"].get("accessKeyId", "ASIA") not in json.dumps(outcome)
