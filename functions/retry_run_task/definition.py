"""Definitions: the RunTask request that the target of a rule or schedule makes."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.model import ListShape, Shape, StructureShape
from dateutil.tz import gettz

from retry_run_task.request import AnyText, NotExact, exact, unknown_member

# How Scheduler names the target that takes RunTask's own parameters (Scheduler user guide, "Using
# universal targets").
UNIVERSAL = ":scheduler:::aws-sdk:ecs:runTask"

# What is filled in when a definition fires: the variables of a rule's input template (EventBridge
# user guide, "Input transformation"; any <name> counts, even one that InputPathsMap does not have),
# and Scheduler's keywords (Scheduler user guide, "Adding context attributes").
VARIABLES = r"<[A-Za-z0-9_.-]+>"
KEYWORDS = r"<aws\.scheduler\.[^<>]*>"
NOTHING = r"(?!)"

# Members of `EcsParameters` with another name in RunTask. All others begin with a capital.
NAMES = {"TaskDefinitionArn": "taskDefinition", "TaskCount": "count"}

# For how long after its time, and its flexible window, Scheduler may still try a call: at most a
# day (RetryPolicy `MaximumEventAgeInSeconds`, Scheduler API reference).
LATEST_RETRY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Definition:
    """A target of a rule or schedule.

    `arn` is that of the rule or schedule. `target` is an item of ListTargetsByRule's `Targets`, or
    GetSchedule's `Target`; `shape` is its shape in botocore's model of that service. `schedule` is
    the whole answer of GetSchedule; EventBridge shows nothing more of a rule.
    """

    arn: str
    target: Mapping[str, Any]
    shape: StructureShape
    schedule: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The rule's or schedule's own name."""
        return self.arn.rpartition("/")[2]

    @property
    def role(self) -> str:
        """The ARN of the role that it calls with; empty without one."""
        role: str = self.target.get("RoleArn", "")
        return role

    @property
    def is_rule(self) -> bool:
        """Is it a rule's, not a schedule's?"""
        return self.schedule is None

    @property
    def made(self) -> datetime | None:
        """When the schedule was made; None for a rule."""
        return self.schedule["CreationDate"] if self.schedule else None

    @property
    def changed(self) -> datetime | None:
        """When the schedule was made or last changed; None for a rule.

        That every change of a schedule moves this date is a guess.
        """
        return self.schedule["LastModificationDate"] if self.schedule else None

    @property
    def ends_itself(self) -> bool:
        """Is it a schedule that makes a last call, after which it may delete itself?"""
        if self.schedule is None:
            return False
        deletes = self.schedule.get("ActionAfterCompletion") == "DELETE"
        return _once(self.schedule) is not None or (deletes and bool(self.schedule.get("EndDate")))

    @property
    def is_universal(self) -> bool:
        """Is its target Scheduler's universal one, with RunTask's own parameters as the input?"""
        return is_universal(self.target["Arn"])


def is_universal(target_arn: str) -> bool:
    """Is this the ARN of Scheduler's universal target for RunTask, in any partition?"""
    return target_arn.endswith(UNIVERSAL)


def title_of(arn: str) -> str:
    """A rule or schedule in words: `the rule nightly on the bus default`."""
    kind, *path = arn.split(":", 5)[5].split("/")
    if kind == "schedule":
        return f"the schedule {path[-1]} in the group {path[0]}"
    return f"the rule {path[-1]} on the bus {'/'.join(path[:-1]) or 'default'}"


def task_of(definition: Definition) -> tuple[object, object]:
    """Its cluster and task definition, even where the rest of it cannot be used.

    Each may be a short name, an ARN, or what is filled in. Raises NotExact where the definition
    cannot make a call at all.
    """
    if not definition.is_universal:
        return definition.target["Arn"], _ecs_parameters(definition.target)["TaskDefinitionArn"]
    given = _universal_input(definition)
    return given.get("Cluster") or "default", given.get("TaskDefinition")


def request_of(definition: Definition, run_task: StructureShape) -> dict[str, Any]:
    """The RunTask request that the target makes, without what AWS adds to it.

    What is filled in when it fires is AnyText. `run_task` is RunTask's input shape in botocore's
    model. Raises NotExact, naming the member of the target, where it is not one whole request.
    """
    target = exact(definition.target, definition.shape)
    if definition.is_universal:
        given = _with_names_of(run_task, _universal_input(definition), "Input")
        request: dict[str, Any] = exact(given, run_task, "Input")
        return {"cluster": "default", "count": 1} | request
    parameters = _ecs_parameters(target)
    request = {NAMES.get(name, _lower(name)): value for name, value in parameters.items()}
    if "tags" in request:
        request["tags"] = _tags(request["tags"], definition)
    if "networkConfiguration" in request:
        vpc = request["networkConfiguration"].get("awsvpcConfiguration", {})
        configuration = {_lower(name): value for name, value in vpc.items()}
        request["networkConfiguration"] = {"awsvpcConfiguration": configuration}
    if overrides := _overrides(definition, run_task.members["overrides"]):
        request["overrides"] = overrides
    # One task is the default of both services (EcsParameters `TaskCount`).
    return {"cluster": target["Arn"], "count": 1} | request


def checksum_of(request: Mapping[str, Any]) -> str:
    """Four hexadecimal digits over a request of `request_of`: too few to guess a value by."""
    text = json.dumps(request, sort_keys=True, default=lambda filled: list(filled.parts))
    return hashlib.sha256(text.encode()).hexdigest()[:4]


