"""The source: who still holds what CloudTrail hides of a call?"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from retry_run_task.caller import OURS, RULE_PREFIX, SCHEDULE_PREFIX, Caller, is_shown_as
from retry_run_task.chain import DEFINITION_TAG, Tags, tag_value
from retry_run_task.failed_call import FailedCall
from retry_run_task.request import HIDDEN, NotExact

# A `startedBy` of this length may have been cut (see RULE_PREFIX).
LONGEST_STARTED_BY = 36
# What a tag's value takes (RunTask `tags`, API reference).
LONGEST_TAG = 256

# The way out where a letter cannot be replayed. An earlier attempt may have started the job.
BY_HAND = "see whether the job runs, and start it by hand if not"

_TAG = re.compile(
    "(arn:[^:]+:(?:events:[^:]+:[0-9]+:rule/.+|scheduler:[^:]+:[0-9]+:schedule/[^/]+/[^/]+))?"
    "@([0-9a-f]{4})"
)


@dataclass(frozen=True, slots=True)
class Search:
    """What a call shows of the definition that made it: where to look, and what has to fit.

    `name` is the rule's or schedule's, or its beginning where it `is_cut`; nothing is known of the
    name of a schedule with the universal target. `role` is the ARN of the role that called, at
    `called_at`. An attempt of ours shows the `checksum` of the definition instead of its role.
    """

    kind: Literal["rule", "schedule", "universal"]
    name: str
    is_cut: bool
    role: str
    called_at: datetime
    checksum: str = ""

    def may_be(self, name: str) -> bool:
        """Can a rule or schedule of this name have made the call?"""
        return name.startswith(self.name) if self.is_cut else name == self.name


@dataclass(frozen=True, slots=True)
class Known:
    """The definition that was verified for an earlier attempt, and the checksum of its request."""

    arn: str
    checksum: str


Source = Search | Known


def hidden_environments(request: Mapping[str, Any]) -> list[str]:
    """The paths of the environment overrides that CloudTrail has hidden in a request."""
    containers = request.get("overrides", {}).get("containerOverrides", [])
    return [
        f"overrides.containerOverrides[{i}].environment"
        for i, container in enumerate(containers)
        if container.get("environment") == HIDDEN
    ]


def not_recovered(request: Mapping[str, Any], why: str) -> NotExact:
    """The refusal of a request that hides something: `why`, and what helps."""
    return NotExact(hidden_environments(request)[0], f"is hidden by CloudTrail, and {why}")


def definition_tag(arn: str, checksum: str) -> str:
    """By what later attempts know a definition: its ARN, if it fits into a tag, and a checksum."""
    tag = f"{arn}@{checksum}"
    return tag if len(tag) <= LONGEST_TAG else f"@{checksum}"


def source_of(
    call: FailedCall, caller: Caller, begun: bool, asked: Mapping[str, Any], tags: Tags
) -> Source:
    """Who holds what the request `asked` of a call hides.

    An attempt of ours, or a call after one (`begun`), has a tag of ours that names the definition.
    In other calls, such a tag is anybody's word, and is not read. Raises NotExact where the tag is
    missing or unreadable, and for calls that no rule or schedule made.
    """
    checksum = ""
    if caller.kind == OURS or begun:
        found = _TAG.fullmatch(tag_value(tags, DEFINITION_TAG) or "")
        if found is None:
            problem = f"is not what an earlier attempt has sent; {BY_HAND}"
            raise NotExact(f"tags[{DEFINITION_TAG}]", problem)
        if found[1]:
            return Known(found[1], found[2])
        checksum = found[2]
    started_by: str = asked.get("startedBy", "")
    is_cut = len(started_by) >= LONGEST_STARTED_BY
    # A rule's calls show `invokedBy`, which AWS writes. Scheduler's do not, and a user agent is the
    # caller's own word: it only says where to look. The role is what proves it.
    by_rule = checksum or is_shown_as(call, "events-rule", "invoked_by")
    if by_rule and started_by.startswith(RULE_PREFIX):
        name = started_by.removeprefix(RULE_PREFIX)
        return Search("rule", name, is_cut, call.role, call.event_time, checksum)
    if is_shown_as(call, "scheduler", "invoked_by", "user_agent"):
        if started_by.startswith(SCHEDULE_PREFIX):
            name = started_by.removeprefix(SCHEDULE_PREFIX)
            return Search("schedule", name, is_cut, call.role, call.event_time)
        return Search("universal", "", True, call.role, call.event_time)
    if tag_value(tags, DEFINITION_TAG) is not None:
        raise not_recovered(
            asked,
            "an attempt of another stack, or of this one under an earlier name, made the call, in "
            f"which it cannot be verified; {BY_HAND}",
        )
    raise not_recovered(
        asked,
        "no EventBridge rule or schedule made the call, in which it could be looked up: put it "
        "into `command`, an `environmentFiles` entry or the task definition, which are not hidden",
    )
