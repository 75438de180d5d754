"""`check`: the trail, the stack and each job, in a sentence each, and no more than is known."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import example, given
from hypothesis import strategies as st
from moto.iam.access_control import IAMRequestBase
from moto.server import ThreadedMotoServer

from account import checkup  # with annotations that need boto3 as it is
from account.check import ACTIONS, POLICY, main
from account.checkup import meet
from account.deployed import Deployed, settings_from_parameters
from account.jobs import Wanted, wanted
from account.resource_policy import may_invoke
from account.session import ACTIONS as RENAMED
from account.trails import logs_run_task
from conftest import enforcing, run_command
from deployed_account import LAYER, UserAccount, user_account
from rehearsal import EVENTS, load_definitions
from rehearsal.callers import rule, schedule
from rehearsal.records import BadInput
from rehearsal.world import World
from retry_run_task.request import NotExact

ROLES = "arn:aws:iam::123456789012:role/"
CLUSTER = "arn:aws:ecs:eu-west-1:123456789012:cluster/jobs"
DEFINITIONS = "arn:aws:ecs:eu-west-1:123456789012:task-definition"
MAY_TAG = {"Effect": "Allow", "Action": "ecs:TagResource", "Resource": "*"}

assert checkup


def check(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status, and the object that `--json` prints."""
    status, out, error = run_command(main, *arguments, "--json")
    assert error == ""
    return status, json.loads(out)


def sentences(found: Mapping[str, Any], mark: str, part: str | None = None) -> list[str]:
    """`subject: sentence` of the findings with this mark."""
    return [
        f"{each['subject']}: {each['sentence']}"
        for each in found["findings"]
        if each["mark"] == mark and part in (None, each["part"])
    ]


def nightly(**changes: Any) -> dict[str, Any]:
    """A rule that starts a task every night; changes to its target."""
    parameters = {"TaskDefinitionArn": "nightly:42", **changes.pop("EcsParameters", {})}
    target = {
        "Id": "t",
        "Arn": CLUSTER,
        "RoleArn": f"{ROLES}caller",
        "EcsParameters": parameters,
        **changes,
    }
    return {"Name": "nightly", "Targets": [target]}


def every_night(**changes: Any) -> dict[str, Any]:
    """A schedule that starts a task every night; changes to it, or to its target's parameters."""
    parameters = {"TaskDefinitionArn": "nightly:42", **changes.pop("EcsParameters", {})}
    target = {
        "Arn": CLUSTER,
        "RoleArn": f"{ROLES}caller",
        "EcsParameters": parameters,
        **changes.pop("Target", {}),
    }
    return {
        "Name": "every-night",
        "ScheduleExpression": "rate(1 day)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": target,
        **changes,
    }


def environment(value: str) -> str:
    return json.dumps(
        {
            "containerOverrides": [
                {"name": "main", "environment": [{"name": "TOKEN", "value": value}]}
            ]
        }
    )


@contextmanager
def account_with(
    *definitions: dict[str, Any], parameters: Mapping[str, str] | None = None
) -> Iterator[UserAccount]:
    """An account with these rules and schedules, their task definition and their caller's role."""
    kinds: dict[str, list[Any]] = {"Rules": [], "Schedules": []}
    for definition in definitions:
        kinds["Rules" if "Targets" in definition else "Schedules"].append(definition)
    with user_account(parameters, kinds) as account:
        account.define_task("nightly:42")
        account.allow("caller", [MAY_TAG])
        yield account


