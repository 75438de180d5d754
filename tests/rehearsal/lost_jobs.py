"""The queue LostJobs, the event source that empties it, the function Notify, and its topic."""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


# With how many readers Lambda begins; MaximumConcurrency bounds invocations, and perhaps not these
# (Lambda developer guide, "Amazon SQS").
READERS = 5

# When one of them received a record, and what it collects until its window is over or it is full.
Received = tuple[datetime, dict[str, Any]]
Batch = list[Received]


class LostJobs:
    """Letters in, messages out. `at` lets something happen later, and `now` tells the time.

    Lambda's readers are modelled at their worst: letters go to all of them in turn.
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
        self._batches: list[Batch] = [[] for _ in range(READERS)]

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
        self._receive(self._record(body))

    def redrive(self) -> None:
        """An operator starts SQS's own redrive: what could not be sent is in the queue again.

        SQS gives it a new id and time (SQS developer guide, "Dead-letter queue redrive").
        """
        again, self.unsent = self.unsent, []
        for record in again:
            self._receive(self._record(record["body"]))

    def _record(self, body: str) -> dict[str, Any]:
        """A message that is sent to the queue now, as Lambda gives it to the function."""
        number = next(self._count)
        return {
            "messageId": str(uuid.UUID(int=number)),
            "receiptHandle": f"handle-{number}",
            "body": body,
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": str(int(self.now().timestamp() * 1000)),
            },
            "eventSource": "aws:sqs",
            "eventSourceARN": self.stack.attribute("LostJobs", "Arn"),
            "awsRegion": self.stack.region,
        }

    def _receive(self, record: dict[str, Any]) -> None:
        """One of the readers has it, and nobody else until its visibility time-out is over."""
        batch = self._batches.pop(0)
        self._batches.append(batch)
        batch.append((self.now(), record))
        first = batch[0]
        window = timedelta(seconds=self.source["MaximumBatchingWindowInSeconds"])
        if len(batch) == 1:
            self.at(self.now() + window, lambda: self._close(batch, first))
        if len(batch) == self.source["BatchSize"]:
            self._close(batch, first)

    def _close(self, batch: Batch, first: Received) -> None:
        """The batch that began with this record is full, or its window is over."""
        if not batch or batch[0] is not first:
            return  # it was full before
        received, batch[:] = list(batch), []
        records = [record for _, record in received]
        failed = {record["messageId"] for record in records}
        with contextlib.suppress(Exception):  # as Lambda does
            answer = self.invoke({"Records": records})
            failed = {each["itemIdentifier"] for each in answer["batchItemFailures"]}
        for moment, record in received:
            if record["messageId"] in failed:
                self.at(moment + self._visibility, partial(self._again, record))

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