def due_of(definition: Definition) -> tuple[datetime | None, datetime | None]:
    """The first and the last moment at which the definition could call; None where it is open.

    A one-time schedule has no start and end dates beside its time (CreateSchedule, API reference),
    and one that is disabled makes no new calls. Raises NotExact where the time cannot be read.
    """
    schedule = definition.schedule
    if schedule is None:
        return None, None
    first: datetime | None = schedule.get("StartDate")
    ends = [schedule["EndDate"]] if schedule.get("EndDate") else []
    try:
        if (once := _once(schedule)) is not None:
            # dateutil comes with boto3 and brings the time zones along, which Lambda may not have.
            zone = gettz(schedule.get("ScheduleExpressionTimezone") or "UTC")
            if zone is None:
                raise NotExact("ScheduleExpressionTimezone", "is unknown to this function")
            first = datetime.fromisoformat(once).replace(tzinfo=zone).astimezone(UTC)
            ends = [first]
        if schedule.get("State") == "DISABLED":
            ends.append(schedule["LastModificationDate"])
        window = schedule["FlexibleTimeWindow"].get("MaximumWindowInMinutes") or 0
        last = min(ends) + timedelta(minutes=window) + LATEST_RETRY if ends else None
    except (ValueError, OverflowError) as error:
        raise NotExact("ScheduleExpression", "is no time that can be read") from error
    return first, last


def _once(schedule: Mapping[str, Any]) -> str | None:
    """The time of a one-time schedule, as it is written; None for all others."""
    expression = re.fullmatch(r"at\((.+)\)", schedule["ScheduleExpression"])
    return expression[1] if expression else None


def _ecs_parameters(target: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters: Mapping[str, Any] | None = target.get("EcsParameters")
    if parameters is None:
        raise NotExact("EcsParameters", "is missing")
    return parameters


def _overrides(definition: Definition, shape: Shape) -> Any:
    """What the input of an ECS target overrides: nothing, if the event itself is the input."""
    target = definition.target
    if "InputPath" in target:
        return AnyText()
    if transformer := target.get("InputTransformer"):
        path = "InputTransformer.InputTemplate"
        return exact(_read(transformer["InputTemplate"], VARIABLES, path), shape, path)
    # A rule's constant input is sent as it is; what looks like a keyword is one to Scheduler only.
    filled = NOTHING if definition.is_rule else KEYWORDS
    return exact(_read(target.get("Input", "{}"), filled, "Input"), shape, "Input")


def _universal_input(definition: Definition) -> dict[str, Any]:
    given = _read(definition.target.get("Input", "{}"), KEYWORDS, "Input")
    if not isinstance(given, dict):
        raise NotExact("Input", "is not an object")
    return given


def _read(text: str, filled: str, path: str) -> Any:
    """The JSON in a text; what is filled in (a regular expression) is AnyText.

    Inside of quotes it is text, and outside of them it may be any value.
    """
    # Stand for what is filled in: no text can hold its own checksum. The brackets keep it out of
    # messages, which name members that are plain words.
    checksum = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    in_text, in_value = f"<{checksum}>", f"<{checksum[::-1]}>"

    def mark(found: re.Match[str]) -> str:
        is_quoted = found[0].startswith('"')
        return re.sub(filled, in_text, found[0]) if is_quoted else f'"{in_value}"'

    def marked(value: Any) -> Any:
        if isinstance(value, list):
            return [marked(item) for item in value]
        if isinstance(value, dict):
            return {name: marked(member) for name, member in value.items()}
        if value == in_value:
            return AnyText()
        is_filled = isinstance(value, str) and in_text in value
        return AnyText(tuple(value.split(in_text))) if is_filled else value

    # A quote that is never closed is read to the end, once: no backtracking.
    text = re.sub(rf'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|{filled}', mark, text, flags=re.DOTALL)
    try:
        return marked(json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, path)))
    except (ValueError, RecursionError) as error:
        raise NotExact(path, "is not JSON") from error


def _object(pairs: list[tuple[str, Any]], path: str) -> dict[str, Any]:
    """An object of JSON. With a name given twice, it is a guess which one the service takes."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotExact(path, "gives a member twice")
    return found


def _with_names_of(shape: Shape, value: Any, path: str) -> Any:
    """A universal target's input (`TaskDefinition`) with the model's names (`taskDefinition`).

    Scheduler takes no others: CreateSchedule refuses `taskDefinition` (a user's report). Keys of
    maps are nobody's names, and stay as they are.
    """
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_with_names_of(shape.member, v, f"{path}[{i}]") for i, v in enumerate(value)]
    if not isinstance(shape, StructureShape) or not isinstance(value, dict):
        return value
    renamed = {}
    for name, member in value.items():
        known = _lower(name)
        if known == name or known not in shape.members:
            raise unknown_member(path, name)
        renamed[known] = _with_names_of(shape.members[known], member, f"{path}.{name}")
    return renamed


def _tags(tags: list[dict[str, str]], definition: Definition) -> list[dict[str, str]]:
    """RunTask's tags, of those of a rule (a TagList of `Key` and `Value`) or of a schedule (maps).

    A map has a tag for each of its members: {"key": "a", "value": "b"} is two tags, "key" and
    "value" (seen: hashicorp/terraform-provider-aws#45629).
    """
    if definition.is_rule:
        return [{"key": tag["Key"], "value": tag["Value"]} for tag in tags]
    return [{"key": key, "value": value} for tag in tags for key, value in tag.items()]


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]
