"""Is a call what a definition's request makes? One member at a time."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from rehearsal import load_event
from rehearsal.cloudtrail import hide_environment
from retry_run_task.comparison import difference, is_cluster, is_family, is_filled
from retry_run_task.request import HIDDEN, AnyText
from retry_run_task.settings import Settings

HOME = "arn:aws:ecs:eu-west-1:123456789012"
REQUEST: dict[str, Any] = {
    "cluster": f"{HOME}:cluster/jobs",
    "taskDefinition": f"{HOME}:task-definition/nightly:7",
    "count": 1,
    "networkConfiguration": {
        "awsvpcConfiguration": {"subnets": ["subnet-1", "subnet-2"], "securityGroups": ["sg-1"]}
    },
    "overrides": {
        "containerOverrides": [
            {
                "name": "app",
                "command": ["run", "all"],
                "environment": [{"name": "A", "value": "1"}],
            },
            {"name": "agent", "cpu": 128},
        ],
        "memory": "512",
    },
    "tags": [{"key": "team", "value": "finance"}],
    "group": "nightly",
}


def differs(request: dict[str, Any], asked: dict[str, Any], settings: Settings) -> str | None:
    return difference(request, hide_environment(asked), settings, begun=False)


def paths(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The path of each member of a value, at any depth."""
    members: Any = []
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    for name, member in members:
        yield (*path, name)
        yield from paths(member, *path, name)


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    request = copy.deepcopy(REQUEST)
    inner = request
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return request


PATHS = list(paths(REQUEST))


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_what_is_filled_in_may_be_any_text(path: tuple[Any, ...], settings: Settings) -> None:
    request = changed(path, AnyText())
    # Which networks a definition names is never left open.
    expected = "networkConfiguration" if path[0] == "networkConfiguration" else None
    assert differs(request, REQUEST, settings) == expected
    assert is_filled(request)
    assert not is_filled(REQUEST)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_what_is_another_value_differs(path: tuple[Any, ...], settings: Settings) -> None:
    value = REQUEST
    for name in path:
        value = value[name]
    other: Any = {str: "x", int: 2, list: [], dict: {}}[type(value)]
    # The values of the environment are what nobody sees, nor whether there are any.
    hidden = "environment" in path
    # No tags are none that the call would have to have.
    expected = None if hidden or path == ("tags",) else path[0]
    assert differs(changed(path, other), REQUEST, settings) == expected


def test_text_that_is_filled_in_has_to_fit_around_what_is_not(settings: Settings) -> None:
    command = ("overrides", "containerOverrides", 0, "command")
    for parts, expected in ((("a", "l"), None), (("b", ""), "overrides")):
        request = changed(command, ["run", AnyText(parts)])
        assert differs(request, REQUEST, settings) == expected
    for cut in (["run"], ["run", "all", "days"], [AnyText()]):
        assert differs(changed(command, cut), REQUEST, settings) == "overrides"
    for member in ("cluster", "taskDefinition"):
        request = REQUEST | {member: AnyText(("x", ""))}
        assert differs(request, REQUEST, settings) == member


def test_null_and_empty_members_of_overrides_mean_nothing_and_zero_does(settings: Settings) -> None:
    overrides = ("overrides", "inferenceAcceleratorOverrides")
    container = ("overrides", "containerOverrides", 1)
    nothing: Any
    for nothing in (None, [], {}):
        assert differs(REQUEST, changed(overrides, nothing), settings) is None
        assert differs(changed((*container, "command"), nothing), REQUEST, settings) is None
    for something in (0, "", False):
        given = changed((*container, "memory"), something)
        assert differs(given, REQUEST, settings) == "overrides"


def test_no_network_is_none(settings: Settings) -> None:
    without = {name: value for name, value in REQUEST.items() if name != "networkConfiguration"}
    nothing: list[dict[str, Any]] = [{}, {"networkConfiguration": {}}]
    nothing.append({"networkConfiguration": {"awsvpcConfiguration": {}}})
    for one in nothing:
        for other in nothing:
            assert differs(without | one, without | other, settings) is None
        assert differs(without | one, REQUEST, settings) == "networkConfiguration"


def test_what_a_retry_does_not_repeat_is_not_compared(settings: Settings) -> None:
    stated = {"clientToken": "x", "referenceId": "y"}
    assert differs(REQUEST | stated, REQUEST, settings) is None


@pytest.mark.parametrize("member", [m for m in REQUEST if m not in ("cluster", "taskDefinition")])
def test_what_only_the_call_has_is_an_addition_of_aws_s_unless_it_has_to_be_equal(
    member: str, settings: Settings
) -> None:
    request = {name: value for name, value in REQUEST.items() if name != member}
    equal = member in ("networkConfiguration", "overrides")
    request.setdefault("count", 1)  # request_of always has it
    assert differs(request, REQUEST, settings) == (member if equal else None)
    assert differs(request | {"x": 1}, REQUEST, settings) == (member if equal else "x")


@pytest.mark.parametrize("given", [None, [], [{"name": "A", "value": "1"}]])
@pytest.mark.parametrize("shown", [None, [], HIDDEN, [{"name": "A", "value": "1"}]])
def test_an_environment_is_hidden_or_empty(given: Any, shown: Any, settings: Settings) -> None:
    request = changed(("overrides", "containerOverrides", 1, "environment"), given)
    asked = hide_environment(REQUEST)
    asked["overrides"]["containerOverrides"][1]["environment"] = shown
    fits = given is not None if shown == HIDDEN else not given and not shown
    assert (difference(request, asked, settings, begun=False) is None) is fits


def test_names_and_arns_name_the_same(settings: Settings) -> None:
    asked = REQUEST | {"cluster": "jobs", "taskDefinition": "nightly:7"}
    assert differs(REQUEST, asked, settings) is None
    for short in ("nightly", "nightly:7", f"{HOME}:task-definition/nightly"):
        assert differs(REQUEST | {"taskDefinition": short}, asked, settings) is None
    for other in ("nightly:8", "night", "nightly:71", f"{HOME}:task-definition/nightlyx"):
        assert differs(REQUEST | {"taskDefinition": other}, asked, settings) == "taskDefinition"
    # A call that names no revision is not that of a definition which does.
    latest = asked | {"taskDefinition": "nightly"}
    assert differs(REQUEST, latest, settings) == "taskDefinition"
    assert differs(REQUEST | {"taskDefinition": "nightly"}, latest, settings) is None
    assert is_family("nightly:9", asked, settings)
    assert not is_family("nightly-2:7", asked, settings)
    assert is_cluster("default", {}, settings)
    assert not is_cluster("jobs", {}, settings)
    for odd in (None, 7, ["jobs"]):
        assert not is_cluster(odd, asked, settings)
        assert not is_family(odd, asked, settings)


def test_an_attempt_of_ours_asks_for_what_is_missing_under_our_tags(settings: Settings) -> None:
    attempt = load_event("launched.second-attempt")["detail"]["requestParameters"]
    ours = [tag for tag in attempt["tags"] if tag["key"].startswith("retry-run-task:")]
    asked = hide_environment(REQUEST | {"count": 3, "tags": [*REQUEST["tags"], *ours]})
    request = REQUEST | {"count": 5, "tags": [*REQUEST["tags"], ours[0] | {"value": "9/10"}]}
    assert difference(request, asked, settings, begun=True) is None
    assert difference(request, asked, settings, begun=False) == "count"
    users = [{"key": "retry-run-task:max-attempts", "value": "3"}]
    assert difference(request | {"tags": users}, asked, settings, begun=True) == "tags"
