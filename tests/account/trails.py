"""The trail: does CloudTrail send the events of RunTask calls in this Region to EventBridge?

It does so for what a trail logs, and for no other calls (EventBridge user guide, "AWS service
events delivered via AWS CloudTrail").
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from account.finding import Finding, Mark, why_not
from account.session import client_of

SUBJECT = "CloudTrail"

# What a selector can ask of the record of a RunTask call: fields of management events (CloudTrail
# API reference, AdvancedFieldSelector).
RECORD = {
    "eventCategory": "Management",
    "eventName": "RunTask",
    "eventSource": "ecs.amazonaws.com",
    "eventType": "AwsApiCall",
    "readOnly": "false",
}


def trail_findings(session: boto3.Session) -> Iterator[Finding]:
    """One finding: a trail that does is enough."""
    region = str(session.region_name)
    # With the trails of other Regions and of the organisation that cover this one.
    trails = client_of(session, "cloudtrail").describe_trails(includeShadowTrails=True)
    here = [
        trail
        for trail in trails["trailList"]
        if trail.get("IsMultiRegionTrail") or trail["HomeRegion"] == region
    ]
    judged = [_judge(session, trail) for trail in here]
    for mark in (Mark.OK, Mark.UNKNOWN, Mark.FIX):
        sentences = [sentence for found, sentence in judged if found is mark]
        if sentences:
            few = sentences[:1] if mark is Mark.OK else sentences
            yield Finding(mark, SUBJECT, " ".join(few))
            return
    yield Finding(
        Mark.FIX,
        SUBJECT,
        f"No trail covers {region}: make one that logs management events (CloudTrail console, "
        "Create trail).",
    )


def _judge(session: boto3.Session, trail: Mapping[str, Any]) -> tuple[Mark, str]:
    """Whether this trail logs RunTask calls, in a sentence."""
    name, arn = trail["Name"], trail["TrailARN"]
    # A trail is asked where it is at home: elsewhere, there is a shadow of it.
    cloudtrail = client_of(session, "cloudtrail", trail["HomeRegion"])
    try:
        if not cloudtrail.get_trail_status(Name=arn)["IsLogging"]:
            return Mark.FIX, f"The trail {name} has stopped: start logging."
        selectors = cloudtrail.get_event_selectors(TrailName=arn)
    except (ClientError, BotoCoreError) as error:
        whose = " of the organisation" if trail.get("IsOrganizationTrail") else ""
        return Mark.UNKNOWN, (
            f"Whether the trail {name}{whose} logs management write events cannot be read from "
            f"here. {why_not(error)}"
        )
    match logs_run_task(selectors):
        case True:
            return Mark.OK, f"The trail {name} logs management write events of this Region."
        case None:
            return Mark.UNKNOWN, f"The trail {name} has a selector that this command does not know."
    return Mark.FIX, (
        f"The trail {name} does not log management write events of ECS: let it (ReadWriteType All "
        "or WriteOnly, and management events included)."
    )


def logs_run_task(selectors: Mapping[str, Any]) -> bool | None:
    """Do GetEventSelectors' selectors include RunTask calls? None where that cannot be said."""
    for basic in selectors.get("EventSelectors") or []:
        excluded = basic.get("ExcludeManagementEventSources", [])
        if (
            basic.get("IncludeManagementEvents")
            and basic.get("ReadWriteType") in ("All", "WriteOnly")
            and RECORD["eventSource"] not in excluded
        ):
            return True
    advanced = [
        [_holds(field) for field in selector["FieldSelectors"]]
        for selector in selectors.get("AdvancedEventSelectors") or []
    ]
    if any(all(fields) for fields in advanced):
        return True
    return None if any(None in fields and False not in fields for fields in advanced) else False


def _holds(selector: Mapping[str, Any]) -> bool | None:
    """Does this field of the record match? None for a field that records have in many ways."""
    value = RECORD.get(selector["Field"])
    if value is None:
        return None
    tests: dict[str, Callable[[str], bool]] = {
        "Equals": lambda wanted: value == wanted,
        "StartsWith": value.startswith,
        "EndsWith": value.endswith,
    }
    # What one operator selects is enough, if none deselects it (CloudTrail user guide, "How
    # CloudTrail evaluates multiple conditions for a field").
    selects = [test(text) for name, test in tests.items() for text in selector.get(name, [])]
    deselects = [test(t) for name, test in tests.items() for t in selector.get(f"Not{name}", [])]
    return (any(selects) or not selects) and not any(deselects)
