"""The stack: is each part of it there, switched on, and connected to the next one?"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError

from account.deployed import Deployed
from account.finding import Finding, fix, is_gone, looked, ok, unknown
from account.resource_policy import may_invoke
from account.session import client_of
from rehearsal.callers import RULES_SERVICE
from rehearsal.cloudtrail import run_task_event
from rehearsal.policies import CAPACITY
from rehearsal.records import BadInput
from rehearsal.template import Stack

AGAIN = "deploy the stack again"

# Of CloudFormation's states, those in which the stack is as its last deployment wanted it; and what
# helps where a deployment alone does not (CloudFormation user guide, "Stack status codes").
GOOD = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")
WAYS_OUT = {
    "DELETE_FAILED": "delete it again, and deploy it",
    "UPDATE_ROLLBACK_FAILED": "`aws cloudformation continue-update-rollback`, and deploy it again",
}

# EventBridge API reference, PutRule `State`.
ENABLED = ("ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")


class StackChecks:
    """Looks at one stack of the account. `function` and `resources` are what several of them need:
    GetFunctionConfiguration of the function that retries, and physical names by logical ids."""

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

    def findings(self) -> Iterator[Finding]:
        """At least one for each part."""
        for subject, findings in {
            "version": self.version(),
            "rule": self.rule(),
            "pattern": self._pattern(),
            "replay rule": self._replay_rule(),
            "resource policy": self._resource_policy(),
            "function": self.function(),
            "notifying function": self._notify(),
            "layer": self._layers(),
            "archive": self._archive(),
            "schedule group": self._schedule_group(),
            "subscription": self._subscription(),
            "dead-letter queue": self._queue(),
            "unsent messages": self._unsent(),
            "alarms": self._alarms(),
        }.items():
            yield from looked(subject, _or_gone(subject, findings))

    def rule(self) -> Iterator[Finding]:
        """The rule that sees failed calls."""
        yield from self._judge_rule("rule", self._output("RuleName"), "default")

    def function(self) -> Iterator[Finding]:
        """The function that retries."""
        yield from self._judge_function("function", self._function())

    def _notify(self) -> Iterator[Finding]:
        client = self._client("lambda")
        notify = client.get_function_configuration(FunctionName=self._resource("Notify"))
        yield from self._judge_function("notifying function", notify)

    def version(self) -> Iterator[Finding]:
        """Whether it is that of this checkout, as its last deployment wanted it."""
        subject, status = "version", self._stack.status
        if self._stack.is_being_changed:
            yield unknown(subject, f"The stack is being changed ({status}): look again later.")
        elif status not in GOOD:
            way_out = WAYS_OUT.get(status, AGAIN)
            yield fix(subject, f"The last deployment failed ({status}): {way_out}.")
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

    def _replay_rule(self) -> Iterator[Finding]:
        bus, name = self._replay_rules_arn().split("/")[1:]
        yield from self._judge_rule("replay rule", name, bus)

    def _judge_rule(self, subject: str, name: str, bus: str) -> Iterator[Finding]:
        events = self._client("events")
        is_enabled = events.describe_rule(Name=name, EventBusName=bus)["State"] in ENABLED
        if not is_enabled:
            yield fix(subject, "It is disabled: deploy with RuleState=ENABLED.")
        targets = events.list_targets_by_rule(Rule=name, EventBusName=bus)["Targets"]
        changes = {"Input", "InputPath", "InputTransformer"}
        function_arn = self._described_function()["FunctionArn"]
        if not any(t["Arn"] == function_arn and not changes & t.keys() for t in targets):
            yield fix(subject, f"It does not send whole events to the function: {AGAIN}.")
        elif is_enabled:
            yield ok(subject, "It is enabled, and sends events to the function.")

    def _pattern(self) -> Iterator[Finding]:
        events, rule = self._client("events"), self._described_rule()
        failed = _event(rule["Arn"], {"tasks": [], "failures": [{"reason": CAPACITY}]})
        task = {"taskArn": "arn:aws:ecs:::task/1"}
        launched = _event(rule["Arn"], {"tasks": [task], "failures": []})
        pattern = rule.get("EventPattern", "{}")
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

    def _resource_policy(self) -> Iterator[Finding]:
        subject, function_arn = "resource policy", self._described_function()["FunctionArn"]
        try:
            policy = self._client("lambda").get_policy(FunctionName=self._output("FunctionName"))
            statements = json.loads(policy["Policy"])["Statement"]
        except ClientError as error:
            if not is_gone(error):
                raise
            statements = []
        rule_arn = self._described_rule()["Arn"]
        for title, arn in {"rule": rule_arn, "replay rule": self._replay_rules_arn()}.items():
            if not may_invoke(statements, function_arn, arn):
                yield fix(subject, f"The {title} is not allowed to invoke the function: {AGAIN}.")
                return
        yield ok(subject, "Both rules may invoke the function.")

    def _judge_function(self, subject: str, function: Mapping[str, Any]) -> Iterator[Finding]:
        """Lambda brings one that is Inactive back by itself (Lambda developer guide, "States")."""
        name, bad = function["FunctionName"], []
        if function.get("State") == "Failed":
            bad.append(f"It has failed ({_reason(function, 'StateReason')}): {AGAIN}.")
        elif function.get("LastUpdateStatus") == "Failed":
            reason = _reason(function, "LastUpdateStatusReason")
            bad.append(f"Its last update failed ({reason}): {AGAIN}.")
        is_updated = function.get("LastUpdateStatus") == "InProgress"
        if is_updated or function.get("State") == "Pending":
            yield unknown(subject, "It is being deployed: look again later.")
            return
        for sentence in bad:
            yield fix(subject, sentence)
        limit = self._client("lambda").get_function_concurrency(FunctionName=name)
        if limit.get("ReservedConcurrentExecutions") == 0:
            yield fix(
                subject,
                f"It is stopped: `aws lambda delete-function-concurrency --function-name {name}` "
                "lets it run again.",
            )
        elif not bad:
            yield ok(subject, "It can run.")

    def _layers(self) -> Iterator[Finding]:
        layers = [layer["Arn"] for layer in self._described_function().get("Layers", [])]
        if not layers:
            yield fix("layer", f"The function has no layer, and so no Powertools: {AGAIN}.")
        for arn in layers:
            try:
                self._client("lambda").get_layer_version_by_arn(Arn=arn)
            except ClientError as error:
                # Another account's layer that is gone, or shared no more, is said not to be allowed
                # by its own policy (seen: cds-snc/terraform-modules#203).
                if not is_gone(error) and "resource-based policy" not in str(error):
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
        found = [s for page in pages.paginate(TopicArn=topic) for s in page["Subscriptions"]]
        # One that is not confirmed has a word in place of its ARN, and so has one that was ended
        # (seen: PendingConfirmation, Deleted).
        confirmed = [s for s in found if s["SubscriptionArn"].startswith("arn:")]
        if confirmed:
            kinds = ", ".join(sorted({s["Protocol"] for s in confirmed}))
            yield ok("subscription", f"{len(confirmed)} confirmed ({kinds}).")
        elif any(s["SubscriptionArn"] != "Deleted" for s in found):
            problem = "It is not confirmed, and nobody is alerted"
            yield fix("subscription", f"{problem}: open the link in AWS's mail.")
        else:
            yield fix(
                "subscription",
                "Nobody is alerted of a lost job: deploy with NotificationEmail, or subscribe to "
                f"{topic}.",
            )

    def _queue(self) -> Iterator[Finding]:
        url = self._output("DeadLetterQueueUrl")
        yield from self._judge_queue("dead-letter queue", url, "The dead-letter queue")

    def _unsent(self) -> Iterator[Finding]:
        url = self._resource("UnsentLostJobs")
        yield from self._judge_queue("unsent messages", url, "No message comes")

    def _judge_queue(self, subject: str, url: str, heading: str) -> Iterator[Finding]:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self._client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)
        if count := sum(int(answer["Attributes"][name]) for name in names):
            yield fix(subject, f'There are {count:,} in the queue: see "{heading}" in the README.')
        else:
            yield ok(subject, "The queue is empty.")

    def _alarms(self) -> Iterator[Finding]:
        ours = [
            logical_id
            for logical_id, resource in self._template.resources.items()
            if resource["Type"] == "AWS::CloudWatch::Alarm"
        ]
        names = {self._resource(logical_id): logical_id for logical_id in ours}
        pages = self._client("cloudwatch").get_paginator("describe_alarms")
        alarms = {
            alarm["AlarmName"]: alarm
            for page in pages.paginate(AlarmNames=list(names), AlarmTypes=["MetricAlarm"])
            for alarm in page["MetricAlarms"]
        }
        bad = False
        for name, logical_id in names.items():
            if name not in alarms:
                bad = True
                yield fix("alarms", f"{logical_id} is gone: {AGAIN}.")
            elif alarms[name]["StateValue"] == "ALARM":
                bad = True
                meaning = alarms[name].get("AlarmDescription", "see the README")
                yield fix("alarms", f"{logical_id} is ringing: {meaning}.")
        if not bad:
            yield ok("alarms", "None is ringing.")

    def _replay_rules_arn(self) -> str:
        """It is in the output that replays lost jobs; a rule's Ref would have its bus in front."""
        command = self._output("StartReplayCommand")
        found = re.search(r"FilterArns=(arn:\S+:rule/[^/\s]+/[^/\s]+)", command)
        if not found:
            raise BadInput("the output StartReplayCommand is not that of this version")
        return found[1]

    def _described_function(self) -> Mapping[str, Any]:
        """For what is no matter of the function itself; raises BadInput where that is gone."""
        try:
            return self._function()
        except ClientError as error:
            if is_gone(error):
                raise BadInput("the function is gone") from error
            raise

    def _described_rule(self) -> Mapping[str, Any]:
        """For what is no matter of the rule itself; raises BadInput where that is gone."""
        try:
            rule: Mapping[str, Any] = self._client("events").describe_rule(
                Name=self._output("RuleName")
            )
        except ClientError as error:
            if is_gone(error):
                raise BadInput("the rule is gone") from error
            raise
        return rule

    def _output(self, name: str) -> str:
        if name not in self._stack.outputs:
            raise BadInput(f"the stack has no output {name}: it is of another version")
        return self._stack.outputs[name]

    def _resource(self, logical_id: str) -> str:
        if logical_id not in self._resources():
            raise BadInput(f"the stack has no {logical_id}: it is of another version")
        return self._resources()[logical_id]

    def _client(self, service: str) -> Any:
        return client_of(self._session, service)


def _or_gone(subject: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """What CloudFormation has made, and somebody has deleted, is to be fixed."""
    try:
        yield from findings
    except ClientError as error:
        if not is_gone(error):
            raise
        # CloudFormation does not notice; an unchanged template changes nothing.
        yield fix(subject, "It is gone: delete the stack, and deploy it again.")


def _event(rule_arn: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The event of a rule's call that was answered so, in the rule's account and Region."""
    partition, _, region, account = rule_arn.split(":")[1:5]
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


def _reason(function: Mapping[str, Any], member: str) -> str:
    return str(function.get(member) or "no reason is given")
