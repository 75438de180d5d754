"""What the deployed stack reaches: its settings, its rule's pattern, and the function's role."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import boto3

from account.deployed import Deployed, settings_from_parameters, settings_of
from account.once import Operation, once
from account.runs import stack_in
from account.session import PATIENT, client_of
from rehearsal.pattern import matches
from retry_run_task.settings import Settings

Matches = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Reach:
    """As far as a job has to fit it.

    `matches` asks EventBridge whether the deployed rule matches an event. `role_arn` is that of the
    function; None where it is not known. `is_narrow`: the stack has PassRoleArns of its own. `how`
    is what to add to the words that a call would be retried.
    """

    settings: Settings
    matches: Matches
    role_arn: str | None = None
    is_narrow: bool = False
    how: str = ""


def reach_of(session: boto3.Session, stack: Deployed, function: Mapping[str, Any]) -> Reach:
    """That of a stack whose function GetFunctionConfiguration describes.

    Raises BadInput and BadSetting, as settings_of does.
    """
    return Reach(
        settings=settings_of(function),
        matches=_rule_of(session, stack),
        role_arn=function["Role"],
        how=", and the policy allows it",
        is_narrow="*" not in stack.parameters.get("PassRoleArns", "*").split(","),
    )


def reach_by_parameters(session: boto3.Session, stack: Deployed, account: str) -> Reach:
    """That of a stack whose function cannot be looked at."""
    settings = settings_from_parameters(stack, account, str(session.region_name))
    return Reach(settings, _rule_of(session, stack))


def reach_of_defaults(session: boto3.Session, account: str) -> Reach:
    """What a stack with the template's defaults would reach."""
    template, settings = stack_in(account, str(session.region_name))
    how = " by a stack with the template's defaults"
    return Reach(settings, partial(matches, template.pattern), how=how)


def _rule_of(session: boto3.Session, stack: Deployed) -> Matches:
    """Raises BadInput now, and botocore's exceptions when it is asked."""
    events = client_of(session, "events", config=PATIENT)
    rule = once(lambda: events.describe_rule(Name=stack.outputs["RuleName"]))
    test = Operation()

    def is_matched(event: Mapping[str, Any]) -> bool:
        pattern = rule().get("EventPattern", "{}")
        answer = test.ask(
            lambda: events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))
        )
        return bool(answer["Result"])

    return is_matched
