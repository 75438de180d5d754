"""The event that CloudTrail and EventBridge make of a RunTask call."""

import copy
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from retry_run_task.failed_call import write_time
from retry_run_task.request import HIDDEN

LAMBDA = "Boto3/1.40.4 md/Botocore#1.40.4 exec-env/AWS_Lambda_python3.13"


def run_task_event(
    parameters: Mapping[str, Any],
    response: Mapping[str, Any] | None,
    *,
    event_id: str,
    moment: datetime,
    region: str,
    account: str,
    role_arn: str,
    session: str,
    user_agent: str = LAMBDA,
    invoked_by: str | None = None,
    error: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """A complete envelope, of a call with this role and session: a Lambda function's, if not given.

    `error` is the code and message of a call that ECS rejected.
    """
    partition, role = role_arn.split(":")[1], role_arn.rpartition("/")[2]
    detail: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "arn": f"arn:{partition}:sts::{account}:assumed-role/{role}/{session}",
            "accountId": account,
            "sessionContext": {
                "sessionIssuer": {
                    "type": "Role",
                    "arn": role_arn,
                    "accountId": account,
                    "userName": role,
                }
            },
            **({"invokedBy": invoked_by} if invoked_by else {}),
        },
        "eventTime": write_time(moment),
        "eventSource": "ecs.amazonaws.com",
        "eventName": "RunTask",
        "awsRegion": region,
        "sourceIPAddress": invoked_by or "34.240.0.10",
        "userAgent": user_agent,
        "requestParameters": hide_environment(parameters),
        "responseElements": _shown(response),
        "eventID": event_id,
        "readOnly": False,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": account,
        "eventCategory": "Management",
    }
    if error is not None:
        detail["errorCode"], detail["errorMessage"] = error
    return {
        "version": "0",
        "id": f"envelope-of-{event_id}",
        "detail-type": "AWS API Call via CloudTrail",
        "source": "aws.ecs",
        "account": account,
        "time": write_time(moment),
        "region": region,
        "resources": [],
        "detail": detail,
    }


def _shown(response: Mapping[str, Any] | None) -> Any:
    """The answer as CloudTrail shows it: above 100 KB it is omitted, in what shape is a guess."""
    is_large = len(json.dumps(response, default=str).encode()) > 100_000
    return {"omitted": True} if is_large else copy.deepcopy(response)


def hide_environment(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The request as CloudTrail shows it: without the values of environment overrides."""
    shown = copy.deepcopy(dict(parameters))
    for container in (shown.get("overrides") or {}).get("containerOverrides") or []:
        if container.get("environment") is not None:
            container["environment"] = HIDDEN
    return shown
