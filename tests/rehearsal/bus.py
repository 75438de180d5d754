"""The bus of outcomes: its policy, its archive, its rules, and replays as operators start them."""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from rehearsal import iam
from rehearsal.pattern import matches
from rehearsal.template import Stack
from retry_run_task.failed_call import write_time

# The shell's `date`, first that of Linux, then that of macOS: a minute before a moment.
MINUTE_BEFORE = re.compile(
    r"\$\(date -u -d '(\S+) 1 minute ago' \+%Y-%m-%dT%H:%M:%SZ "
    r"\|\| date -u -j -v-1M -f %Y-%m-%dT%H:%M:%SZ \1 \+%Y-%m-%dT%H:%M:%SZ\)"
)


class AccessDenied(Exception):
    """IAM's answer to a PutEvents that is not allowed."""


@dataclass
class OutcomeBus:
    """What the rules send goes to `invoke` (the function's payloads) and `messages` (the topic's).

    `archive` holds events as they came, oldest first.
    """

    invoke: Callable[[dict[str, Any]], None]
    archive: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def put(
        self,
        stack: Stack,
        event: dict[str, Any],
        principal_arn: str,
        identity_policy: list[dict[str, Any]],
    ) -> None:
        """PutEvents of one event. Raises AccessDenied."""
        properties = stack.resources["OutcomeBusPolicy"]["Properties"]
        context = {"aws:PrincipalArn": principal_arn, "aws:PrincipalIsAWSService": "false"}
        statements = [*identity_policy, properties["Statement"]]
        bus_arn = stack.attribute("OutcomeBus", "Arn")
        if not iam.allowed(statements, "events:PutEvents", bus_arn, context):
            raise AccessDenied(f"{principal_arn} is not authorized to perform: events:PutEvents")
        if matches(stack.resources["DeadLetterArchive"]["Properties"]["EventPattern"], event):
            self.archive.append(event)
        self._to_rules(stack, event)

    def start_replay(self, stack: Stack, command: str, now: datetime) -> int:
        """`aws events start-replay …` as the stack gives it; returns how many events it sends.

        The order of a replay is not defined (aws-facts, section 3): here it is oldest first.
        """
        options = _options(command, now)
        destination = dict(part.split("=", 1) for part in options["destination"].split(",", 1))
        if options["event-source-arn"] != stack.attribute("DeadLetterArchive", "Arn"):
            raise ValueError(f"no archive {options['event-source-arn']}")
        if destination["Arn"] != stack.attribute("OutcomeBus", "Arn"):
            raise ValueError("a replay goes to the archive's own bus only")
        start, end = (
            datetime.fromisoformat(options[f"event-{edge}-time"]) for edge in ("start", "end")
        )
        if not start < end <= now:
            raise ValueError("a replay's times are in order, and past")
        # Whether its first second is among a replay's time is not documented: here it is not.
        replayed = [e for e in self.archive if start < datetime.fromisoformat(e["time"]) <= end]
        for event in replayed:
            again = event | {"replay-name": options["replay-name"]}
            self._to_rules(stack, again, {destination["FilterArns"]})
        return len(replayed)

    def _to_rules(self, stack: Stack, event: dict[str, Any], only: set[str] | None = None) -> None:
        bus = stack.resources["OutcomeBus"]["Properties"]["Name"]
        for name, rule in stack.rules.items():
            if rule.get("EventBusName") != bus or rule.get("State") == "DISABLED":
                continue
            if only is not None and stack.attribute(name, "Arn") not in only:
                continue
            if matches(rule["Pattern"], event):
                if "Targets" in rule:
                    (target,) = rule["Targets"]
                    if not may_publish(stack, target["Arn"]):
                        continue  # it would end in the dead-letter queue
                    self.messages.append(transform(target["InputTransformer"], event))
                else:  # of the function's own events
                    self.invoke(event)


def may_publish(stack: Stack, topic_arn: str) -> bool:
    """Does the topic's policy let EventBridge publish, which tells SNS of no condition key?"""
    if "NotificationTopicPolicy" not in stack.resources:
        return True  # the topic and its policy are somebody else's
    policy = stack.resources["NotificationTopicPolicy"]["Properties"]["PolicyDocument"]
    service = {"Service": "events.amazonaws.com"}
    statements = [s for s in policy["Statement"] if s["Principal"] == service]
    return iam.allowed(statements, "sns:Publish", topic_arn)


def transform(transformer: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    """EventBridge's input transformer for lines of text, which it sends with their quotes.

    What the event does not have leaves nothing behind (EventBridge user guide, "Input
    transformation").
    """

    def value(variable: re.Match[str]) -> str:
        node: Any = event
        path = transformer["InputPathsMap"][variable[1]]
        for key, index in re.findall(r"\.([\w-]+)|\[(\d+)\]", path):
            try:
                node = node[key] if key else node[int(index)]
            except (KeyError, IndexError, TypeError):
                return ""
        return json.dumps(node if isinstance(node, str) else json.dumps(node))[1:-1]

    lines = transformer["InputTemplate"].strip()
    return re.sub(r"<(\w+)>", value, lines)


def _minute_before(moment: str) -> str:
    return write_time(datetime.fromisoformat(moment) - timedelta(minutes=1))


def _options(command: str, now: datetime) -> dict[str, str]:
    """The options of an `aws` command, after the shell has put in the times."""
    command = MINUTE_BEFORE.sub(lambda m: _minute_before(m[1]), command)
    seconds, iso = str(int(now.timestamp())), now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shell = {"$(date +%s)": seconds, "$(date -u +%Y-%m-%dT%H:%M:%SZ)": iso}
    for substitution, value in shell.items():
        command = command.replace(substitution, value)
    words = shlex.split(command)
    if words[:3] != ["aws", "events", "start-replay"]:
        raise ValueError(f"not a start-replay command: {command}")
    pairs = zip(words[3::2], words[4::2], strict=True)
    return {name.removeprefix("--"): value for name, value in pairs}
