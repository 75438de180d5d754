"""The queue LostJobs, the event source that empties it, the function Notify, and its topic."""

import json
import os
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, cast
from unittest import mock

from aws_lambda_powertools.utilities.typing import LambdaContext
from moto.core.base_backend import BackendDict
from moto.sns.models import sns_backends

from notify import handler as function
from rehearsal import iam
from rehearsal.template import Stack

COMMAND = re.compile("^aws events start-replay .*$", re.MULTILINE)


class NotAllowed(Exception):
    """A policy of the template does not allow what its resources are there for."""


@dataclass(frozen=True, slots=True)
class Message:
    """What arrives: `text` by mail, and `chat` at https subscribers, where that is not the same."""

    subject: str
    text: str
    chat: Mapping[str, Any] | None = None

    def command(self, stack: Stack) -> str | None:
        """The command that replays this stack's archive, if the message gives one."""
        archive = stack.attribute("DeadLetterArchive", "Arn")
        return next((c for c in COMMAND.findall(self.text) if archive in c), None)


@dataclass
class Batch:
    """What one poller collects, until its window closes or it is full."""

    records: list[dict[str, Any]] = field(default_factory=list)


class LostJobs:
    """Letters in, messages out. `at` lets something happen later, and `now` tells the time.

    Lambda's pollers are modelled at their worst: there are as many as may be at work at once, and
    letters go to them in turn.
    """

    def __init__(
        self,
        stack: Stack,
        at: Callable[[datetime, Callable[[], None]], None],
        now: Callable[[], datetime],
        on_message: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self.at, self.now, self.on_message = at, now, on_message
        # All that the rules have put into the queue, what was sent of it, and what could not be.
        self.bodies: list[str] = []
        self.messages: list[Message] = []
        self.unsent: list[dict[str, Any]] = []
        self._count = count(1)
        self.use(stack)
        self._batches = [Batch() for _ in range(self.source["ScalingConfig"]["MaximumConcurrency"])]

    def use(self, stack: Stack) -> None:
        """The stack that is deployed from now on, with its topic."""
        self.stack = stack
        self.source = stack.resources["Notify"]["Properties"]["Events"]["Letters"]["Properties"]
        queue = stack.resources["LostJobs"]["Properties"]
        self._visibility = timedelta(seconds=queue["VisibilityTimeout"])
        self._most_receives = queue["RedrivePolicy"]["maxReceiveCount"]
        self.environment = stack.environment_of("Notify")
        self.topic_arn = self.environment["TOPIC_ARN"]
        _, _, _, region, account, name = self.topic_arn.split(":")
        self._topics = cast("BackendDict[Any]", sns_backends)[account][region]
        self._topics.create_topic(name)

    def send(self, rule_arn: str, body: str) -> None:
        """SendMessage by a rule. Raises NotAllowed."""
        policy = self.stack.resources["LostJobsPolicy"]["Properties"]["PolicyDocument"]
        queue_arn, context = self.stack.attribute("LostJobs", "Arn"), {"aws:SourceArn": rule_arn}
        if not iam.allowed(policy["Statement"], "sqs:SendMessage", queue_arn, context):
            raise NotAllowed(f"{rule_arn} may not send to {queue_arn}")
        self.bodies.append(body)
        number = next(self._count)
        self._receive(
            {
                "messageId": str(uuid.UUID(int=number)),
                "receiptHandle": f"handle-{number}",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": str(int(self.now().timestamp() * 1000)),
                },
                "eventSource": "aws:sqs",
                "eventSourceARN": queue_arn,
                "awsRegion": self.stack.region,
            }
        )

    def redrive(self) -> None:
        """An operator starts SQS's own redrive: what could not be sent is in the queue again."""
        again, self.unsent = self.unsent, []
        for record in again:
            record["attributes"]["ApproximateReceiveCount"] = "1"
            self._receive(record)

    def _receive(self, record: dict[str, Any]) -> None:
        batch = self._batches.pop(0)
        self._batches.append(batch)
        batch.records.append(record)
        window = timedelta(seconds=self.source["MaximumBatchingWindowInSeconds"])
        if len(batch.records) == 1:
            self.at(self.now() + window, lambda: self._close(batch, [record]))
        if len(batch.records) == self.source["BatchSize"]:
            self._close(batch, batch.records)

    def _close(self, batch: Batch, records: list[dict[str, Any]]) -> None:
        """The window of the batch that began with these records is over."""
        if not batch.records or batch.records[0] is not records[0]:
            return  # it was full before
        records, batch.records = batch.records, []
        try:
            answer = self.invoke({"Records": records})
        except Exception:  # noqa: BLE001 - as Lambda does
            again = records
        else:
            failed = {each["itemIdentifier"] for each in answer["batchItemFailures"]}
            again = [record for record in records if record["messageId"] in failed]
        for record in again:
            self.at(self.now() + self._visibility, partial(self._again, record))

    def _again(self, record: dict[str, Any]) -> None:
        """It is visible again, or has been for as often as it may."""
        received = int(record["attributes"]["ApproximateReceiveCount"])
        if received >= self._most_receives:
            self.unsent.append(record)
            return
        record["attributes"]["ApproximateReceiveCount"] = str(received + 1)
        self._receive(record)

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        """The template's own handler, and what it has published by then."""
        policy = self.stack.policy_of("NotifyRole")
        queue_arn = self.stack.attribute("LostJobs", "Arn")
        for action, resource in (
            ("sqs:ReceiveMessage", queue_arn),
            ("sqs:DeleteMessage", queue_arn),
            ("sqs:GetQueueAttributes", queue_arn),
            ("sns:Publish", self.topic_arn),
        ):
            if not iam.allowed(policy, action, resource):
                raise NotAllowed(f"the role of Notify may not {action} {resource}")
        topic = self._topics.topics[self.topic_arn]
        publish, sent = topic.publish, list[Message]()

        def published(body: str, subject: str, message_structure: str | None, **_: Any) -> str:
            message_id: str = publish(body, subject, message_structure=message_structure)
            sent.append(arrived(subject, body, is_json=message_structure == "json"))
            return message_id

        context = LambdaContext()
        context._invoked_function_arn = self.stack.attribute("Notify", "Arn")
        environment = mock.patch.dict(os.environ, self.environment)
        try:
            with environment, mock.patch.object(topic, "publish", published):
                return function.handler(json.loads(json.dumps(event)), context)
        finally:
            self.messages += sent
            for message in sent:
                self.on_message(message)


def arrived(subject: str, body: str, *, is_json: bool) -> Message:
    """What subscribers get: SNS takes a message apart that has a text for each protocol."""
    if not is_json:
        return Message(subject, body)
    texts = json.loads(body)
    return Message(subject, texts["default"], json.loads(texts["https"]))