def of_job(
    *definitions: dict[str, Any], parameters: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    with account_with(*definitions, parameters=parameters):
        return check()


def changed(
    account: UserAccount, service: str, operation: str, change: Callable[[dict[str, Any]], None]
) -> None:
    """AWS's answer from now on: moto's, changed."""
    client = boto3.client(service)  # type: ignore[call-overload]

    def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        answered: dict[str, Any] = getattr(client, xform_name(operation))(**asked)
        change(answered)
        return answered

    account.answers[operation] = answer


# All in order.

SUBJECTS = {
    "trail": ["CloudTrail"],
    "stack": [
        "version",
        "rule",
        "pattern",
        "replay rule",
        "resource policy",
        "function",
        "notifying function",
        "layer",
        "archive",
        "schedule group",
        "subscription",
        "dead-letter queue",
        "unsent messages",
        "alarms",
        "policy",
        "other stacks",
    ],
    "jobs": ["rule nightly", "schedule every-night"],
}


def test_where_all_is_in_order_there_is_nothing_to_fix() -> None:
    status, found = of_job(nightly(), every_night())
    assert (status, found["fix"], found["unknown"], found["left_out"]) == (0, 0, 0, {})
    assert (found["account"], found["region"]) == ("123456789012", "eu-west-1")
    assert {each["mark"] for each in found["findings"]} == {"ok"}
    by_part: dict[str, list[str]] = {}
    for each in found["findings"]:
        by_part.setdefault(each["part"], []).append(each["subject"])
    assert by_part == SUBJECTS
    assert sentences(found, "ok", "jobs") == [
        "rule nightly: A failed call would be retried exactly, and the policy allows it.",
        "schedule every-night: A failed call would be retried exactly, and the policy allows it.",
    ]


def test_people_get_a_table_for_each_part_and_the_sum() -> None:
    with account_with(nightly(), every_night(EcsParameters={"Tags": [{"key": "a", "value": "b"}]})):
        status, out, error = run_command(main)
    assert (status, error) == (1, "")
    assert out.startswith("123456789012, eu-west-1\n\n   trail\n✔  CloudTrail  The trail ")
    assert "\n\n   stack\n✔  version             0.1.0, as this checkout.\n" in out
    assert "✔  rule nightly          A failed call would be retried exactly, and " in out
    assert "✘  schedule every-night  A tag is named `key`: Scheduler's tags are maps. " in out
    assert out.endswith("\n\n1 to fix.\n")
    assert max(map(len, out.splitlines())) <= 100


def test_a_terminal_that_has_no_marks_gets_letters() -> None:
    with account_with(nightly()):
        _, out, _ = run_command(main, encoding="ascii")
        status, help_text, _ = run_command(main, "--help", encoding="ascii")
    assert "\n+  CloudTrail  The trail " in out
    assert (status, "\\u2714" in help_text) == (0, True)


# The trail.

ALL: list[Any] = [{"ReadWriteType": "All", "IncludeManagementEvents": True}]


def advanced(*selectors: Mapping[str, Any]) -> dict[str, Any]:
    return {"AdvancedEventSelectors": [{"FieldSelectors": list(selectors)}]}


RUN = "RunTask"
MANAGEMENT = {"Field": "eventCategory", "Equals": ["Management"]}


@pytest.mark.parametrize(
    ("selectors", "logs"),
    [
        ({"EventSelectors": ALL}, True),
        ({"EventSelectors": [ALL[0] | {"ReadWriteType": "WriteOnly"}]}, True),
        ({"EventSelectors": [ALL[0] | {"ReadWriteType": "ReadOnly"}]}, False),
        ({"EventSelectors": [ALL[0] | {"ReadWriteType": "ReadOnly"}, *ALL]}, True),
        ({"EventSelectors": [ALL[0] | {"IncludeManagementEvents": False}]}, False),
        (
            {"EventSelectors": [ALL[0] | {"ExcludeManagementEventSources": ["kms.amazonaws.com"]}]},
            True,
        ),
        (
            {"EventSelectors": [ALL[0] | {"ExcludeManagementEventSources": ["ecs.amazonaws.com"]}]},
            False,
        ),
        ({"EventSelectors": []}, False),
        ({}, False),
        (advanced(MANAGEMENT), True),
        (advanced({"Field": "eventCategory", "Equals": ["Data"]}), False),
        (advanced(MANAGEMENT, {"Field": "readOnly", "Equals": ["false"]}), True),
        (advanced(MANAGEMENT, {"Field": "readOnly", "Equals": ["true"]}), False),
        (
            advanced(MANAGEMENT, {"Field": "eventSource", "NotEquals": ["kms.amazonaws.com"]}),
            True,
        ),
        (
            advanced(MANAGEMENT, {"Field": "eventSource", "NotStartsWith": ["rds", "ecs."]}),
            False,
        ),
        (
            advanced(MANAGEMENT, {"Field": "eventName", "StartsWith": ["Put"], "Equals": [RUN]}),
            True,
        ),
        (
            advanced(MANAGEMENT, {"Field": "eventName", "StartsWith": ["Put"], "EndsWith": ["x"]}),
            False,
        ),
        (
            advanced(MANAGEMENT, {"Field": "eventName", "StartsWith": ["Run"], "NotEquals": [RUN]}),
            False,
        ),
        (advanced(MANAGEMENT, {"Field": "eventName", "EndsWith": ["Instances"]}), False),
        (advanced(MANAGEMENT, {"Field": "userIdentity.arn", "NotEquals": ["x"]}), None),
        (
            advanced(
                {"Field": "userIdentity.arn", "NotEquals": ["x"]},
                {"Field": "readOnly", "Equals": ["true"]},
            ),
            False,
        ),
        (
            {
                "AdvancedEventSelectors": [
                    {"FieldSelectors": [MANAGEMENT, {"Field": "x", "Equals": ["y"]}]},
                    {"FieldSelectors": [MANAGEMENT]},
                ]
            },
            True,
        ),
    ],
)
def test_selectors_include_run_task_or_not(selectors: dict[str, Any], logs: bool | None) -> None:
    assert logs_run_task(selectors) is logs


def trail(name: str, **given: Any) -> dict[str, Any]:
    home = given.get("HomeRegion", "eu-west-1")
    arn = f"arn:aws:cloudtrail:{home}:123456789012:trail/{name}"
    return {"Name": name, "TrailARN": arn, "HomeRegion": home, "IsMultiRegionTrail": False} | given


FINE = "The trail {} logs management write events of this Region."


@pytest.mark.parametrize(
    ("trails", "stopped", "refused", "mark", "sentence"),
    [
        ([], [], {}, "fix", "No trail covers eu-west-1: make one that logs management events"),
        ([trail("a", HomeRegion="us-east-1")], [], {}, "fix", "No trail covers eu-west-1"),
        ([trail("a")], [], {}, "ok", FINE.format("a")),
        (
            [trail("a", HomeRegion="us-east-1", IsMultiRegionTrail=True)],
            [],
            {},
            "ok",
            FINE.format("a"),
        ),
        ([trail("a")], ["a"], {}, "fix", "The trail a has stopped: start logging."),
        ([trail("a"), trail("b")], ["a"], {}, "ok", FINE.format("b")),
        (
            [trail("org", IsOrganizationTrail=True)],
            [],
            {"GetEventSelectors": "AccessDeniedException"},
            "unknown",
            "Whether the trail org of the organisation logs management write events cannot be "
            "read from here. Not looked at: you are not allowed to call "
            "cloudtrail:GetEventSelectors.",
        ),
        (
            [trail("org", IsOrganizationTrail=True)],
            [],
            {"GetTrailStatus": "TrailNotFoundException"},
            "unknown",
            "Whether the trail org of the organisation logs management write events cannot be",
        ),
        (
            [trail("mine")],
            [],
            {"GetEventSelectors": "AccessDeniedException"},
            "unknown",
            "Whether the trail mine logs management write events cannot be read from here. Not",
        ),
        (
            [trail("far", IsMultiRegionTrail=True)],
            [],
            {"GetTrailStatus": EndpointConnectionError(endpoint_url="https://far")},
            "unknown",
            "Whether the trail far logs management write events cannot be read from here. Not",
        ),
        (
            [trail("stopped"), trail("org", IsOrganizationTrail=True)],
            ["stopped"],
            {"GetEventSelectors": "AccessDeniedException"},
            "unknown",
            "Whether the trail org of the organisation logs management write events cannot be read",
        ),
        (
            [],
            [],
            {"DescribeTrails": "AccessDeniedException"},
            "unknown",
            "Not looked at: you are not allowed to call cloudtrail:DescribeTrails.",
        ),
    ],
)
def test_one_trail_that_logs_is_enough(
    trails: list[dict[str, Any]],
    stopped: list[str],
    refused: dict[str, str | BaseException],
    mark: str,
    sentence: str,
) -> None:
    asked_of = []

    def status(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        asked_of.append(asked["Name"])
        return {"IsLogging": asked["Name"].rpartition("/")[2] not in stopped}

    with account_with() as account:
        account.answers |= {
            "DescribeTrails": lambda _: {"trailList": trails},
            "GetTrailStatus": status,
            "GetEventSelectors": lambda _: {"EventSelectors": ALL},
        }
        account.refused |= refused
        _, found = check()
    (finding,) = (each for each in found["findings"] if each["part"] == "trail")
    assert finding["mark"] == mark
    assert finding["sentence"].startswith(sentence)
    assert all(name.startswith("arn:") for name in asked_of)


def test_a_trail_of_another_region_is_asked_where_it_is_at_home() -> None:
    shown = trail("a", HomeRegion="us-east-1", IsMultiRegionTrail=True)
    asked: list[Any] = []
    with account_with() as account:

        def describe(given: Mapping[str, Any]) -> Mapping[str, Any]:
            asked.append(given)
            return {"trailList": [shown]}

        account.answers |= {
            "DescribeTrails": describe,
            "GetTrailStatus": lambda _: {"IsLogging": True},
            "GetEventSelectors": lambda _: {"EventSelectors": ALL},
        }
        check()
        regions = {action: region for action, region in account.regions if "Trail" in action}
    assert asked == [{"includeShadowTrails": True}]
    assert regions == {
        "cloudtrail:DescribeTrails": "eu-west-1",
        "cloudtrail:GetTrailStatus": "us-east-1",
    }


@pytest.mark.parametrize(
    ("stops", "unreadable", "mark"), [("b", "c", "unknown"), ("b", "", "fix"), ("", "c", "ok")]
)
def test_what_is_not_known_of_a_trail_may_be_enough(stops: str, unreadable: str, mark: str) -> None:
    """No trail is known to log, and one may: that is nothing to fix yet."""

    def selectors(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        if asked["TrailName"].endswith(unreadable or "/"):
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetEventSelectors")
        return {"EventSelectors": ALL}

    with account_with() as account:
        names = ["b", unreadable] if unreadable else ["b"]
        account.answers |= {
            "DescribeTrails": lambda _: {"trailList": [trail(name) for name in names]},
            "GetTrailStatus": lambda asked: {"IsLogging": not asked["Name"].endswith(stops or "/")},
            "GetEventSelectors": selectors,
        }
        _, found = check()
    assert [each["mark"] for each in found["findings"] if each["part"] == "trail"] == [mark]


def test_what_a_trail_does_not_log_and_what_nobody_knows() -> None:
    with account_with() as account:
        client = boto3.client("cloudtrail")
        client.put_event_selectors(
            TrailName="everything", EventSelectors=[ALL[0] | {"ReadWriteType": "ReadOnly"}]
        )
        _, reads = check()
        odd = advanced(MANAGEMENT, {"Field": "userIdentity.arn", "NotEquals": ["x"]})
        account.answers["GetEventSelectors"] = lambda _: odd
        _, unsure = check()
    (sentence,) = sentences(reads, "fix")
    assert "does not log management write events of ECS: let it (ReadWriteType All or" in sentence
    (sentence,) = sentences(unsure, "unknown")
    assert sentence == (
        "CloudTrail: The trail everything has a selector that this command does not know."
    )


# The stack.


def disable(name: str) -> Callable[[UserAccount], None]:
    def act(account: UserAccount) -> None:
        rules = {"RuleName": account.output("RuleName")}
        boto3.client("events").disable_rule(Name=rules[name])

    return act


def without_targets(account: UserAccount) -> None:
    name, events = account.output("RuleName"), boto3.client("events")
    ids = [target["Id"] for target in events.list_targets_by_rule(Rule=name)["Targets"]]
    events.remove_targets(Rule=name, Ids=ids)


def part_of_the_event(account: UserAccount) -> None:
    name, events = account.output("RuleName"), boto3.client("events")
    (target,) = events.list_targets_by_rule(Rule=name)["Targets"]
    events.put_targets(Rule=name, Targets=[target | {"InputPath": "$.detail"}])


def with_pattern(pattern: Mapping[str, Any]) -> Callable[[UserAccount], None]:
    def act(account: UserAccount) -> None:
        name = account.output("RuleName")
        boto3.client("events").put_rule(Name=name, EventPattern=json.dumps(pattern))

    return act


def without_permission(account: UserAccount) -> None:
    client, name = boto3.client("lambda"), account.output("FunctionName")
    for statement in json.loads(client.get_policy(FunctionName=name)["Policy"])["Statement"]:
        if "FailedCall" in json.dumps(statement["Condition"]):
            client.remove_permission(FunctionName=name, StatementId=statement["Sid"])


def without_policy(account: UserAccount) -> None:
    account.refused["GetPolicy"] = "ResourceNotFoundException"


def stopped(account: UserAccount) -> None:
    boto3.client("lambda").put_function_concurrency(
        FunctionName=account.resource("Notify"), ReservedConcurrentExecutions=0
    )


def function_is(**members: Any) -> Callable[[UserAccount], None]:
    def act(account: UserAccount) -> None:
        changed(account, "lambda", "GetFunctionConfiguration", lambda found: found.update(members))

    return act


def layer_gone(account: UserAccount) -> None:
    account.refused["GetLayerVersionByArn"] = "ResourceNotFoundException"


def layer_not_shared(account: UserAccount) -> None:
    """Lambda's words about a layer of another account that is gone, or shared no more."""

    def answer(_: object) -> Mapping[str, Any]:
        because = "no resource-based policy allows the lambda:GetLayerVersion action"
        said: Any = {"Error": {"Code": "AccessDeniedException", "Message": because}}
        raise ClientError(said, "GetLayerVersionByArn")

    account.answers["GetLayerVersionByArn"] = answer


def answer_is(service: str, operation: str, **members: Any) -> Callable[[UserAccount], None]:
    def act(account: UserAccount) -> None:
        changed(account, service, operation, lambda found: found.update(members))

    return act


def nobody_subscribed(account: UserAccount) -> None:
    account.answers["ListSubscriptionsByTopic"] = lambda _: {"Subscriptions": []}


def not_confirmed(account: UserAccount) -> None:
    pending = {"SubscriptionArn": "PendingConfirmation", "Protocol": "email"}
    account.answers["ListSubscriptionsByTopic"] = lambda _: {"Subscriptions": [pending] * 2}


def unsubscribed(account: UserAccount) -> None:
    ended = {"SubscriptionArn": "Deleted", "Protocol": "email"}
    account.answers["ListSubscriptionsByTopic"] = lambda _: {"Subscriptions": [ended]}


def message_in(logical_id: str) -> Callable[[UserAccount], None]:
    def act(account: UserAccount) -> None:
        boto3.client("sqs").send_message(QueueUrl=account.resource(logical_id), MessageBody="x")

    return act


def message_in_flight(account: UserAccount) -> None:
    """Somebody reads it at this moment, and has not deleted it."""
    counts = {"ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesNotVisible": "2"}
    account.answers["GetQueueAttributes"] = lambda _: {"Attributes": counts}


def ringing(account: UserAccount) -> None:
    boto3.client("cloudwatch").set_alarm_state(
        AlarmName=account.resource("NotifyAlarm"), StateValue="ALARM", StateReason="x"
    )


def alarm_gone(account: UserAccount) -> None:
    names = [account.resource("FunctionAlarm")]
    boto3.client("cloudwatch").delete_alarms(AlarmNames=names)


def stack_is(**members: Any) -> Callable[[UserAccount], None]:
    def act(account: UserAccount) -> None:
        changed(
            account,
            "cloudformation",
            "DescribeStacks",
            lambda found: found["Stacks"][0].update(members),
        )

    return act


def output_is(name: str, value: str) -> Callable[[UserAccount], None]:
    def change(found: dict[str, Any]) -> None:
        for output in found["Stacks"][0]["Outputs"]:
            if output["OutputKey"] == name:
                output["OutputValue"] = value

    def act(account: UserAccount) -> None:
        changed(account, "cloudformation", "DescribeStacks", change)

    return act


RUN_TASKS = {"detail": {"eventName": ["RunTask"]}}
AGAIN = "deploy the stack again."


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (disable("RuleName"), "rule: It is disabled: deploy with RuleState=ENABLED."),
        (without_targets, f"rule: It does not send whole events to the function: {AGAIN}"),
        (part_of_the_event, f"rule: It does not send whole events to the function: {AGAIN}"),
        (
            with_pattern({"source": ["x"]}),
            f"pattern: It does not match a failed call: {AGAIN}",
        ),
        (
            with_pattern(RUN_TASKS),
            f"pattern: It matches calls that started their tasks: {AGAIN}",
        ),
        (
            without_permission,
            f"resource policy: The rule is not allowed to invoke the function: {AGAIN}",
        ),
        (
            without_policy,
            f"resource policy: The rule is not allowed to invoke the function: {AGAIN}",
        ),
        (
            function_is(State="Failed", StateReason="the role is gone"),
            f"function: It has failed (the role is gone): {AGAIN}",
        ),
        (
            function_is(LastUpdateStatus="Failed", LastUpdateStatusReason="no layer"),
            f"function: Its last update failed (no layer): {AGAIN}",
        ),
        (
            stopped,
            "notifying function: It is stopped: `aws lambda delete-function-concurrency --function",
        ),
        (layer_gone, f"layer: {LAYER} is gone: {AGAIN}"),
        (
            function_is(Layers=[]),
            f"layer: The function has no layer, and so no Powertools: {AGAIN}",
        ),
        (
            answer_is("events", "DescribeArchive", State="CREATE_FAILED"),
            f"archive: It keeps no lost jobs (CREATE_FAILED): {AGAIN}",
        ),
        (
            answer_is("scheduler", "GetScheduleGroup", State="DELETING"),
            f"schedule group: It takes no pending attempts (DELETING): {AGAIN}",
        ),
        (
            nobody_subscribed,
            "subscription: Nobody is alerted of a lost job: deploy with NotificationEmail, or",
        ),
        (
            not_confirmed,
            "subscription: It is not confirmed, and nobody is alerted: open the link in AWS's",
        ),
        (unsubscribed, "subscription: Nobody is alerted of a lost job: deploy with Notification"),
        (
            message_in("DeadLetterQueue"),
            'dead-letter queue: There are 1 in the queue: see "The dead-letter queue" in the READ',
        ),
        (message_in_flight, ": There are 2 in the queue: see "),
        (
            message_in("UnsentLostJobs"),
            'unsent messages: There are 1 in the queue: see "No message comes" in the README.',
        ),
        (ringing, "alarms: NotifyAlarm is ringing: retry-run-task could not send a message about"),
        (alarm_gone, f"alarms: FunctionAlarm is gone: {AGAIN}"),
        (
            stack_is(StackStatus="UPDATE_ROLLBACK_COMPLETE"),
            f"version: The last deployment failed (UPDATE_ROLLBACK_COMPLETE): {AGAIN}",
        ),
        (
            stack_is(StackStatus="UPDATE_ROLLBACK_FAILED"),
            "version: The last deployment failed (UPDATE_ROLLBACK_FAILED): `aws cloudformation co",
        ),
        (
            layer_not_shared,
            f"layer: {LAYER} is gone: {AGAIN}",
        ),
        (
            output_is("Version", "0.0.9"),
            "version: Version 0.0.9 is deployed, and this checkout is 0.1.0: deploy it, or use",
        ),
    ],
)
def test_what_is_wrong_with_the_stack_is_said_and_nothing_else(
    damage: Callable[[UserAccount], None], finding: str
) -> None:
    with account_with() as account:
        damage(account)
        status, found = check()
    assert status == 1
    fixes = sentences(found, "fix")
    assert fixes
    assert all(finding in fix for fix in fixes)
    subjects = {fix.partition(":")[0] for fix in fixes}
    assert not any(each.partition(":")[0] in subjects for each in sentences(found, "ok", "stack"))
    assert sentences(found, "unknown") == []


@pytest.mark.parametrize(
    ("operation", "code", "gone", "unknown"),
    [
        (
            "DescribeRule",
            "ResourceNotFoundException",
            ["rule", "replay rule"],
            ["pattern", "resource policy"],
        ),
        (
            "GetFunctionConfiguration",
            "ResourceNotFoundException",
            ["function", "notifying function"],
            ["rule", "replay rule", "resource policy", "layer"],
        ),
        ("DescribeArchive", "ResourceNotFoundException", ["archive"], []),
        ("GetScheduleGroup", "ResourceNotFoundException", ["schedule group"], []),
        ("ListSubscriptionsByTopic", "NotFound", ["subscription"], []),
        (
            "GetQueueAttributes",
            "AWS.SimpleQueueService.NonExistentQueue",
            ["dead-letter queue", "unsent messages"],
            [],
        ),
    ],
)
def test_a_part_that_somebody_has_deleted_is_to_be_fixed(
    operation: str, code: str, gone: list[str], unknown: list[str]
) -> None:
    with account_with() as account:
        account.refused[operation] = code
        status, found = check()
    assert status == 1
    sentence = "It is gone: delete the stack, and deploy it again."
    assert sentences(found, "fix") == [f"{subject}: {sentence}" for subject in gone]
    missing = [each["subject"] for each in found["findings"] if each["mark"] == "unknown"]
    assert missing == unknown


def test_no_job_is_retried_while_the_stack_is_not_in_order() -> None:
    with account_with(nightly()) as account:
        disable("RuleName")(account)
        _, found = check()
    assert sentences(found, "ok", "jobs") == [
        "rule nightly: A failed call would be retried exactly, once the stack is in order."
    ]


def test_a_function_that_lambda_changes_by_itself_is_no_fault() -> None:
    for members, mark, sentence in (
        ({"State": "Inactive"}, "ok", "It can run."),
        ({"State": "Pending"}, "unknown", "It is being deployed: look again later."),
        ({"LastUpdateStatus": "InProgress"}, "unknown", "It is being deployed: look again later."),
    ):
        with account_with() as account:
            function_is(**members)(account)
            _, found = check()
        subjects = [each for each in found["findings"] if each["subject"] == "function"]
        assert [(each["mark"], each["sentence"]) for each in subjects] == [(mark, sentence)]


def test_what_is_wrong_is_said_even_if_the_rest_may_not_be_looked_at() -> None:
    with account_with() as account:
        disable("RuleName")(account)
        function_is(State="Failed")(account)
        message_in("DeadLetterQueue")(account)
        for operation in ("GetFunctionConcurrency", "ListTargetsByRule", "ListStackResources"):
            account.refused[operation] = "AccessDeniedException"
        status, found = check()
    assert status == 1
    subjects = [each["subject"] for each in found["findings"] if each["mark"] == "fix"]
    assert subjects == ["rule", "function", "dead-letter queue"]


def test_a_stack_of_another_version_is_looked_at_as_far_as_it_goes() -> None:
    with account_with() as account:
        output_is("StartReplayCommand", "aws events start-replay")(account)
        status, found = check()
        assert status == 2
        changed(
            account,
            "cloudformation",
            "ListStackResources",
            lambda page: page.update(StackResourceSummaries=[]),
        )
        status, found = check()
    unknown = sentences(found, "unknown")
    assert "notifying function: Not looked at: the stack has no Notify: it is of another ver" in (
        "".join(unknown)
    )
    assert len(unknown) == 5


def test_a_resource_policy_that_is_not_understood_is_unknown() -> None:
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "lambda:InvokeFunction",
        "Resource": "*",
        "Condition": {"StringNotEquals": {"aws:SourceAccount": "1"}},
    }
    with account_with() as account:
        policy = json.dumps({"Statement": [statement]})
        account.answers["GetPolicy"] = lambda _: {"Policy": policy}
        status, found = check()
    assert status == 2
    assert sentences(found, "unknown") == [
        "resource policy: Not looked at: it has a condition that is not understood "
        "('StringNotEquals')."
    ]


