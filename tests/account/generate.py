"""Log files as CloudTrail delivers them, with known contents: for the benchmark and the tests."""

import gzip
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rehearsal.cloudtrail import run_task_event
from retry_run_task.failed_call import write_time

ACCOUNT, REGION = "123456789012", "eu-west-1"
SINCE = datetime(2026, 8, 25, tzinfo=UTC)
DAYS = 90

# Of all records, one in a hundred is a RunTask call; log files hold some hundreds or thousands.
RUN_TASK_SHARE = 0.01
RECORDS_A_FILE = (200, 2000)

CAPACITY = "Capacity is unavailable at this time. Please try again later"
THROTTLED = ("ThrottlingException", "Rate exceeded")

# What other services' calls look like, as far as it matters here: their length, and how much of
# them differs from record to record.
OTHERS = (
    ("s3.amazonaws.com", "GetBucketAcl"),
    ("sts.amazonaws.com", "AssumeRole"),
    ("kms.amazonaws.com", "Decrypt"),
    ("ec2.amazonaws.com", "DescribeInstances"),
    ("logs.amazonaws.com", "CreateLogStream"),
    ("ecs.amazonaws.com", "DescribeTasks"),
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A rule's job: how many tasks it asks for, and in how many of its calls which part fails."""

    rule: str
    count: int = 1
    failed: float = 0.0
    partly_placed: float = 0.0
    rejected: float = 0.0


JOBS = (
    Planned("nightly-report", failed=0.05),
    Planned("etl", count=3, failed=0.02, partly_placed=0.03),
    Planned("every-five-minutes", rejected=0.1),
    Planned("invoices"),
)


def write_logs(directory: Path, size: int, seed: int = 1) -> Counter[str]:
    """Compressed log files of so many bytes in all, uncompressed; counts what is in them.

    The counts are those of `history --json`: `records`, `failed`, `partly_placed`, `rejected`.
    """
    dice, contents, left = random.Random(seed), Counter[str](), size  # noqa: S311 - no secret
    while left > 0:
        records = ",".join(_records(dice, contents))
        text = f'{{"Records":[{records}]}}'
        left -= len(text)
        moment = SINCE + timedelta(days=DAYS * (1 - max(0, left) / size))
        folder = directory / "AWSLogs" / ACCOUNT / "CloudTrail" / REGION / f"{moment:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{ACCOUNT}_CloudTrail_{REGION}_{moment:%Y%m%dT%H%MZ}_{dice.getrandbits(64):016x}"
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), compresslevel=6))
    return contents


def _records(dice: random.Random, contents: Counter[str]) -> Iterator[str]:
    for _ in range(dice.randrange(*RECORDS_A_FILE)):
        moment = SINCE + timedelta(seconds=dice.randrange(DAYS * 86400))
        if dice.random() < RUN_TASK_SHARE:
            record = run_task_record(dice, moment, dice.choice(JOBS), contents)
            yield json.dumps(record, separators=(",", ":"))
        else:
            yield _other(dice, moment)


def run_task_record(
    dice: random.Random, moment: datetime, job: Planned, contents: Counter[str]
) -> dict[str, Any]:
    """The record of one call of the job; counts it."""
    fate, placed, error = dice.random(), job.count, None
    contents["records"] += 1
    if fate < job.failed:
        contents["failed"] += 1
        placed = 0
    elif fate < job.failed + job.partly_placed:
        contents["partly_placed"] += 1
        placed = dice.randrange(1, job.count)
    elif fate < job.failed + job.partly_placed + job.rejected:
        contents["rejected"] += 1
        error = THROTTLED
    cluster = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/jobs"
    task = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/jobs"
    answer = {
        "tasks": [{"taskArn": f"{task}/{dice.getrandbits(128):032x}"} for _ in range(placed)],
        "failures": [{"reason": CAPACITY}] * (job.count - placed),
    }
    event = run_task_event(
        {
            "cluster": cluster,
            "taskDefinition": f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{job.rule}:42",
            "count": job.count,
            "launchType": "FARGATE",
            "startedBy": f"events-rule/{job.rule}"[:36],
        },
        None if error else answer,
        event_id=_identifier(dice),
        moment=moment,
        region=REGION,
        account=ACCOUNT,
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/events",
        session="5d41402abc4b2a76b9719d911017c592",
        user_agent="events.amazonaws.com",
        invoked_by="events.amazonaws.com",
        error=error,
    )
    detail: dict[str, Any] = event["detail"]
    return detail


def _other(dice: random.Random, moment: datetime) -> str:
    source, name = dice.choice(OTHERS)
    role, identifier = f"role-{dice.randrange(40)}", dice.getrandbits(640)
    return (
        '{"eventVersion":"1.11","userIdentity":{"type":"AssumedRole","principalId":'
        f'"AROA{identifier % 10**17:017}:session","arn":"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/'
        f'{identifier % 16**12:012x}","accountId":"{ACCOUNT}","accessKeyId":'
        f'"ASIA{identifier % 10**16:016}","sessionContext":{{"sessionIssuer":{{"type":"Role",'
        f'"principalId":"AROA{identifier % 10**17:017}","arn":"arn:aws:iam::{ACCOUNT}:role/{role}",'
        f'"accountId":"{ACCOUNT}","userName":"{role}"}},"attributes":{{"creationDate":'
        f'"{write_time(moment)}","mfaAuthenticated":"false"}}}}}},"eventTime":"{write_time(moment)}",'
        f'"eventSource":"{source}","eventName":"{name}","awsRegion":"{REGION}","sourceIPAddress":'
        f'"10.0.{identifier % 251}.{identifier % 241}","userAgent":"Boto3/1.40.4 md/Botocore#1.40.4 '
        'ua/2.1 os/linux#6.1 md/arch#x86_64 lang/python#3.13.0","requestParameters":{"bucketName":'
        f'"bucket-{identifier % 16**20:020x}","Host":"bucket.s3.{REGION}.amazonaws.com","acl":""}},'
        f'"responseElements":null,"additionalEventData":{{"bytesTransferredIn":{dice.randrange(10**5)},'
        f'"x-amz-id-2":"{identifier:0160x}"}},"requestID":"{_identifier(dice)}","eventID":'
        f'"{_identifier(dice)}","readOnly":true,"resources":[{{"accountId":"{ACCOUNT}","type":'
        f'"AWS::S3::Bucket","ARN":"arn:aws:s3:::bucket-{identifier % 16**20:020x}"}}],"eventType":'
        f'"AwsApiCall","managementEvent":true,"recipientAccountId":"{ACCOUNT}","eventCategory":'
        '"Management","tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256",'
        f'"clientProvidedHostHeader":"{source}"}}}}'
    )


def _identifier(dice: random.Random) -> str:
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))
