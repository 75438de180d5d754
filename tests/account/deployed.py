"""The deployed stack, as CloudFormation and Lambda show it, and others of its kind beside it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError

from account.session import client_of
from rehearsal.records import BadInput
from rehearsal.template import BadParameter, Stack, stack_of
from retry_run_task.settings import Settings

# The outputs by which a stack of this template is known, whatever its name and version.
OUTPUTS = {"FunctionName", "LogGroupName", "RuleName", "ScheduleGroupName", "StartReplayCommand"}


@dataclass(frozen=True, slots=True)
class Deployed:
    """A stack of this template: its name and status, and its parameters and outputs by their names.

    `status` is CloudFormation's (`CREATE_COMPLETE`).
    """

    name: str
    status: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def is_ours(self) -> bool:
        """Is it one of this template? One that was never made has no outputs."""
        return self.outputs.keys() >= OUTPUTS

    @property
    def is_being_changed(self) -> bool:
        """Is CloudFormation at work on it?"""
        return self.status.endswith("_IN_PROGRESS")


def find_stack(session: boto3.Session, name: str) -> Deployed | None:
    """The stack of this name; None if there is none."""
    try:
        pages = client_of(session, "cloudformation").describe_stacks(StackName=name)
    except ClientError as error:
        said = error.response["Error"]
        if said["Code"] == "ValidationError" and "does not exist" in said["Message"]:
            return None
        raise
    (found,) = pages["Stacks"]
    return _read(found)


def stacks_in(session: boto3.Session) -> Iterator[Deployed]:
    """All stacks of this template in the Region."""
    pages = client_of(session, "cloudformation").get_paginator("describe_stacks").paginate()
    for page in pages:
        for found in page["Stacks"]:
            stack = _read(found)
            if stack.is_ours:
                yield stack


def resources_of(session: boto3.Session, stack: Deployed) -> dict[str, str]:
    """The physical names of the stack's resources, by their logical ids."""
    cloudformation = client_of(session, "cloudformation")
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack.name)
    return {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for page in pages
        for resource in page["StackResourceSummaries"]
        if resource.get("PhysicalResourceId")
    }


def function_of(session: boto3.Session, stack: Deployed) -> dict[str, Any]:
    """The function that retries, as GetFunctionConfiguration describes it."""
    function: dict[str, Any] = client_of(session, "lambda").get_function_configuration(
        FunctionName=stack.outputs["FunctionName"]
    )
    return function


def settings_of(function: Mapping[str, Any]) -> Settings:
    """What the function is deployed with.

    Raises BadInput if that cannot be read, and BadSetting if the function cannot run with it.
    """
    variables = function.get("Environment", {})
    if error := variables.get("Error"):  # no right to use the key that encrypts them
        raise BadInput(f"the function's environment cannot be read: {error.get('Message', error)}")
    return Settings.read(variables.get("Variables", {}), function["FunctionArn"])


def settings_from_parameters(stack: Deployed, account: str, region: str) -> Settings:
    """The settings of a stack, as this checkout's template makes them of its parameters.

    What this template does not have, or would not take, is left out: another version may.
    """
    parameters: dict[str, str] = {}
    for name, value in stack.parameters.items():
        try:
            Stack({name: value})
        except BadParameter:
            continue
        parameters[name] = value
    template = stack_of({"account": account, "region": region}, parameters)
    return Settings.read(template.environment, template.function_arn)


def _read(stack: Mapping[str, Any]) -> Deployed:
    return Deployed(
        name=stack["StackName"],
        status=stack["StackStatus"],
        parameters={
            each["ParameterKey"]: each.get("ParameterValue", "")
            for each in stack.get("Parameters", [])
        },
        outputs={each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])},
    )