def test_both_rules_are_looked_at() -> None:
    with account_with() as account:
        name = account.resource("RetryRunTaskReplayedDeadLetter")
        bus = account.world.stack.name
        boto3.client("events").disable_rule(Name=name, EventBusName=bus)
        _, found = check()
    assert sentences(found, "fix") == [
        "replay rule: It is disabled: deploy with RuleState=ENABLED."
    ]


def test_a_stack_that_is_being_changed_is_looked_at_later() -> None:
    with account_with() as account:
        stack_is(StackStatus="UPDATE_IN_PROGRESS")(account)
        status, found = check()
    assert (status, sentences(found, "fix")) == (2, [])
    assert sentences(found, "unknown") == [
        "version: The stack is being changed (UPDATE_IN_PROGRESS): look again later."
    ]


@pytest.mark.parametrize(
    ("condition", "is_allowed"),
    [
        ({}, True),
        ({"ArnLike": {"AWS:SourceArn": "arn:aws:events:r:1:rule/x"}}, True),
        ({"ArnLike": {"aws:sourceArn": "arn:aws:events:r:1:rule/*"}}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:events:r:1:rule/y"}}, False),
        ({"StringEquals": {"aws:SourceAccount": "1"}}, True),
        ({"StringEquals": {"aws:SourceAccount": "2"}}, False),
    ],
)
@pytest.mark.parametrize(
    ("principal", "is_meant"),
    [
        ({"Service": "events.amazonaws.com"}, True),
        ({"Service": ["s3.amazonaws.com", "events.amazonaws.com"]}, True),
        ("*", True),
        ({"Service": "s3.amazonaws.com"}, False),
        ({"AWS": "*"}, False),
    ],
)
def test_a_resource_policy_lets_the_rule_in_or_not(
    principal: Any, is_meant: bool, condition: dict[str, Any], is_allowed: bool
) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": principal,
        "Action": "lambda:InvokeFunction",
        "Resource": "arn:function",
        "Condition": condition,
    }
    found = may_invoke([statement], "arn:function", "arn:aws:events:r:1:rule/x")
    assert found is (is_meant and is_allowed)


