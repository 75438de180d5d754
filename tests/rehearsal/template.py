"""template.yaml as CloudFormation would resolve it for some parameters, without a deployment."""

import re
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore.exceptions import UnknownRegionError
from samtranslator.yaml_helper import yaml_parse

from rehearsal import ROOT
from rehearsal.isolation import isolated
from rehearsal.records import BadInput

_NO_VALUE = object()

# What `Fn::GetAtt: [X, Arn]` gives, by resource type; `{name}` is the physical name.
_ARNS = {
    "AWS::IAM::Role": "arn:{partition}:iam::{account}:role/{name}",
    "AWS::Logs::LogGroup": "arn:{partition}:logs:{region}:{account}:log-group:{name}:*",
    "AWS::Scheduler::ScheduleGroup": (
        "arn:{partition}:scheduler:{region}:{account}:schedule-group/{name}"
    ),
    "AWS::SQS::Queue": "arn:{partition}:sqs:{region}:{account}:{name}",
    "AWS::Serverless::Function": "arn:{partition}:lambda:{region}:{account}:function:{name}",
    "AWS::Events::EventBus": "arn:{partition}:events:{region}:{account}:event-bus/{name}",
    "AWS::Events::Archive": "arn:{partition}:events:{region}:{account}:archive/{name}",
    "AWS::Events::Rule": "arn:{partition}:events:{region}:{account}:rule/{name}",
    "AWS::SNS::Topic": "arn:{partition}:sns:{region}:{account}:{name}",
}


class BadParameter(ValueError):
    """A parameter that CloudFormation would refuse."""


