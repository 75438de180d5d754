"""template.yaml as CloudFormation would resolve it for some parameters, without a deployment."""

import re
from collections.abc import Mapping
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from rehearsal import ROOT

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
    "AWS::Events::Rule": "arn:{partition}:events:{region}:{account}:rule/{name}",
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
        self.source: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text("utf-8"))
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
    def function(self) -> dict[str, Any]:
        """The function's resolved properties."""
        properties: dict[str, Any] = self.resources["RetryRunTask"]["Properties"]
        return properties

    @property
    def function_arn(self) -> str:
        return self._attribute("RetryRunTask", "Arn")

    @property
    def function_name(self) -> str:
        return self.function_arn.rpartition(":")[2]

    @property
    def environment(self) -> dict[str, str]:
        """The function's environment: the template's variables and those of Lambda itself."""
        return {key: str(v) for key, v in self.function["Environment"]["Variables"].items()} | {
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_LAMBDA_FUNCTION_NAME": self.function_name,
        }

    @property
    def pattern(self) -> dict[str, Any]:
        """The event pattern of the rule on the default bus."""
        pattern: dict[str, Any] = self.function["Events"]["FailedCall"]["Properties"]["Pattern"]
        return pattern

    @property
    def policy(self) -> list[dict[str, Any]]:
        """The statements of the function's role."""
        role = self.resources["RetryRunTaskRole"]["Properties"]
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
                return self._attribute(*parts)
            case "Fn::Sub":
                return re.sub(r"\$\{([^!}]+)\}", lambda m: self._substitute(m[1]), argument)
            case "Fn::Join":
                return argument[0].join(map(str, self._resolve(argument[1])))
            case "Fn::If":
                return self._resolve(argument[1 if self._condition(argument[0]) else 2])
        raise NotImplementedError(f"the rehearsal does not resolve {function}")

    def _substitute(self, name: str) -> str:
        return str(self._attribute(*name.split(".", 1)) if "." in name else self._ref(name))

    def _ref(self, name: str) -> Any:
        pseudo = {
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": self.partition,
            "AWS::StackName": self.name,
            "AWS::NoValue": _NO_VALUE,
        }
        if name in pseudo:
            return pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        return f"{self.name}-{name}"

    def _attribute(self, logical_id: str, attribute: str) -> str:
        # SAM makes the rule: its logical id is the function's and the event's, joined.
        kind = self.source["Resources"].get(logical_id, {}).get("Type", "AWS::Events::Rule")
        if attribute != "Arn":
            raise NotImplementedError(f"the rehearsal knows no {attribute} of {logical_id}")
        return _ARNS[kind].format(
            partition=self.partition,
            region=self.region,
            account=self.account,
            name=f"{self.name}-{logical_id}",
        )

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


def _parameter(name: str, spec: Mapping[str, Any], text: str) -> str | list[str]:
    values = text.split(",") if spec["Type"] == "CommaDelimitedList" else [text]
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
    return values if spec["Type"] == "CommaDelimitedList" else text