# No stack, another one, two of them.


def test_before_a_stack_is_deployed_the_jobs_are_judged_by_the_templates_defaults() -> None:
    with account_with(nightly(), every_night()):
        status, found = check("--stack", "not-there")
    assert status == 1
    assert sentences(found, "fix") == [
        "stack: There is no stack not-there in eu-west-1: deploy it, or give --stack "
        "(retry-run-task)."
    ]
    by_default = "A failed call would be retried exactly by a stack with the template's defaults."
    assert sentences(found, "ok", "jobs") == [
        f"rule nightly: {by_default}",
        f"schedule every-night: {by_default}",
    ]


@pytest.mark.parametrize(
    ("status", "mark", "sentence"),
    [
        (
            "ROLLBACK_COMPLETE",
            "fix",
            "The stack retry-run-task could not be made (ROLLBACK_COMPLETE): delete it, and deploy "
            "it again.",
        ),
        (
            "CREATE_IN_PROGRESS",
            "unknown",
            "The stack retry-run-task is being made (CREATE_IN_PROGRESS): look again later.",
        ),
        (
            "CREATE_COMPLETE",
            "fix",
            "The stack retry-run-task is not one of this template: give --stack.",
        ),
    ],
)
@pytest.mark.parametrize("outputs", [[], [{"OutputKey": "Url", "OutputValue": "x"}]])
def test_a_stack_that_is_none_of_this_template_does_not_stop_the_rest(
    outputs: list[dict[str, str]], status: str, mark: str, sentence: str
) -> None:
    with account_with(nightly()) as account:
        stack_is(StackStatus=status, Outputs=outputs)(account)
        _, found = check()
    assert sentences(found, mark, "stack") == [f"stack: {sentence}"]
    assert len(sentences(found, "ok", "trail")) == len(sentences(found, "ok", "jobs")) == 1


def test_a_function_that_cannot_run_is_said_and_jobs_are_judged_by_the_parameters() -> None:
    with account_with(nightly(), parameters={"ClusterArns": CLUSTER}) as account:
        function_is(Environment={"Variables": {"CALLERS": "NOBODY"}})(account)
        status, found = check()
    assert status == 1
    (sentence,) = sentences(found, "fix")
    assert sentence.startswith("settings: The function cannot run: FUNCTION_ROLE_NAME is None, but")
    assert sentences(found, "ok", "jobs") == [
        "rule nightly: A failed call would be retried exactly, once the stack is in order."
    ]


def test_an_environment_that_may_not_be_read_is_unknown() -> None:
    with account_with(nightly(), parameters={"ClusterArns": CLUSTER}) as account:
        error = {"ErrorCode": "AccessDeniedException", "Message": "Lambda was unable to decrypt"}
        function_is(Environment={"Error": error})(account)
        status, found = check()
    assert status == 2
    assert sentences(found, "unknown") == [
        "settings: Not looked at: the function's environment cannot be read: Lambda was unable to "
        "decrypt."
    ]


@pytest.mark.parametrize("region", ["cn-north-1", "us-gov-west-1"])
def test_parameters_mean_the_partition_of_their_region(region: str) -> None:
    stack = Deployed("x", "CREATE_COMPLETE", {}, {})
    (cluster,) = settings_from_parameters(stack, "123456789012", region).cluster_arns
    assert cluster.startswith("arn:aws-")


def other_stack(account: UserAccount, **parameters: str) -> None:
    """A second stack of the template, as DescribeStacks has it."""
    described = boto3.client("cloudformation").describe_stacks()["Stacks"]
    other: Any = json.loads(json.dumps(described[0], default=str))
    given = {p["ParameterKey"]: p for p in other["Parameters"]}
    for name, value in parameters.items():
        given[name] = {"ParameterKey": name, "ParameterValue": value}
    other |= {"StackName": "other", "Parameters": list(given.values())}

    def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"Stacks": described if "StackName" in asked else [*described, other]}

    account.answers["DescribeStacks"] = answer


@pytest.mark.parametrize(
    ("ours", "theirs", "is_over_the_same"),
    [
        ({}, {}, True),
        ({}, {"ClusterArns": CLUSTER}, True),
        ({"ClusterArns": CLUSTER}, {}, True),
        ({"ClusterArns": CLUSTER}, {"ClusterArns": f"{CLUSTER}-2"}, False),
        ({"ClusterArns": f"{CLUSTER}*"}, {"ClusterArns": f"{CLUSTER}-2"}, True),
        (
            {"TaskDefinitionArns": f"{DEFINITIONS}/nightly-*:*"},
            {"TaskDefinitionArns": f"{DEFINITIONS}/*-report:*"},
            True,
        ),
        (
            {"ClusterArns": CLUSTER},
            {"TaskDefinitionArns": f"{DEFINITIONS}/nightly:*"},
            True,
        ),
        (
            {"TaskDefinitionArns": f"{DEFINITIONS}/nightly:*"},
            {"TaskDefinitionArns": f"{DEFINITIONS}/hourly:*"},
            False,
        ),
        ({}, {"RuleState": "DISABLED"}, False),
        ({}, {"OfAnotherVersion": "1", "MaxAttempts": "900"}, True),
    ],
)
def test_a_second_stack_over_the_same_jobs_is_found(
    ours: dict[str, str], theirs: dict[str, str], is_over_the_same: bool
) -> None:
    with account_with(parameters=ours) as account:
        other_stack(account, **theirs)
        status, found = check()
    assert (status == 1) is is_over_the_same
    expected = (
        [
            "other stacks: other may cover the same jobs: narrow one of the stacks (ClusterArns, "
            "TaskDefinitionArns), or delete one."
        ]
        if is_over_the_same
        else []
    )
    assert sentences(found, "fix") == expected


@given(st.text("ab*?", max_size=6), st.text("ab*?", max_size=6), st.text("ab", max_size=4))
@example("*a", "b*", "ba")
@example("?", "", "")
def test_patterns_meet_where_a_text_matches_both(one: str, other: str, text: str) -> None:
    def matches(pattern: str) -> bool:
        return re.fullmatch(pattern.replace("*", ".*").replace("?", "."), text) is not None

    assert meet(one, other) == meet(other, one)
    assert meet(one, text) == matches(one)
    if matches(one) and matches(other):
        assert meet(one, other)


# What the user is not allowed to look at.

OPERATIONS = {action: name.partition(":")[2] for name, action in RENAMED.items()}


@pytest.mark.parametrize("service", sorted({action.partition(":")[0] for action in ACTIONS}))
def test_a_missing_permission_is_named_and_does_not_stop_the_rest(service: str) -> None:
    codes = {"sns": "AuthorizationError", "sqs": "AccessDenied", "iam": "AccessDenied"}
    tagged = every_night(EcsParameters={"Tags": [{"a": "b"}]}, Target={"Input": environment("x")})
    with account_with(nightly(Input=environment("y")), tagged) as account:
        for action in (action for action in ACTIONS if action.startswith(f"{service}:")):
            operation = OPERATIONS.get(action, action.partition(":")[2])
            account.refused = {operation: codes.get(service, "AccessDeniedException")}
            status, found = check()
            assert (status, sentences(found, "fix")) == (2, []), action
            unknown = sentences(found, "unknown")
            unknown = [each for each in unknown if ": A failed call would be" not in each]
            assert unknown, action
            assert all(f"you are not allowed to call {action}." in each for each in unknown)
            looked_at = {each["subject"] for each in found["findings"] if each["mark"] == "ok"}
            assert len(looked_at) >= (2 if action == "cloudformation:DescribeStacks" else 9)


