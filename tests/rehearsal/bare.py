"""What the benchmark compares the function with: the least that can replay a call."""

from typing import Any

import boto3

ecs = boto3.client("ecs")


def handler(event: dict[str, Any], _: object) -> dict[str, Any]:
    """The request again, as it is."""
    return dict(ecs.run_task(**event["detail"]["requestParameters"]))