class Stack:
    """template.yaml with its parameters, conditions and intrinsics resolved.

    `resources` maps logical ids to resolved resources; `outputs` likewise. Raises BadParameter
    for a parameter that the template does not have or would not take.
    """

    def __init__(
        self,
        parameters: Mapping[str, str] | None = None,
        *,
        name: str = "retry-run-task",
        account: str = "123456789012",
        region: str = "eu-west-1",
        partition: str = "aws",
    ) -> None:
        self.source = _parsed((ROOT / "template.yaml").read_text("utf-8"))
        self.name, self.account, self.region, self.partition = name, account, region, partition
        declared = self.source["Parameters"]
        given = dict(parameters or {})
        if unknown := given.keys() - declared.keys():
            raise BadParameter(f"{min(unknown)} is none of {', '.join(declared)}")
        self.parameters = {
            key: _parameter(key, spec, given.get(key, str(spec["Default"])))
            for key, spec in declared.items()
        }
        self.resources: dict[str, Any] = {
            logical_id: self._resolve(resource)
            for logical_id, resource in self.source["Resources"].items()
            if "Condition" not in resource or self._condition(resource["Condition"])
        }
        self.outputs: dict[str, Any] = self._resolve(self.source["Outputs"])

    @property
    def stack_id(self) -> str:
        """The same in every run, unlike CloudFormation's, for the README shows names made of it."""
        home = f"arn:{self.partition}:cloudformation:{self.region}:{self.account}:stack/{self.name}"
        return f"{home}/{uuid.uuid5(uuid.NAMESPACE_URL, home)}"

    @property
    def function(self) -> dict[str, Any]:
        """The function's resolved properties."""
        properties: dict[str, Any] = self.resources["RetryRunTask"]["Properties"]
        return properties

    @property
    def function_arn(self) -> str:
        return self.attribute("RetryRunTask", "Arn")

    @property
    def function_name(self) -> str:
        return self.function_arn.rpartition(":")[2]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the function that retries."""
        return self.environment_of("RetryRunTask")

    def environment_of(self, function: str) -> dict[str, str]:
        """A function's environment: the template's variables and those of Lambda itself."""
        variables = self.resources[function]["Properties"]["Environment"]["Variables"]
        return {key: str(value) for key, value in variables.items()} | {
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_LAMBDA_FUNCTION_NAME": self.attribute(function, "Arn").rpartition(":")[2],
        }

    @property
    def rules(self) -> dict[str, dict[str, Any]]:
        """All rules by logical id: SAM makes those of the function's events."""
        events = self.function["Events"]
        made_by_sam = {f"RetryRunTask{name}": event["Properties"] for name, event in events.items()}
        return made_by_sam | {
            logical_id: resource["Properties"] | {"Pattern": resource["Properties"]["EventPattern"]}
            for logical_id, resource in self.resources.items()
            if resource["Type"] == "AWS::Events::Rule"
        }

    @property
    def takes_failed_calls(self) -> bool:
        """Is the rule on the default bus enabled?"""
        return bool(self.rules["RetryRunTaskFailedCall"]["State"] != "DISABLED")

    @property
    def pattern(self) -> dict[str, Any]:
        """The event pattern of the rule on the default bus."""
        pattern: dict[str, Any] = self.rules["RetryRunTaskFailedCall"]["Pattern"]
        return pattern

    @property
    def policy(self) -> list[dict[str, Any]]:
        """The statements of the role of the function that retries."""
        return self.policy_of("RetryRunTaskRole")

    def policy_of(self, role_id: str) -> list[dict[str, Any]]:
        """The statements of a role."""
        role = self.resources[role_id]["Properties"]
        return [s for policy in role["Policies"] for s in policy["PolicyDocument"]["Statement"]]

    def _resolve(self, node: Any) -> Any:
        if isinstance(node, list):
            return [v for v in map(self._resolve, node) if v is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((function, argument),) = node.items()
            if function == "Ref" or function.startswith("Fn::"):
                return self._intrinsic(function, argument)
        resolved = {key: self._resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not _NO_VALUE}

    def _intrinsic(self, function: str, argument: Any) -> Any:
        match function:
            case "Ref":
                return self._ref(argument)
            case "Fn::GetAtt":
                parts = argument if isinstance(argument, list) else argument.split(".", 1)
                return self.attribute(*parts)
            case "Fn::Sub":
                text, variables = argument if isinstance(argument, list) else (argument, {})
                own = {name: str(value) for name, value in self._resolve(variables).items()}
                return re.sub(
                    r"\$\{([^!}]+)\}", lambda m: own.get(m[1]) or self._substitute(m[1]), text
                )
            case "Fn::Join":
                return argument[0].join(map(str, self._resolve(argument[1])))
            case "Fn::Split":
                return self._resolve(argument[1]).split(argument[0])
            case "Fn::Select":
                return self._resolve(argument[1])[int(argument[0])]
            case "Fn::If":
                return self._resolve(argument[1 if self._condition(argument[0]) else 2])
        raise NotImplementedError(f"the rehearsal does not resolve {function}")

    def _substitute(self, name: str) -> str:
        return str(self.attribute(*name.split(".", 1)) if "." in name else self._ref(name))

    def _ref(self, name: str) -> Any:
        pseudo = {
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": self.partition,
            "AWS::StackName": self.name,
            "AWS::StackId": self.stack_id,
            "AWS::NoValue": _NO_VALUE,
        }
        if name in pseudo:
            return pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        is_topic = self._source(name)["Type"] == "AWS::SNS::Topic"
        return self.attribute(name, "Arn") if is_topic else self._physical_name(name)

    def attribute(self, logical_id: str, attribute: str) -> str:
        """What Fn::GetAtt gives."""
        if attribute == "QueueName":
            return self._physical_name(logical_id)
        if attribute != "Arn":
            raise NotImplementedError(f"the rehearsal knows no {attribute} of {logical_id}")
        source = self._source(logical_id)
        bus = source.get("Properties", {}).get("EventBusName")
        return _ARNS[source["Type"]].format(
            partition=self.partition,
            region=self.region,
            account=self.account,
            name=(f"{self._resolve(bus)}/" if bus else "") + self._physical_name(logical_id),
        )

    def _physical_name(self, logical_id: str) -> str:
        properties = self._source(logical_id).get("Properties", {})
        given = properties.get("ArchiveName") or properties.get("Name")
        return str(self._resolve(given)) if given else f"{self.name}-{logical_id}"

    def _source(self, logical_id: str) -> dict[str, Any]:
        """The resource as the template has it, or as SAM makes it of an event of the function."""
        resources: dict[str, Any] = self.source["Resources"]
        if logical_id in resources:
            return dict(resources[logical_id])
        events = resources["RetryRunTask"]["Properties"]["Events"]
        properties = events[logical_id.removeprefix("RetryRunTask")]["Properties"]
        return {"Type": "AWS::Events::Rule", "Properties": properties}

    def _condition(self, condition: Any) -> bool:
        if isinstance(condition, str):
            return self._condition(self.source["Conditions"][condition])
        ((function, operands),) = condition.items()
        match function:
            case "Condition":
                return self._condition(operands)
            case "Fn::Equals":
                left, right = self._resolve(operands)
                return bool(left == right)
            case "Fn::Not":
                return not self._condition(operands[0])
            case "Fn::And":
                return all(map(self._condition, operands))
            case "Fn::Or":
                return any(map(self._condition, operands))
        raise NotImplementedError(f"the rehearsal knows no condition {function}")


def stack_of(event: Mapping[str, Any], parameters: Mapping[str, str] | None = None) -> Stack:
    """The stack in the event's account and Region; raises BadInput."""
    region = event["region"]
    try:
        with isolated():
            partition = botocore.session.get_session().get_partition_for_region(region)
    except UnknownRegionError as error:
        raise BadInput(f"'region' is {region!r:.40}, which is no Region of AWS") from error
    return Stack(parameters, account=event["account"], region=region, partition=partition)


@cache
def _parsed(text: str) -> dict[str, Any]:
    """The template's YAML: nobody changes it, and parsing it takes a quarter of a second."""
    parsed: dict[str, Any] = yaml_parse(text)
    return parsed


def _parameter(name: str, spec: Mapping[str, Any], text: str) -> str | list[str]:
    # CloudFormation trims the elements of a list (user guide, "Parameters").
    is_list = spec["Type"] == "CommaDelimitedList"
    values = [value.strip() for value in text.split(",")] if is_list else [text]
    for value in values:
        allowed = list(map(str, spec.get("AllowedValues", [value])))
        if value not in allowed:
            raise BadParameter(f"{name} is {value!r}, not one of {', '.join(allowed)}")
        if spec["Type"] == "Number":
            low, high = spec.get("MinValue"), spec.get("MaxValue")
            if not re.fullmatch("[0-9]+", value) or not (
                (low is None or low <= int(value)) and (high is None or int(value) <= high)
            ):
                raise BadParameter(f"{name} is {value!r}, not a number from {low} to {high}")
        if not re.search(spec.get("AllowedPattern", ""), value):
            raise BadParameter(
                f"{name} is {value!r}, which does not match {spec['AllowedPattern']}"
            )
    return values if is_list else text