def test_its_policy_is_enough_and_all_of_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    # moto signs the query of a GET in another way than botocore does.
    monkeypatch.setattr(IAMRequestBase, "check_signature", lambda _: None)
    help_text = run_command(main, "--help")[1]
    assert json.loads(help_text[help_text.index('{\n  "Version"') :]) == POLICY
    tagged = every_night(EcsParameters={"Tags": [{"a": "b"}]}, Target={"Input": environment("x")})
    with account_with(nightly(Input=environment("y")), tagged) as account:
        # moto has the endpoint's name in place of IAM's.
        moto = {"Effect": "Allow", "Action": ["monitoring:DescribeAlarms"]}
        with enforcing([*POLICY["Statement"], moto]):  # type: ignore[list-item]
            status, found = check()
        assert (status, sentences(found, "fix") + sentences(found, "unknown")) == (0, [])
        assert set(account.sent) - {"sts:GetCallerIdentity"} == set(ACTIONS)


def test_it_changes_nothing() -> None:
    assert all(
        action.partition(":")[2].startswith(("Describe", "Get", "List", "Simulate", "TestEvent"))
        for action in ACTIONS
    )


# Jobs.

DEFINED = sorted(path.stem for path in (EVENTS / "definitions").glob("*.json"))


@pytest.mark.parametrize("name", DEFINED)
def test_a_job_is_judged_as_the_function_judges_its_call(name: str) -> None:
    """Each rule and schedule fires, its call fails, and the handler itself says what comes."""
    definitions = load_definitions(name)
    with user_account(definitions=definitions, failures=1) as account:
        for each in definitions["Rules"] + definitions["Schedules"]:
            targets = each["Targets"] if "Targets" in each else [each["Target"]]
            for target in targets:
                given = target.get("EcsParameters") or json.loads(target["Input"])
                task = given.get("TaskDefinitionArn") or given["TaskDefinition"]
                family = task.rpartition("/")[2]
                known = boto3.client("ecs").list_task_definition_families()["families"]
                if family.partition(":")[0] not in known:
                    account.define_task(family)
        for role in {"caller-role", "nightly-report-events", "nightly-report-scheduler"}:
            account.allow(role, [MAY_TAG])
        _, found = check()
        jobs = {}
        for each in definitions["Rules"]:
            jobs[f"rule {each['Name']}"] = fired(account.world, rule(each["Name"]))
        for each in definitions["Schedules"]:
            group = each.get("GroupName", "default")
            path = each["Name"] if group == "default" else f"{group}/{each['Name']}"
            jobs[f"schedule {path}"] = fired(account.world, schedule(each["Name"], group))
    marks = {each["subject"]: each["mark"] for each in found["findings"] if each["part"] == "jobs"}
    assert marks == {
        title: "ok" if outcome == "LAUNCHED" else "fix" for title, outcome in jobs.items()
    }


def fired(world: World, definition: Any) -> str:
    """The last outcome of a failed call of the definition."""
    try:
        world.fire(definition)
    except NotExact:  # nobody knows what the call would be
        return "NOT_REPLAYABLE"
    world.run()
    return str(world.outcomes[-1]["outcome"])


def transformer(template: str) -> dict[str, Any]:
    paths = {"b": "$.detail.bucket.name", "all": "$.detail"}
    return {"InputTransformer": {"InputPathsMap": paths, "InputTemplate": template}}


MADE_UP = '{"containerOverrides": [{"name": "main", "%s": %s}]}'
FILLED_IN = (
    "A failed call would end as NOT_REPLAYABLE: The request cannot be repeated: "
    "overrides.containerOverrides[0].environment is hidden by CloudTrail, and the rule nightly on "
    "the bus default fills in the environment when it fires: put the value into the command, "
    "which CloudTrail does not hide."
)
OPEN = (
    "Its cluster, task definition or a role is filled in when it fires: whether it would be "
    "retried cannot be checked."
)
OPEN_OVERRIDES = (
    "Its overrides are filled in when it fires: a failed call is retried only if they set no "
    "environment."
)
RETRIED = "A failed call would be retried exactly, and the policy allows it."
TAGS = [{"Key": f"t{n}", "Value": "x"} for n in range(48)]


CASES: list[tuple[dict[str, Any], str, str]] = [
    (nightly(Input=environment("secret")), "ok", RETRIED),
    (nightly(Input="{}"), "ok", RETRIED),
    (
        nightly(Input="no JSON"),
        "fix",
        "Its call cannot be predicted: Input is not JSON: correct it.",
    ),
    (
        nightly(**transformer('"hello <b>"')),
        "fix",
        "Its call cannot be predicted: overrides is text, and has to be an object: correct it.",
    ),
    (
        nightly(**transformer('{"containerOverrides": ["<b>"]}')),
        "fix",
        "Its call cannot be predicted: overrides.containerOverrides[0] is text, and has to be "
        "an object: correct it.",
    ),
    (
        nightly(**transformer('{"taskRoleArn": "<b>"}')),
        "unknown",
        OPEN,
    ),
    (nightly(**transformer(MADE_UP % ("command", '["copy", "<b>"]'))), "ok", RETRIED),
    (nightly(**transformer(MADE_UP % ("command", "[<b>]"))), "ok", RETRIED),
    (
        nightly(**transformer(MADE_UP % ("environment", '[{"name": "B", "value": <b>}]'))),
        "fix",
        FILLED_IN,
    ),
    (nightly(**transformer(MADE_UP % ("environment", "<b>"))), "fix", FILLED_IN),
    (nightly(**transformer('{"containerOverrides": <all>}')), "unknown", OPEN_OVERRIDES),
    (nightly(**transformer('{"containerOverrides": [<all>]}')), "unknown", OPEN_OVERRIDES),
    (nightly(**transformer("<all>")), "unknown", OPEN_OVERRIDES),
    (nightly(InputPath="$.detail"), "unknown", OPEN_OVERRIDES),
    (
        nightly(InputPath="$.detail", EcsParameters={"Tags": TAGS}),
        "fix",
        "A failed call would end as NOT_REPLAYABLE: The request cannot be repeated: tags has "
        "no room for 4 more beside 48: ECS takes 50.",
    ),
    (nightly(EcsParameters={"Tags": TAGS[:47]}), "ok", RETRIED),
    (
        nightly(EcsParameters={"Tags": TAGS}),
        "fix",
        "A failed call would end as NOT_REPLAYABLE: The request cannot be repeated: tags has "
        "no room for 3 more beside 48: ECS takes 50.",
    ),
    (
        every_night(EcsParameters={"Tags": [{"Key": "team", "Value": "x"}]}),
        "fix",
        'A tag is named `Key`: Scheduler\'s tags are maps. Write {"team": "x"}.',
    ),
    (
        every_night(EcsParameters={"Tags": [{"value": "x", "key": "team"}]}),
        "fix",
        'A tag is named `key`: Scheduler\'s tags are maps. Write {"team": "x"}.',
    ),
    (every_night(EcsParameters={"Tags": [{"key": "the tag `key`"}]}), "ok", RETRIED),
    (every_night(Target={"Input": environment("secret")}), "ok", RETRIED),
    (
        nightly(EcsParameters={"TaskDefinitionArn": "nightly"}),
        "ok",
        RETRIED,
    ),
    (
        nightly(EcsParameters={"TaskDefinitionArn": "gone:1"}),
        "fix",
        "The task definition gone:1 is not there: register it, or let the job start another.",
    ),
    (every_night(State="DISABLED"), "ok", f"{RETRIED} It is disabled, and makes no calls now."),
    (
        every_night(State="DISABLED", Target={"Input": environment("secret")}),
        "ok",
        f"{RETRIED} It is disabled, and makes no calls now.",
    ),
    (
        every_night(
            ScheduleExpression="at(2027-01-01T00:00:00)",
            Target={"Input": environment("secret")},
        ),
        "ok",
        RETRIED,
    ),
    (
        every_night(
            ScheduleExpression="at(2027-01-01T00:00:00)",
            ActionAfterCompletion="DELETE",
            Target={"Input": environment("secret")},
        ),
        "fix",
        "It deletes itself after its last call, and its environment, which CloudTrail hides, "
        "is gone with it: let it stay (ActionAfterCompletion NONE), or put the value into the "
        "command.",
    ),
    (
        every_night(ScheduleExpression="at(2027-01-01T00:00:00)", ActionAfterCompletion="DELETE"),
        "ok",
        RETRIED,
    ),
    (
        every_night(ActionAfterCompletion="DELETE", Target={"Input": environment("secret")}),
        "ok",
        RETRIED,
    ),
    (
        every_night(ScheduleExpression="at(never)"),
        "fix",
        "Its call cannot be predicted: ScheduleExpression is no time that can be read: correct it.",
    ),
    (
        nightly(EcsParameters={"TaskCount": 11}),
        "fix",
        "It asks for 11 tasks, and ECS takes 1 to 10 at once: correct it.",
    ),
    (nightly(EcsParameters={"TaskCount": 10}), "ok", RETRIED),
    (
        nightly(EcsParameters={"Tags": [{"Key": "aws:x", "Value": "y"}]}),
        "fix",
        "Its tag aws:x begins with aws:, which is for AWS only: ECS rejects its calls until "
        "you remove it.",
    ),
    (
        nightly(EcsParameters={"TaskDefinitionArn": f"{DEFINITIONS}/x:1".replace("eu", "us")}),
        "fix",
        "Its taskDefinition is of another Region or account, where this stack is not: use a "
        "stack there, or correct it.",
    ),
    (
        nightly(RoleArn=f"{ROLES}another", EcsParameters={"Tags": TAGS[:1]}),
        "fix",
        "Its caller's role another is not there: make it again, or give the target another.",
    ),
    (nightly(RoleArn=f"{ROLES}another"), "ok", RETRIED),
]


