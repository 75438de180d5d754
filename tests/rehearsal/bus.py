"""The bus of outcomes: its policy, its archive, its rules, and replays as operators start them."""

import json
import re
import shlex
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rehearsal import iam
from rehearsal.pattern import matches
from rehearsal.template import Stack
from retry_run_task.failed_call import write_time
from retry_run_task.progress import RESULT


class AccessDenied(Exception):
    """IAM's answer to a PutEvents that is not allowed."""


@dataclass
class OutcomeBus:
    """What its rules send goes to `invoke` (the function's payloads) and `send` (to the queue).

    `send` is given the rule's ARN and the message. `archive` holds events as they came, oldest
    first.
    """

    invoke: Callable[[dict[str, Any]], None]
    send: Callable[[str, str], None]
    archive: list[dict[str, Any]] = field(default_factory=list)

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
                    self.send(stack.attribute(name, "Arn"), message_of(target, event))
                else:  # of the function's own events
                    self.invoke(event)


def result_of(
    stack: Stack,
    kind: str,
    condition: str,
    payload: Mapping[str, Any],
    answer: object,
    now: datetime,
    number: int,
) -> dict[str, Any]:
    """Lambda's record of an asynchronous invocation, as recorded in 2025-11 (aws-facts, section 4).

    `kind` is Success or Failure, and `number` tells one invocation from another.
    """
    function_arn = f"{stack.function_arn}:$LATEST"
    tries = (
        1 if kind == "Success" else 1 + stack.function["EventInvokeConfig"]["MaximumRetryAttempts"]
    )
    ran = {
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": answer,
    }
    return {
        "version": "0",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"result/{number}")),
        "detail-type": f"{RESULT}{kind}",
        "source": "lambda",
        "account": stack.account,
        "time": write_time(now),
        "region": stack.region,
        "resources": [stack.attribute("OutcomeBus", "Arn"), function_arn],
        "detail": {
            "version": "1.0",
            "timestamp": write_time(now),
            "requestContext": {
                "requestId": str(uuid.UUID(int=number)),
                "functionArn": function_arn,
                "condition": condition,
                "approximateInvokeCount": tries,
            },
            "requestPayload": dict(payload),
            **({} if condition == "EventAgeExceeded" else ran),  # it never ran
        },
    }


def message_of(target: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    """What EventBridge sends to a queue: a part of the event, or a template that it fills in.

    A variable of a template stands for a whole JSON value, and for nothing at all where the event
    has no such value. Raises ValueError where the result is no JSON: EventBridge does not send it
    (user guide, "Dead-letter queues": INVALID_JSON).
    """
    if "InputPath" in target:
        return json.dumps(value_at(target["InputPath"], event)[0])
    transformer = target["InputTransformer"]

    def value(variable: re.Match[str]) -> str:
        found = value_at(transformer["InputPathsMap"][variable[1]], event)
        return json.dumps(found[0]) if found else ""

    text = re.sub(r"<(\w+)>", value, transformer["InputTemplate"].strip())
    json.loads(text)
    return text


def value_at(path: str, event: Mapping[str, Any]) -> list[Any]:
    """The value at a path such as `$.detail.x`, alone in a list, which is empty without one."""
    node: Any = event
    for key in path.removeprefix("$.").split("."):
        if not isinstance(node, dict) or key not in node:
            return []
        node = node[key]
    return [node]


def _options(command: str, now: datetime) -> dict[str, str]:
    """The options of an `aws` command, after the shell has put in the time."""
    command = command.replace("$(date +%s)", str(int(now.timestamp())))
    words = shlex.split(command)
    if words[:3] != ["aws", "events", "start-replay"]:
        raise ValueError(f"not a start-replay command: {command}")
    pairs = zip(words[3::2], words[4::2], strict=True)
    return {name.removeprefix("--"): value for name, value in pairs}
