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

from rehearsal.callers import RULES_SERVICE
from rehearsal.cloudtrail import run_task_event
from rehearsal.policies import CAPACITY
from retry_run_task.failed_call import write_time

ACCOUNT, REGION = "123456789012", "eu-west-1"
SINCE = datetime(2026, 8, 25, tzinfo=UTC)
DAYS = 90

# How many of all records are RunTask calls, and how many records a log file has.
RUN_TASK_SHARE = 0.01
RECORDS_A_FILE = (200, 2000)

THROTTLED = ("ThrottlingException", "Rate exceeded")

# Some of other services' calls.
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


def write_logs(
    directory: Path, size: int, *, share: float = RUN_TASK_SHARE, seed: int = 1
) -> Counter[str]:
    """Compressed log files of so many bytes in all, uncompressed; counts what is in them.

    `share` of the records are RunTask calls. The counts are those of `history --json`: `records`,
    `failed`, `partly_placed`, `rejected`.
    """
    dice, contents, left = random.Random(seed), Counter[str](), size  # noqa: S311 - no secret
    while left > 0:
        text = json.dumps({"Records": list(_records(dice, share, contents))}, separators=(",", ":"))
        left -= len(text)
        moment = SINCE + timedelta(days=DAYS * (1 - max(0, left) / size))
        folder = directory / "AWSLogs" / ACCOUNT / "CloudTrail" / REGION / f"{moment:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{ACCOUNT}_CloudTrail_{REGION}_{moment:%Y%m%dT%H%MZ}_{dice.getrandbits(64):016x}"
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), compresslevel=6))
    return contents


def _records(dice: random.Random, share: float, contents: Counter[str]) -> Iterator[dict[str, Any]]:
    for _ in range(dice.randrange(*RECORDS_A_FILE)):
        moment = SINCE + timedelta(seconds=dice.randrange(DAYS * 86400))
        if dice.random() < share:
            yield run_task_record(dice, moment, dice.choice(JOBS), contents)
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
    identifier = _identifier(dice)
    event = rule_call(
        job.rule,
        identifier,
        moment,
        count=job.count,
        placed=placed,
        error=error,
        launchType="FARGATE",
    )
    detail: dict[str, Any] = event["detail"]
    return detail


def rule_call(
    rule: str,
    event_id: str,
    moment: datetime,
    *,
    count: int = 1,
    placed: int = 0,
    error: tuple[str, str] | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """The event of a rule's call, of whose tasks ECS has `placed` some, or which it rejected."""
    home = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
    defined = {
        "cluster": f"{home}:cluster/jobs",
        "taskDefinition": f"{home}:task-definition/{rule}:42",
        "count": count,
        "startedBy": f"events-rule/{rule}"[:36],
    }
    answer = {
        "tasks": [{"taskArn": f"{home}:task/jobs/{event_id}-{n}"} for n in range(placed)],
        "failures": [{"reason": CAPACITY}] * (count - placed),
    }
    return run_task_event(
        defined | parameters,
        None if error else answer,
        event_id=event_id,
        moment=moment,
        region=REGION,
        account=ACCOUNT,
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/events",
        session="5d41402abc4b2a76b9719d911017c592",
        user_agent=RULES_SERVICE,
        invoked_by=RULES_SERVICE,
        error=error,
    )


def _other(dice: random.Random, moment: datetime) -> dict[str, Any]:
    """The record of some other call: of the usual length, and no two are alike."""
    source, name = dice.choice(OTHERS)
    role, bucket = f"role-{dice.randrange(40)}", f"bucket-{dice.getrandbits(64):016x}"
    issuer = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    return {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": f"AROA{dice.getrandbits(64):017X}:session",
            "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{dice.getrandbits(64):016x}",
            "accountId": ACCOUNT,
            "accessKeyId": f"ASIA{dice.getrandbits(64):016X}",
            "sessionContext": {
                "sessionIssuer": {"type": "Role", "arn": issuer, "userName": role},
                "attributes": {"creationDate": write_time(moment), "mfaAuthenticated": "false"},
            },
        },
        "eventTime": write_time(moment),
        "eventSource": source,
        "eventName": name,
        "awsRegion": REGION,
        "sourceIPAddress": f"10.0.{dice.randrange(256)}.{dice.randrange(256)}",
        "userAgent": "Boto3/1.40.4 md/Botocore#1.40.4 os/linux#6.1 lang/python#3.13.0",
        "requestParameters": {"bucketName": bucket, "Host": f"{bucket}.s3.amazonaws.com"},
        "responseElements": None,
        "additionalEventData": {"x-amz-id-2": f"{dice.getrandbits(384):096x}"},
        "requestID": _identifier(dice),
        "eventID": _identifier(dice),
        "readOnly": True,
        "resources": [{"accountId": ACCOUNT, "ARN": f"arn:aws:s3:::{bucket}"}],
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
        "tlsDetails": {"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256"},
    }


def _identifier(dice: random.Random) -> str:
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))