@cache
def judged_together() -> tuple[dict[str, list[tuple[str, str]]], str]:
    """Marks and sentences of all of them, each under a name of its own in one account."""
    jobs = [definition | {"Name": f"job-{n}"} for n, (definition, _, _) in enumerate(CASES)]
    _, found = of_job(*jobs)
    judged: dict[str, list[tuple[str, str]]] = {}
    for each in found["findings"]:
        name = each["subject"].rpartition(" ")[2]
        judged.setdefault(name, []).append((each["mark"], each["sentence"]))
    return judged, json.dumps(found)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_job_gets_a_sentence_to_act_on(number: int) -> None:
    _, mark, sentence = CASES[number]
    judged, text = judged_together()
    expected = sentence.replace("the rule nightly on", f"the rule job-{number} on")
    assert judged[f"job-{number}"] == [(mark, expected)]
    assert "secret" not in text


def universal(**given: Any) -> dict[str, Any]:
    """A schedule with the universal target."""
    return every_night(
        Target={
            "Arn": "arn:aws:scheduler:::aws-sdk:ecs:runTask",
            "Input": json.dumps({"TaskDefinition": "nightly:42", "Cluster": "jobs"} | given),
            "EcsParameters": {},
        }
    )


def of_universal(**given: Any) -> list[str]:
    definition = universal(**given)
    del definition["Target"]["EcsParameters"]
    _, found = of_job(definition)
    return sentences(found, "ok", "jobs") + sentences(found, "fix", "jobs")


def test_a_universal_target_is_a_job_as_well() -> None:
    overrides = json.loads(environment("secret").replace("containerO", "ContainerO"))
    for container in overrides["ContainerOverrides"]:
        container["Name"] = container.pop("name")
        container["Environment"] = [{"Name": "TOKEN", "Value": "secret"}]
        del container["environment"]
    title = "schedule every-night"
    assert of_universal() == [f"{title}: {RETRIED}"]
    assert of_universal(Overrides=overrides) == [f"{title}: {RETRIED}"]
    assert of_universal(Tags=[{"Key": "retry-run-task:max-attempts", "Value": "3"}]) == [
        f"{title}: {RETRIED}"
    ]
    assert of_universal(taskDefinition="x") == [
        f"{title}: Its call cannot be predicted: Input.taskDefinition is unknown to botocore's "
        "model: correct it."
    ]
    assert of_universal(StartedBy="AWS Step Functions") == [
        f"{title}: A failed call would end as LEFT_ALONE: The stack leaves calls of "
        "step-functions callers alone (Callers is UNATTENDED); the tag "
        "retry-run-task:max-attempts on the job opts it in."
    ]


def test_two_rules_that_differ_in_what_cloudtrail_hides_name_each_other() -> None:
    one, other = (nightly(Input=environment(value)) for value in "xy")
    other["EventBusName"] = "orders"
    _, found = of_job(one, other)
    (first, second) = sentences(found, "fix")
    assert first.startswith("rule nightly: A failed call would end as NOT_REPLAYABLE: ")
    assert second.startswith("rule orders/nightly: A failed call would end as NOT_REPLAYABLE: ")
    assert (
        "the rule nightly on the bus default and the rule nightly on the bus orders both" in first
    )
    assert "fit the call, and their environments differ: give each a role, group or tag" in first


def test_targets_of_one_rule_are_jobs_each() -> None:
    rule = nightly()
    rule["Targets"].append(rule["Targets"][0] | {"Id": "u", "InputPath": "$.detail"})
    rule["Targets"].append({"Id": "v", "Arn": "arn:aws:sqs:eu-west-1:123456789012:queue"})
    _, found = of_job(rule)
    assert sentences(found, "ok", "jobs") == [f"rule nightly, target t: {RETRIED}"]
    assert sentences(found, "unknown", "jobs") == [f"rule nightly, target u: {OPEN_OVERRIDES}"]


def test_rules_and_schedules_of_other_things_are_no_jobs() -> None:
    rule, schedule = nightly(), every_night()
    function = "arn:aws:lambda:eu-west-1:123456789012:function:f"
    rule["Targets"] = [{"Id": "v", "Arn": function}]
    schedule["Target"] = {"Arn": function, "RoleArn": f"{ROLES}caller"}
    status, found = of_job(rule, schedule)
    assert status == 0
    assert sentences(found, "ok", "jobs") == [
        "jobs: No rule or schedule of this Region starts an ECS task."
    ]


def test_nobody_says_that_there_are_no_jobs_who_has_not_seen_them() -> None:
    with account_with(nightly()) as account:
        account.refused |= {"ListRules": "AccessDenied", "ListSchedules": "AccessDenied"}
        status, found = check()
    assert status == 2
    assert sentences(found, "ok", "jobs") == []
    assert [sentence.partition(":")[0] for sentence in sentences(found, "unknown")] == [
        "rules",
        "schedules",
    ]


def test_a_rule_that_the_deployed_pattern_does_not_match_is_said() -> None:
    with account_with(nightly()) as account:
        with_pattern({"source": ["x"]})(account)
        _, found = check()
    assert sentences(found, "fix", "jobs") == [
        "rule nightly: The stack's rule does not match a failed call of it: deploy the stack again."
    ]


def test_whatever_is_filled_in_cannot_be_checked_against_a_narrow_stack() -> None:
    volume = {"Name": "v", "ManagedEBSVolume": {"RoleArn": "<aws.scheduler.execution-id>"}}
    narrow = {"ClusterArns": CLUSTER, "TaskDefinitionArns": f"{DEFINITIONS}/nightly:*"}
    for changes in (
        {"TaskDefinition": "<aws.scheduler.execution-id>"},
        {"Cluster": "<aws.scheduler.execution-id>"},
        {"Overrides": {"ExecutionRoleArn": "<aws.scheduler.execution-id>"}},
        {"VolumeConfigurations": [volume]},
    ):
        definition = universal(**changes)
        del definition["Target"]["EcsParameters"]
        status, found = of_job(definition, parameters=narrow)
        assert (status, found["left_out"]) == (2, {})
        assert sentences(found, "unknown", "jobs") == [f"schedule every-night: {OPEN}"]


@pytest.mark.parametrize(
    ("changes", "is_over"),
    [
        ({"ScheduleExpression": "at(2026-11-20T00:00:00)"}, True),
        ({"EndDate": "2026-11-20T00:00:00Z"}, True),
        ({"StartDate": "2026-12-20T00:00:00Z"}, True),
        ({}, False),
    ],
)
def test_a_disabled_schedule_is_judged_as_when_it_was_enabled(
    changes: dict[str, Any], is_over: bool
) -> None:
    """Its last call was due when it was disabled; what it would do is not known of any other."""
    schedule = every_night(
        Target={"Input": environment("x")},
        State="DISABLED",
        CreationDate="2026-11-01T00:00:00Z",
        LastModificationDate="2026-11-21T00:00:00Z",
        **changes,
    )
    status, found = of_job(schedule)
    assert (status, found["fix"]) == (0, 0)
    assert found["left_out"] == (
        {"no more calls are due": ["schedule every-night"]} if is_over else {}
    )


def test_a_schedule_that_begins_later_is_judged_as_when_it_begins() -> None:
    schedule = every_night(Target={"Input": environment("x")}, StartDate="2026-12-20T00:00:00Z")
    status, found = of_job(schedule)
    assert (status, sentences(found, "ok", "jobs")) == (0, [f"schedule every-night: {RETRIED}"])


def test_a_disabled_rule_is_judged_and_said_to_be_disabled() -> None:
    with account_with(nightly()):
        boto3.client("events").disable_rule(Name="nightly")
        _, found = check()
    assert sentences(found, "ok", "jobs") == [
        f"rule nightly: {RETRIED} It is disabled, and makes no calls now."
    ]


def test_what_is_none_of_the_stacks_jobs_is_named_and_not_judged() -> None:
    elsewhere = nightly(Arn=f"{CLUSTER}-2") | {"Name": "elsewhere"}
    opted_out = nightly(
        EcsParameters={"Tags": [{"Key": "retry-run-task:max-attempts", "Value": "0"}]}
    )
    over = every_night(
        ScheduleExpression="at(2026-11-20T00:00:00)",
        CreationDate="2026-11-01T00:00:00Z",
    )
    reasons = {
        "outside the stack's ClusterArns or TaskDefinitionArns": ["rule elsewhere"],
        "opted out by a tag of the job": ["rule nightly"],
        "no more calls are due": ["schedule every-night"],
    }
    jobs = (elsewhere, opted_out, over)
    with account_with(*jobs, parameters={"ClusterArns": CLUSTER}):
        status, found = check()
        _, out, _ = run_command(main)
        named = {title: check("--job", title.partition(" ")[2]) for (title,) in reasons.values()}
    assert (status, found["left_out"]) == (0, reasons)
    for reason, (title,) in reasons.items():
        assert f"\nNot judged ({reason}): {title}.\n" in out
        _, found = named[title]
        if reason.startswith("outside"):
            way_out = "widen the stack, or give --stack with another one"
            said = [f"{title}: It is not retried ({reason}): {way_out}."]
            assert sentences(found, "fix", "jobs") == said
        else:
            assert sentences(found, "ok", "jobs") == [f"{title}: It is not retried: {reason}."]


