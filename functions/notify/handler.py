"""Lambda's entry: a batch of letters in, one message to people out."""

import logging
import os
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from notify.letter import Letter, read_letter
from notify.message import Message, compose
from notify.remedy import moment
from notify.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

logger = logging.getLogger("notify")
# With the JSON log format, Lambda's own logger also writes what botocore says at level INFO.
logging.getLogger("botocore").setLevel(logging.WARNING)

# Two tries take 15 s at most: the function has 30 s, and SQS delivers again what it did not handle.
CLIENT_CONFIG = Config(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2}
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The letters that SQS delivers, each in the `body` of a record, as one message.

    Returns the records that SQS has to deliver again (Lambda: partial batch responses). What SNS
    rejects escapes as botocore's ClientError, and SQS delivers the whole batch again.
    """
    settings = Settings.read(os.environ, context.invoked_function_arn)
    letters, unhandled = [], []
    for record in event["Records"]:
        try:
            letter = read_letter(record["messageId"], record["body"], sent_at(record))
            compose([letter], settings)
        except Exception:
            # No letter is known to do so. Should one, it is kept, and not in the way of the others.
            logger.exception("unhandled letter")
            unhandled.append({"itemIdentifier": record["messageId"]})
        else:
            letters.append(letter)
    if letters:
        jobs = one_for_each_job(letters)
        report(jobs, publish(sns_client(), compose(jobs, settings), settings))
    return {"batchItemFailures": unhandled}


def one_for_each_job(letters: list[Letter]) -> list[Letter]:
    """What comes twice is one job: its last letter, in the order of time."""
    by_time = sorted(letters, key=lambda letter: letter.time)
    return list({letter.identity: letter for letter in by_time}.values())


def publish(sns: "SNSClient", message: Message, settings: Settings) -> str:
    """Send the message; returns its id."""
    structure: dict[str, Any] = {"MessageStructure": "json"} if message.is_json else {}
    sent = sns.publish(
        TopicArn=settings.topic_arn, Subject=message.subject, Message=message.body, **structure
    )
    return sent["MessageId"]


def report(letters: list[Letter], message_id: str) -> None:
    """One log line for each job of which the retrying function has no outcome, and one for all."""
    for letter in letters:
        if letter.kind.is_failure:
            facts = {
                "outcome": letter.kind,
                "job": letter.job,
                "taskDefinition": letter.task_definition,
                "cluster": letter.cluster,
                "since": letter.since and moment(letter.since),
                "reasons": letter.said,
                "detail": letter.detail,
                "event": letter.event,
            }
            logger.warning("lost job", extra=facts)
    logger.info("notified", extra={"jobs": len(letters), "notification": message_id})


def sent_at(record: dict[str, Any]) -> datetime:
    """When the message was sent to the queue, which SQS says in milliseconds since 1970."""
    return datetime.fromtimestamp(int(record["attributes"]["SentTimestamp"]) / 1000, UTC).replace(
        microsecond=0
    )


@cache
def sns_client() -> "SNSClient":
    return boto3.client("sns", config=CLIENT_CONFIG)
