"""The stack: is each part of it there, switched on, and connected to the next one?"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError

from account.deployed import Deployed
from account.finding import Finding, fix, looked, ok, unknown
from account.session import client_of
from rehearsal.callers import RULES_SERVICE
from rehearsal.cloudtrail import run_task_event
from rehearsal.iam import allowed, as_list
from rehearsal.policies import CAPACITY
from rehearsal.records import BadInput
from rehearsal.template import Stack

# Of CloudFormation's states, those in which the stack is as its last deployment wanted it.
GOOD = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")
AGAIN = "deploy the stack again"

# Since 2024, rules have a second state of this kind (EventBridge API reference, PutRule `State`).
ENABLED = ("ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")


class StackChecks:
    """Looks at one stack. `function` and `resources` read what several of them need."""

    def __init__(
        self,
        session: boto3.Session,
        stack: Deployed,
        function: Callable[[], Mapping[str, Any]],
        resources: Callable[[], Mapping[str, str]],
    ) -> None:
        self._session, self._stack = session, stack
        self._function, self._resources = function, resources
        self._template = Stack()
        self._clients: dict[str, Any] = {}

    def findings(self) -> Iterator[Finding]:
        """At least one for each part."""
        for subject, findings in {
            "version": self._version(),
            "rule": self._rule(),
            "pattern": self._pattern(),
            "replay rule": self._replay_rule(),
            "resource policy": self._resource_policy(),
            "function": self._functions(),
            "layer": self._layers(),
            "archive": self._archive(),
            "schedule group": self._schedule_group(),
            "subscription": self._subscription(),
            "dead-letter queues": self._queues(),
            "alarms": self._alarms(),
        }.items():
            yield from looked(subject, findings)

    def _version(self) -> Iterator[Finding]:
        subject, status = "version", self._stack.status
        if status.endswith("_IN_PROGRESS"):
            yield unknown(subject, f"The stack is being changed ({status}): look again later.")
        elif status not in GOOD:
            yield fix(subject, f"The last deployment failed ({status}): {AGAIN}.")
        deployed = self._stack.outputs.get("Version", "none")
        ours = self._template.outputs["Version"]["Value"]
        if deployed != ours:
            yield fix(
                subject,
                f"Version {deployed} is deployed, and this checkout is {ours}: deploy it, or use "
                "the checkout that is deployed.",
            )
        elif status in GOOD:
            yield ok(subject, f"{deployed}, as this checkout.")

    def _rule(self) -> Iterator[Finding]:
        yield from self._judge_rule("rule", self._output("RuleName"), "default")

    def _replay_rule(self) -> Iterator[Finding]:
        bus, name = self._replay_rules_arn().split("/")[1:]
        yield from self._judge_rule("replay rule", name, bus)

    def _judge_rule(self, subject: str, name: str, bus: str) -> Iterator[Finding]:
        events = self._client("events")
        rule = events.describe_rule(Name=name, EventBusName=bus)
        targets = events.list_targets_by_rule(Rule=name, EventBusName=bus)["Targets"]
        changes = {"Input", "InputPath", "InputTransformer"}
        function_arn = self._function()["FunctionArn"]
        if rule["State"] not in ENABLED:
            yield fix(subject, "It is disabled: deploy with RuleState=ENABLED.")
        elif not any(t["Arn"] == function_arn and not changes & t.keys() for t in targets):
            yield fix(subject, f"It does not send whole events to the function: {AGAIN}.")
        else:
            yield ok(subject, "It is enabled, and sends events to the function.")

    def _pattern(self) -> Iterator[Finding]:
        events = self._client("events")
        name = self._output("RuleName")
        pattern = events.describe_rule(Name=name).get("EventPattern", "{}")
        failed = self._event({"tasks": [], "failures": [{"reason": CAPACITY}]})
        launched = self._event({"tasks": [{"taskArn": "arn:aws:ecs:::task/1"}], "failures": []})
        matched, too_many = (
            events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"]
            for event in (failed, launched)
        )
        if not matched:
            yield fix("pattern", f"It does not match a failed call: {AGAIN}.")
        elif too_many:
            yield fix("pattern", f"It matches calls that started their tasks: {AGAIN}.")
        else:
            yield ok("pattern", "It matches a failed call, and no call that started its tasks.")

    def _event(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The event of a rule's call that was answered so."""
        partition, _, region, account = self._function()["FunctionArn"].split(":")[1:5]
        return run_task_event(
            {"cluster": "default", "taskDefinition": "check"},
            answer,
            event_id="00000000-0000-0000-0000-000000000000",
            moment=datetime.now(UTC),
            region=region,
            account=account,
            role_arn=f"arn:{partition}:iam::{account}:role/check",
            session="check",
            user_agent=RULES_SERVICE,
            invoked_by=RULES_SERVICE,
        )

    def _resource_policy(self) -> Iterator[Finding]:
        subject, function = "resource policy", self._function()
        try:
            policy = self._client("lambda").get_policy(FunctionName=function["FunctionName"])
            statements = json.loads(policy["Policy"])["Statement"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            statements = []
        name = self._output("RuleName")
        rule_arn = self._client("events").describe_rule(Name=name)["Arn"]
        for title, arn in {"rule": rule_arn, "replay rule": self._replay_rules_arn()}.items():
            if not may_invoke(statements, function["FunctionArn"], arn):
                yield fix(subject, f"The {title} may not invoke the function: {AGAIN}.")
                return
        yield ok(subject, "Both rules may invoke the function.")

    def _functions(self) -> Iterator[Finding]:
        client, bad = self._client("lambda"), []
        notify = self._resource("Notify")
        for function in (
            self._function(),
            client.get_function_configuration(FunctionName=notify),
        ):
            name = function["FunctionName"]
            if function.get("State") != "Active":
                reason = function.get("StateReason", "no reason is given")
                bad.append(f"{name} is not active ({reason}): {AGAIN}.")
            elif function.get("LastUpdateStatus") == "Failed":
                reason = function.get("LastUpdateStatusReason", "no reason is given")
                bad.append(f"The last update of {name} failed ({reason}): {AGAIN}.")
            limit = client.get_function_concurrency(FunctionName=name)
            if limit.get("ReservedConcurrentExecutions") == 0:
                bad.append(
                    f"{name} is stopped: `aws lambda delete-function-concurrency --function-name "
                    f"{name}` lets it run again."
                )
        for sentence in bad:
            yield fix("function", sentence)
        if not bad:
            yield ok("function", "Both functions are active.")

    def _layers(self) -> Iterator[Finding]:
        layers = [layer["Arn"] for layer in self._function().get("Layers", [])]
        if not layers:
            yield fix("layer", f"The function has no layer, and so no Powertools: {AGAIN}.")
        for arn in layers:
            try:
                self._client("lambda").get_layer_version_by_arn(Arn=arn)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise
                yield fix("layer", f"{arn} is gone: {AGAIN}.")
            else:
                yield ok("layer", f"{arn} is there.")

    def _archive(self) -> Iterator[Finding]:
        name = self._output("ArchiveArn").rpartition("/")[2]
        state = self._client("events").describe_archive(ArchiveName=name)["State"]
        if state == "ENABLED":
            yield ok("archive", "It keeps lost jobs.")
        else:
            yield fix("archive", f"It keeps no lost jobs ({state}): {AGAIN}.")

    def _schedule_group(self) -> Iterator[Finding]:
        name = self._output("ScheduleGroupName")
        state = self._client("scheduler").get_schedule_group(Name=name)["State"]
        if state == "ACTIVE":
            yield ok("schedule group", "It takes pending attempts.")
        else:
            yield fix("schedule group", f"It takes no pending attempts ({state}): {AGAIN}.")

    def _subscription(self) -> Iterator[Finding]:
        topic = self._output("NotificationTopicArn")
        pages = self._client("sns").get_paginator("list_subscriptions_by_topic")
        subscriptions = [
            s for page in pages.paginate(TopicArn=topic) for s in page["Subscriptions"]
        ]
        # One that is not confirmed has a word in place of its ARN (SNS API reference,
        # ListSubscriptionsByTopic).
        confirmed = [s for s in subscriptions if s["SubscriptionArn"].startswith("arn:")]
        if confirmed:
            kinds = ", ".join(sorted({s["Protocol"] for s in confirmed}))
            yield ok("subscription", f"{len(confirmed)} confirmed ({kinds}).")
        elif subscriptions:
            yield fix(
                "subscription",
                "It is not confirmed, and nobody is alerted: open the link in AWS's mail.",
            )
        else:
            yield fix(
                "subscription",
                "Nobody is alerted of a lost job: deploy with NotificationEmail, or subscribe to "
                f"{topic}.",
            )

    def _queues(self) -> Iterator[Finding]:
        urls = {
            "DeadLetterQueue": self._output("DeadLetterQueueUrl"),
            "UnsentLostJobs": self._resource("UnsentLostJobs"),
        }
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = {}
        for title, url in urls.items():
            attributes = self._client("sqs").get_queue_attributes(
                QueueUrl=url, AttributeNames=names
            )
            if count := sum(int(attributes["Attributes"][name]) for name in names):
                found[title] = count
        for title, count in found.items():
            yield fix(
                "dead-letter queues",
                f"{title} has {count:,}: see the operator's page of the README.",
            )
        if not found:
            yield ok("dead-letter queues", "They are empty.")

    def _alarms(self) -> Iterator[Finding]:
        ours = [
            logical_id
            for logical_id, resource in self._template.resources.items()
            if resource["Type"] == "AWS::CloudWatch::Alarm"
        ]
        names = {self._resource(logical_id): logical_id for logical_id in ours}
        pages = self._client("cloudwatch").get_paginator("describe_alarms")
        states = {
            alarm["AlarmName"]: alarm["StateValue"]
            for page in pages.paginate(AlarmNames=list(names), AlarmTypes=["MetricAlarm"])
            for alarm in page["MetricAlarms"]
        }
        ringing = [names[name] for name, state in states.items() if state == "ALARM"]
        gone = [logical_id for name, logical_id in names.items() if name not in states]
        for logical_id in ringing:
            yield fix("alarms", f"{logical_id} is ringing.")
        for logical_id in gone:
            yield fix("alarms", f"{logical_id} is gone: {AGAIN}.")
        if not ringing and not gone:
            yield ok("alarms", "None is ringing.")

    def _replay_rules_arn(self) -> str:
        """It is in the output that replays lost jobs; a rule's Ref would have its bus in front."""
        command = self._output("StartReplayCommand")
        found = re.search(r"FilterArns=(\S+)", command)
        return found[1] if found else ""

    def _output(self, name: str) -> str:
        if name not in self._stack.outputs:
            raise BadInput(f"the stack has no output {name}: it is of another version")
        return self._stack.outputs[name]

    def _resource(self, logical_id: str) -> str:
        if logical_id not in self._resources():
            raise BadInput(f"the stack has no {logical_id}: it is of another version")
        return self._resources()[logical_id]

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = client_of(self._session, service)
        return self._clients[service]


def may_invoke(statements: list[dict[str, Any]], function_arn: str, rule_arn: str) -> bool:
    """Does a function's resource policy let this rule invoke it?"""
    for_events = [
        # IAM does not mind the case of a condition's keys: Lambda writes AWS:SourceArn.
        statement
        | {
            "Condition": {
                operator: {key.lower(): value for key, value in keys.items()}
                for operator, keys in statement.get("Condition", {}).items()
            }
        }
        for statement in statements
        if _is_for_events(statement.get("Principal"))
    ]
    account = rule_arn.split(":")[4]
    context = {"aws:sourcearn": rule_arn, "aws:sourceaccount": account}
    return allowed(for_events, "lambda:InvokeFunction", function_arn, context)


def _is_for_events(principal: Any) -> bool:
    if isinstance(principal, dict):
        return RULES_SERVICE in as_list(principal.get("Service", []))
    return bool(principal == "*")