@pytest.mark.parametrize(
    ("parameters", "given", "sentence"),
    [
        (
            {"PassRoleArns": f"{ROLES}execution"},
            {},
            f"The role task is not in PassRoleArns: add {ROLES}task.",
        ),
        (
            {"PassRoleArns": f"{ROLES}*n"},
            {"taskRoleArn": "short"},
            f"The role short is not in PassRoleArns: add {ROLES}short.",
        ),
        (
            {},
            {"taskRoleArn": "arn:aws:iam::999999999999:role/x"},
            "The function's role is not allowed iam:PassRole for arn:aws:iam::999999999999:role/x: "
            "see the role's policies.",
        ),
    ],
)
def test_what_the_functions_policy_refuses_is_said(
    parameters: dict[str, str], given: dict[str, Any], sentence: str
) -> None:
    with user_account(parameters, {"Rules": [nightly()]}) as account:
        account.define_task("nightly:42", **given)
        _, found = check()
    assert sentences(found, "fix") == [f"rule nightly: {sentence}"]


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (
            "ecs:RunTask",
            "rule nightly: The function's role is not allowed ecs:RunTask for nightly:42 in jobs: "
            "see the role's policies.",
        ),
        (
            "ecs:TagResource",
            "rule nightly: The function's role is not allowed ecs:TagResource in jobs: see the "
            "role's policies.",
        ),
        (
            "iam:PassRole",
            "policy: The function's role is not allowed iam:PassRole: deploy the stack again.",
        ),
        *(
            (
                action,
                f"policy: The function's role is not allowed {action}: deploy the stack again.",
            )
            for action in (
                "scheduler:CreateSchedule",
                "events:ListEventBuses",
                "events:ListRuleNamesByTarget",
                "events:ListTargetsByRule",
                "scheduler:ListSchedules",
                "scheduler:GetSchedule",
                "scheduler:UpdateSchedule",
            )
        ),
    ],
)
def test_a_permission_that_somebody_took_away_is_missed(action: str, sentence: str) -> None:
    with account_with(nightly()) as account:
        role = account.resource("RetryRunTaskRole")
        deny = {"Effect": "Deny", "Action": action, "Resource": "*"}
        boto3.client("iam").put_role_policy(
            RoleName=role,
            PolicyName="deny",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [deny]}),
        )
        _, found = check()
    assert sentence in sentences(found, "fix")
    assert all(action in each for each in sentences(found, "fix"))


def test_what_the_function_needs_for_any_job_is_asked_about_its_own_resources() -> None:
    with account_with() as account:
        asked = []
        simulate = account.answers["SimulatePrincipalPolicy"]

        def answer(question: Mapping[str, Any]) -> Mapping[str, Any]:
            context = [
                value
                for entry in question["ContextEntries"]
                if entry["ContextKeyName"] != "aws:RequestedRegion"
                for value in (entry["ContextKeyName"], *entry["ContextKeyValues"])
            ]
            asked.append((*question["ActionNames"], *question["ResourceArns"], *context))
            return simulate(question)

        account.answers["SimulatePrincipalPolicy"] = answer
        check()
        group, role = account.output("ScheduleGroupName"), account.resource("SchedulerRole")
    schedules = "arn:aws:scheduler:eu-west-1:123456789012:schedule"
    assert asked == [
        ("scheduler:CreateSchedule", f"{schedules}/{group}/attempt"),
        ("iam:PassRole", f"{ROLES}{role}", "iam:PassedToService", "scheduler.amazonaws.com"),
        ("events:ListEventBuses", "*"),
        ("events:ListRuleNamesByTarget", "*"),
        ("events:ListTargetsByRule", "arn:aws:events:eu-west-1:123456789012:rule/name"),
        ("scheduler:ListSchedules", "*"),
        ("scheduler:GetSchedule", f"{schedules}/default/name"),
        ("scheduler:GetSchedule", f"{schedules}/{group}/attempt"),
        ("scheduler:UpdateSchedule", f"{schedules}/{group}/attempt"),
    ]


def test_who_may_not_look_up_needs_no_permission_for_it() -> None:
    off = {"RecoverHiddenEnvironment": "false", "PullForward": "false"}
    with account_with(nightly(), parameters=off):
        status, found = check()
    assert (status, sentences(found, "fix")) == (0, [])


