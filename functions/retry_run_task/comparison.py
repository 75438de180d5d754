"""The comparison: is a call, as CloudTrail shows it, what a definition's request makes?"""

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from retry_run_task.chain import OUR_TAGS
from retry_run_task.request import HIDDEN, NOT_REPEATED, AnyText
from retry_run_task.settings import Settings


def difference(
    request: Mapping[str, Any], asked: Mapping[str, Any], settings: Settings, *, begun: bool
) -> str | None:
    """The first member in which the call `asked` is not what the request makes; None if it may be.

    The first five have to be equal. What else the request states must not differ; members that only
    the call has are additions of AWS's. `begun`: the call is an attempt of ours, which asks for
    what is missing only.
    """
    executes, shown = (r.get("enableExecuteCommand", False) for r in (request, asked))
    equal = {
        "cluster": is_cluster(request["cluster"], asked, settings),
        "taskDefinition": is_task_definition(request["taskDefinition"], asked, settings),
        "networkConfiguration": _network(request) == _network(asked),
        "enableExecuteCommand": _is_same(executes, shown),
        "overrides": _same_overrides(request.get("overrides", {}), asked.get("overrides", {})),
        "tags": _has_tags(asked, request.get("tags", [])),
        "count": begun or _is_same(request["count"], asked.get("count", 1)),
    }
    for member in sorted(request.keys() - equal.keys() - set(NOT_REPEATED)):
        # A flag that is false, or a weight of 0, is as good as none (RunTask, API reference).
        stated, shown = (_without(operator.not_, r.get(member)) for r in (request, asked))
        equal[member] = _is_same(stated, shown) or not (stated or shown)
    return next((member for member, is_equal in equal.items() if not is_equal), None)


def is_cluster(named: object, asked: Mapping[str, Any], settings: Settings) -> bool:
    """Is that the name or ARN of the call's cluster?"""
    shown = asked.get("cluster", "default")
    if not isinstance(named, str):
        return isinstance(named, AnyText) and named.matches(shown)
    return settings.arn("cluster", named) == settings.arn("cluster", shown)


def is_task_definition(named: object, asked: Mapping[str, Any], settings: Settings) -> bool:
    """Is that the call's task definition? One that names no revision is of any revision."""
    if not isinstance(named, str):
        return isinstance(named, AnyText) and named.matches(asked["taskDefinition"])
    ours, theirs = (settings.arn("task-definition", n) for n in (named, asked["taskDefinition"]))
    return ours == theirs or (ours == family_of(ours) and ours == family_of(theirs))


def is_family(named: object, asked: Mapping[str, Any], settings: Settings) -> bool:
    """Is that of the family of the call's task definition, whatever the revision?"""
    return is_task_definition(
        family_of(named) if isinstance(named, str) else named, asked, settings
    )


def family_of(task_definition: str) -> str:
    """The name or ARN of a task definition without its revision."""
    path, slash, name = task_definition.rpartition("/")
    return f"{path}{slash}{name.partition(':')[0]}"


def is_filled(value: Any) -> bool:
    """Is any of it filled in when the definition fires?"""
    if isinstance(value, Mapping):
        return any(map(is_filled, value.values()))
    return isinstance(value, AnyText) or (isinstance(value, list) and any(map(is_filled, value)))


def _network(request: Mapping[str, Any]) -> object:
    """What is compared of a network configuration; nothing equals one that is filled in."""
    network = request.get("networkConfiguration") or {}
    if is_filled(network):
        return network
    vpc = network.get("awsvpcConfiguration")
    if not vpc:
        return None
    subnets, groups = (frozenset(vpc.get(name, [])) for name in ("subnets", "securityGroups"))
    return subnets, groups, vpc.get("assignPublicIp", "DISABLED")


def _has_tags(asked: Mapping[str, Any], tags: Any) -> bool:
    """Has the call all of these tags, but for ours?"""
    return isinstance(tags, AnyText) or all(
        (isinstance(tag, dict) and tag.get("key") in OUR_TAGS)
        or any(_is_same(tag, shown) for shown in asked.get("tags", []))
        for tag in tags
    )


def _same_overrides(defined: Any, shown: Mapping[str, Any]) -> bool:
    """Are they equal, once the environments are hidden as CloudTrail hides them?"""
    if isinstance(defined, AnyText):
        return True
    rest, shown_rest = dict(defined), dict(shown)
    containers = rest.pop("containerOverrides", [])
    shown_containers = shown_rest.pop("containerOverrides", [])
    if not _is_same(_bare(rest), _bare(shown_rest)):
        return False
    if isinstance(containers, AnyText):
        return True
    return len(containers) == len(shown_containers) and all(
        map(_same_container, containers, shown_containers)
    )


def _same_container(defined: Any, shown: Mapping[str, Any]) -> bool:
    if isinstance(defined, AnyText):
        return True
    rest, shown_rest = dict(defined), dict(shown)
    environment, as_shown = (r.pop("environment", None) for r in (rest, shown_rest))
    # An empty list may arrive hidden, as it is, or not at all: no record has shown which.
    is_hidden = environment is not None and as_shown == HIDDEN
    return (is_hidden or not (environment or as_shown)) and _is_same(_bare(rest), _bare(shown_rest))


def _is_same(defined: Any, shown: Any) -> bool:
    """Are they equal? What is filled in may be any text."""
    if isinstance(defined, AnyText):
        return defined.matches(shown)
    if isinstance(defined, dict) and isinstance(shown, dict):
        return defined.keys() == shown.keys() and all(
            _is_same(member, shown[name]) for name, member in defined.items()
        )
    if isinstance(defined, list) and isinstance(shown, list):
        return len(defined) == len(shown) and all(map(_is_same, defined, shown))
    return bool(defined == shown)


def _without(is_nothing: Callable[[Any], bool], value: Any) -> Any:
    """The value without the members that mean nothing."""
    if isinstance(value, list):
        return [_without(is_nothing, item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _without(is_nothing, member) for name, member in value.items()}
    return {name: member for name, member in kept.items() if not is_nothing(member)}


# CloudTrail may show null and empty members, or not.
_bare = partial(_without, lambda member: member in (None, [], {}))
