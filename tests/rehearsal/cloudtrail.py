"""The event that CloudTrail and EventBridge make of a RunTask call."""

import copy
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from retry_run_task.failed_call import write_time
from retry_run_task.request import HIDDEN


def run_task_event(
    parameters: Mapping[str, Any],
    response: Mapping[str, Any] | None,
    *,
    event_id: str,
    moment: datetime,
    region: str,
    account: str,
    caller_arn: str,
    error: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """A complete envelope; `error` is the code and message of a call that ECS rejected."""
    detail: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "AssumedRole", "arn": caller_arn, "accountId": account},
        "eventTime": write_time(moment),
        "eventSource": "ecs.amazonaws.com",
        "eventName": "RunTask",
        "awsRegion": region,
        "requestParameters": hide_environment(parameters),
        "responseElements": copy.deepcopy(response),
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


def hide_environment(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The request as CloudTrail shows it: without the values of environment overrides."""
    shown = copy.deepcopy(dict(parameters))
    for container in (shown.get("overrides") or {}).get("containerOverrides") or []:
        if container.get("environment") is not None:
            container["environment"] = HIDDEN
    return shown