@pytest.mark.parametrize(
    ("result", "mark", "sentence"),
    [
        (
            {"MissingContextValues": ["aws:ResourceTag/x"]},
            "unknown",
            "The function's role is not allowed ecs:RunTask for nightly:42 in jobs, if conditions "
            "on aws:ResourceTag/x do not hold: look at them.",
        ),
        (
            {"ResourceSpecificResults": [{"MissingContextValues": ["aws:PrincipalTag/y"]}]},
            "unknown",
            "The function's role is not allowed ecs:RunTask for nightly:42 in jobs, if conditions "
            "on aws:PrincipalTag/y do not hold: look at them.",
        ),
        (
            {"PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False}},
            "fix",
            "The function's role is not allowed ecs:RunTask for nightly:42 in jobs (its "
            "permissions boundary): see the role's policies.",
        ),
        (
            {"OrganizationsDecisionDetail": {"AllowedByOrganizations": False}},
            "fix",
            "The function's role is not allowed ecs:RunTask for nightly:42 in jobs (a policy of "
            "the organisation): see the role's policies.",
        ),
    ],
)
def test_whose_word_a_refusal_is_and_what_iam_does_not_know(
    result: dict[str, Any], mark: str, sentence: str
) -> None:
    with account_with(nightly()) as account:
        simulate = account.answers["SimulatePrincipalPolicy"]

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            if asked["ActionNames"] != ["ecs:RunTask"]:
                return simulate(asked)
            return {"EvaluationResults": [{"EvalDecision": "implicitDeny"} | result]}

        account.answers["SimulatePrincipalPolicy"] = answer
        _, found = check()
    assert sentences(found, mark) == [f"rule nightly: {sentence}"]


def test_a_boundary_is_no_matter_of_pass_role_arns() -> None:
    boundary = {"PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False}}
    with account_with(nightly(), parameters={"PassRoleArns": f"{ROLES}*"}) as account:
        result = {"EvalDecision": "implicitDeny"} | boundary
        account.answers["SimulatePrincipalPolicy"] = lambda _: {"EvaluationResults": [result]}
        _, found = check()
    assert not [sentence for sentence in sentences(found, "fix") if "PassRoleArns" in sentence]


def test_the_roles_are_those_of_the_overrides_and_of_volumes() -> None:
    given = {
        "Overrides": {"TaskRoleArn": f"{ROLES}over", "ExecutionRoleArn": f"{ROLES}execution"},
        "VolumeConfigurations": [
            {"Name": "v", "ManagedEBSVolume": {"RoleArn": f"{ROLES}volumes", "SizeInGiB": 1}}
        ],
    }
    definition = universal(**given)
    del definition["Target"]["EcsParameters"]
    with account_with(definition, parameters={"PassRoleArns": f"{ROLES}execution"}) as account:
        asked = []
        simulate = account.answers["SimulatePrincipalPolicy"]

        def answer(question: Mapping[str, Any]) -> Mapping[str, Any]:
            context = {
                c["ContextKeyName"]: c["ContextKeyValues"] for c in question["ContextEntries"]
            }
            assert context.pop("aws:RequestedRegion") == ["eu-west-1"]
            asked.append((*question["ActionNames"], *question["ResourceArns"], context))
            return simulate(question)

        account.answers["SimulatePrincipalPolicy"] = answer
        _, found = check()
    passed = {"iam:PassedToService": ["ecs-tasks.amazonaws.com"]}
    attached = {"iam:PassedToService": ["ecs.amazonaws.com"]}
    task = f"{CLUSTER.replace('cluster', 'task')}/{'0' * 32}"
    where = {"ecs:cluster": [CLUSTER]}
    definition_arn = f"{DEFINITIONS}/nightly:42"
    assert asked[-5:] == [
        ("ecs:RunTask", definition_arn, where),
        ("ecs:TagResource", task, where | {"ecs:CreateAction": ["RunTask"]}),
        ("iam:PassRole", f"{ROLES}over", passed),
        ("iam:PassRole", f"{ROLES}execution", passed),
        ("iam:PassRole", f"{ROLES}volumes", attached),
    ]
    assert sentences(found, "fix") == [
        f"schedule every-night: The role {name} is not in PassRoleArns: add {ROLES}{name}."
        for name in ("over", "volumes")
    ]


def test_a_caller_that_sends_tags_and_may_not_is_rejected_by_ecs() -> None:
    tagged = nightly(EcsParameters={"Tags": [{"Key": "team", "Value": "x"}]})
    with user_account(definitions={"Rules": [tagged]}) as account:
        account.define_task("nightly:42")
        account.allow("caller", [MAY_TAG | {"Action": "ecs:RunTask"}])
        _, found = check()
    assert sentences(found, "fix") == [
        "rule nightly: It sends tags, and its caller's role caller is not allowed ecs:TagResource: "
        "ECS rejects its calls until it is."
    ]


def test_what_a_caller_sends_is_known_to_the_conditions_of_its_policy() -> None:
    tagged = nightly(EcsParameters={"Tags": [{"Key": "team", "Value": "x"}]})
    conditions = {
        "StringEquals": {"aws:RequestTag/team": "x", "aws:RequestedRegion": "eu-west-1"},
        "StringLike": {"aws:TagKeys": "te*"},
    }
    with user_account(definitions={"Rules": [tagged]}) as account:
        account.define_task("nightly:42")
        account.allow("caller", [MAY_TAG | {"Condition": conditions}])
        _, found = check()
    assert sentences(found, "fix") == []


def test_an_inactive_task_definition_cannot_be_started() -> None:
    with account_with(nightly()) as account:
        changed(
            account,
            "ecs",
            "DescribeTaskDefinition",
            lambda found: found["taskDefinition"].update(status="INACTIVE"),
        )
        _, found = check()
    assert sentences(found, "fix") == [
        "rule nightly: The task definition nightly:42 is not active: let the job start another."
    ]


def test_what_many_jobs_have_in_common_is_asked_and_said_once() -> None:
    rules = [nightly() | {"Name": f"nightly-{n}"} for n in range(5)]
    with account_with(*rules) as account:
        simulate, asked = account.answers["SimulatePrincipalPolicy"], []

        def answer(question: Mapping[str, Any]) -> Mapping[str, Any]:
            asked.append(json.dumps(question))
            return simulate(question)

        account.answers["SimulatePrincipalPolicy"] = answer
        status, found = check()
        sent = account.sent
        assert sent.count("ecs:DescribeTaskDefinition") == 1
        assert sent.count("iam:SimulatePrincipalPolicy") == len(set(asked)) == len(asked)
        assert sent.count("events:DescribeRule") == 5
        for operation in ("SimulatePrincipalPolicy", "DescribeTaskDefinition", "TestEventPattern"):
            account.refused[operation] = "AccessDenied"
        del sent[:]
        status, found = check()
        assert sent.count("iam:SimulatePrincipalPolicy") == 1
        assert sent.count("ecs:DescribeTaskDefinition") == 1
        assert sent.count("events:TestEventPattern") == 2
    assert status == 2
    assert sentences(found, "unknown", "jobs") == [
        "rule nightly-0: A failed call would be retried exactly, but not all was looked at "
        "(pattern, task definitions).",
        "pattern: Not looked at: you are not allowed to call events:TestEventPattern.",
        "task definitions: Not looked at: you are not allowed to call ecs:DescribeTaskDefinition.",
        *(
            f"rule nightly-{n}: A failed call would be retried exactly, but not all was looked at "
            "(pattern, task definitions)."
            for n in range(1, 5)
        ),
    ]


def test_what_several_parts_need_is_asked_once_even_if_it_is_denied() -> None:
    with account_with() as account:
        account.refused["GetFunctionConfiguration"] = "AccessDeniedException"
        account.refused["ListStackResources"] = "AccessDenied"
        check()
    assert account.sent.count("lambda:GetFunctionConfiguration") == 1
    assert account.sent.count("cloudformation:ListStackResources") == 1


def test_what_is_denied_or_deleted_meanwhile_does_not_stop_the_list() -> None:
    names = [f"job-{n}" for n in range(3)]
    jobs = [nightly() | {"Name": name} for name in names]
    jobs += [every_night() | {"Name": name} for name in names]
    for code, unknown in {"AccessDeniedException": 2, "ResourceNotFoundException": 0}.items():
        with account_with(*jobs) as account:
            for service, operation, member in (
                ("events", "ListTargetsByRule", "Rule"),
                ("scheduler", "GetSchedule", "Name"),
            ):
                refuse_one(account, service, operation, member, code)
            _, found = check()
        judged = [each["subject"] for each in found["findings"] if each["mark"] == "ok"]
        expected = [f"{kind} job-{n}" for kind in ("rule", "schedule") for n in (0, 2)]
        assert [title for title in judged if "job-" in title] == expected
        assert len(sentences(found, "unknown")) == unknown


def refuse_one(account: UserAccount, service: str, operation: str, member: str, code: str) -> None:
    """AWS refuses the operation for `job-1` alone."""
    client = boto3.client(service)  # type: ignore[call-overload]

    def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        if asked[member] == "job-1":
            raise ClientError({"Error": {"Code": code}}, operation)
        answered: Mapping[str, Any] = getattr(client, xform_name(operation))(**asked)
        return answered

    account.answers[operation] = answer


def test_all_pages_are_read() -> None:
    names = [f"job-{n}" for n in range(3)]
    with account_with(*(nightly() | {"Name": name} for name in names)) as account:
        rules = boto3.client("events").list_rules()["Rules"]
        wanted = [rule for rule in rules if rule["Name"] in names]

        def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
            if asked["EventBusName"] != "default":
                return {"Rules": []}
            number = int(asked.get("NextToken", "0"))
            more = {"NextToken": str(number + 1)} if number < 2 else {}
            return {"Rules": wanted[number : number + 1], **more}

        account.answers["ListRules"] = answer
        _, found = check()
    assert sentences(found, "ok", "jobs") == [f"rule {name}: {RETRIED}" for name in names]


def test_rules_on_the_default_bus_need_no_list_of_buses() -> None:
    with account_with(nightly(), nightly() | {"EventBusName": "b"}) as account:
        account.refused["ListEventBuses"] = "AccessDeniedException"
        status, found = check()
    assert status == 2
    assert sentences(found, "ok", "jobs") == [f"rule nightly: {RETRIED}"]
    assert sentences(found, "unknown", "jobs") == [
        "rules on other buses: Not looked at: you are not allowed to call events:ListEventBuses."
    ]


def test_a_target_without_a_role_cannot_call_ecs() -> None:
    rule = nightly()
    del rule["Targets"][0]["RoleArn"]
    definitions = {"Rules": [nightly() | {"Name": "other"}]}
    with user_account(definitions=definitions) as account:
        account.define_task("nightly:42")
        events = boto3.client("events")
        events.put_rule(Name="nightly", EventPattern='{"source": ["x"]}')
        events.put_targets(Rule="nightly", Targets=rule["Targets"])
        _, found = check()
    assert sentences(found, "fix") == [
        "rule nightly: Its call cannot be predicted: RoleArn is missing, without which it cannot "
        "call ECS: correct it."
    ]
    assert sentences(found, "ok", "jobs") == [f"rule other: {RETRIED}"]


# One job.


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (None, Wanted()),
        ("nightly", Wanted("nightly")),
        ("orders/nightly", Wanted("nightly", "orders")),
        ("aws.partner/x.com/1/nightly", Wanted("nightly", "aws.partner/x.com/1")),
        *(
            (arn, Wanted(arn.rpartition("/")[2], arn=arn))
            for arn in (
                "arn:aws:events:r:1:rule/nightly",
                "arn:aws:events:r:1:rule/orders/nightly",
                "arn:aws-cn:scheduler:r:1:schedule/g/n",
            )
        ),
    ],
)
def test_a_job_is_named_in_any_of_these_ways(text: str | None, meant: Wanted) -> None:
    assert wanted(text) == meant


@pytest.mark.parametrize(
    "text", ["", "a b", "nightly/", "arn:aws:ecs:r:1:cluster/x", "arn:aws:sqs:r:1:q", "x" * 65]
)
def test_what_names_no_job_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"is no (name or )?ARN of a rule or schedule"):
        wanted(text)


def test_one_job_is_looked_at_beside_the_stack() -> None:
    schedule = every_night(GroupName="g") | {"Name": "nightly"}
    jobs = (nightly(), nightly() | {"EventBusName": "b"}, schedule, every_night())
    titles = ["rule nightly", "rule b/nightly", "schedule g/nightly"]
    with account_with(*jobs):
        for text, chosen in {
            "nightly": titles,
            "b/nightly": titles[1:2],
            "g/nightly": titles[2:],
            "arn:aws:events:eu-west-1:123456789012:rule/nightly": titles[:1],
            "arn:aws:scheduler:eu-west-1:123456789012:schedule/g/nightly": titles[2:],
        }.items():
            status, found = check("--job", text)
            judged = [each["subject"] for each in found["findings"] if each["part"] == "jobs"]
            assert (status, judged) == (0, chosen)
            assert len(sentences(found, "ok", "stack")) == len(SUBJECTS["stack"])
        for text in ("night", "arn:aws:events:us-east-1:123456789012:rule/nightly"):
            status, out, error = run_command(main, "--job", text)
            assert (status, out) == (2, "")
            assert error == (
                f"check: no rule or schedule {text} starts an ECS task in eu-west-1 of account "
                "123456789012\n"
            )


def test_a_profile_that_does_not_work_is_said_in_a_line() -> None:
    with account_with() as account:
        account.refused["GetCallerIdentity"] = "ExpiredToken"
        assert run_command(main)[::2] == (
            2,
            "check: your credentials have expired: log in again (`aws sso login`, or however you "
            "get credentials)\n",
        )
        status, _, error = run_command(main, "--profile", "nobody")
    assert status == 2
    assert error.startswith("check: The config profile (nobody) could not be found: ")


# The console script.


def test_the_console_scripts_ask_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes of their own, with nothing in place of AWS but an address."""
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_REGION": "eu-west-1",
        }.items():
            monkeypatch.setenv(name, value)
        events = boto3.client("events", region_name="eu-west-1")
        events.put_rule(Name="nightly", EventPattern='{"source": ["x"]}')
        events.put_targets(Rule="nightly", Targets=nightly()["Targets"])
        commands = (["check", "--json"], ["drill", "nightly", "--yes"])
        checked, drilled = (
            subprocess.run(  # noqa: S603
                [Path(sys.executable).with_name(name), *arguments],
                capture_output=True,
                text=True,
                check=False,
            )
            for name, *arguments in commands
        )
    finally:
        server.stop()
    assert (checked.returncode, checked.stderr) == (1, "")
    assert sentences(json.loads(checked.stdout), "fix") == [
        "CloudTrail: No trail covers eu-west-1: make one that logs management events (CloudTrail "
        "console, Create trail).",
        "stack: There is no stack retry-run-task in eu-west-1: deploy it, or give --stack.",
        "rule nightly: The task definition nightly:42 is not there: register it, or let the job "
        "start another.",
    ]
    assert (drilled.returncode, drilled.stdout) == (2, "")
    assert drilled.stderr == (
        "drill: there is no stack retry-run-task of this template in eu-west-1: deploy it, or give "
        "--stack\n"
    )
