"""Hidden environments: recovered where the right definition can be proven, and leaked nowhere."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ParamValidationError
from moto.ecs.exceptions import ECSException

from conftest import NOW
from rehearsal import EVENTS, load_definitions, load_event
from rehearsal.cli import main
from rehearsal.ecs import ConflictException
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task import definition
from retry_run_task import handler as function
from retry_run_task.chain import DEFINITION_TAG
from retry_run_task.request import HIDDEN

RULE = "launched.hidden-environment-rule"
SCHEDULE = "launched.hidden-environment-schedule"
BOTH = pytest.mark.parametrize("name", [RULE, SCHEDULE])
SECRET = "not-a-real-token"  # noqa: S105
ENVIRONMENT = [
    {"name": "REPORT_CURRENCY", "value": "EUR"},
    {"name": "REPORT_TOKEN", "value": SECRET},
]

Change = Callable[[dict[str, Any]], object]


def target_of(definitions: dict[str, Any]) -> dict[str, Any]:
    """The one target in a file of definitions."""
    rules, schedules = definitions["Rules"], definitions["Schedules"]
    target: dict[str, Any] = rules[0]["Targets"][0] if rules else schedules[0]["Target"]
    return target


def container_of(change: Change) -> Change:
    """A change of the one container override in the target's input."""

    def change_input(definitions: dict[str, Any]) -> None:
        target = target_of(definitions)
        overrides = json.loads(target["Input"])
        change(overrides["containerOverrides"][0])
        target["Input"] = json.dumps(overrides)

    return change_input


def changed(name: str, change: Change) -> dict[str, Any]:
    definitions = load_definitions(name)
    change(definitions)
    return definitions


def replayed(name: str, definitions: dict[str, Any] | None = None, **parameters: Any) -> World:
    """The world after the function has seen the event once."""
    event = copy.deepcopy(load_event(name))
    event["detail"]["requestParameters"].update(parameters)
    with World(Stack(), NOW, definitions=definitions or load_definitions(name)) as world:
        world.outcomes.append(world.call_handler(event))
    return world


def refusal(world: World) -> str:
    """Why the request was not repeated."""
    (outcome,) = world.outcomes
    assert (outcome["outcome"], outcome["attempt"]) == ("NOT_REPLAYABLE", "0/10")
    assert world.calls == []
    before = (
        "The request cannot be repeated: "
        "overrides.containerOverrides[0].environment is hidden by CloudTrail, and "
    )
    detail: str = outcome["detail"]
    assert detail.startswith(before)
    return detail.removeprefix(before)


@BOTH
def test_the_caller_s_environment_is_sent_and_named(name: str) -> None:
    world = replayed(name)
    (request,) = world.calls
    asked = load_event(name)["detail"]["requestParameters"]
    (container,) = copy.deepcopy(asked["overrides"]["containerOverrides"])
    assert request["overrides"] == {
        "containerOverrides": [container | {"environment": ENVIRONMENT}]
    }
    (outcome,) = world.outcomes
    definition = {
        RULE: "the rule nightly-report on the bus default",
        SCHEDULE: "the schedule nightly-report-in-the-south in the group reports",
    }[name]
    assert outcome["outcome"] == "LAUNCHED"
    assert outcome["detail"] == (
        f"Environment recovered from {definition}: REPORT_CURRENCY, REPORT_TOKEN."
    )


@BOTH
def test_each_later_attempt_recovers_it_again(name: str) -> None:
    with World(Stack(), NOW, failures=2, definitions=load_definitions(name)) as world:
        world.begin(load_event(name))
        world.run()
    assert [outcome["outcome"] for outcome in world.outcomes][-1] == "LAUNCHED"
    assert len(world.calls) == 3
    first = world.outcomes[0]
    assert first["outcome"] == "FAILED_AGAIN"
    assert re.fullmatch("Environment recovered from .*TOKEN. ECS answered: .*", first["detail"])
    for request in world.calls:
        assert request["overrides"]["containerOverrides"][0]["environment"] == ENVIRONMENT


@BOTH
def test_a_later_attempt_that_can_not_recover_it_counts_the_attempts_made(name: str) -> None:
    with World(Stack(), NOW, failures=10**9, definitions=load_definitions(name)) as world:
        world.begin(load_event(name))
        while len(world.calls) < 3:
            world.step()
        world.refused = {"ListTargetsByRule": "AccessDenied", "GetSchedule": "AccessDenied"}
        world.run()
    outcome = world.outcomes[-1]
    assert (outcome["outcome"], outcome["attempt"]) == ("NOT_REPLAYABLE", "3/10")
    assert len(world.calls) == 3


NAMESAKE = "arn:aws:ecs:eu-west-1:123456789012:task-definition/nightly-report"


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        lambda d: target_of(d)["EcsParameters"].update(TaskDefinitionArn=NAMESAKE),
        container_of(lambda c: c.update(cpu=None, resourceRequirements=[])),
        lambda d: target_of(d).update(Input=target_of(d)["Input"][:-1] + ', "cpu": null}'),
    ],
)
def test_what_means_the_same_is_the_same(name: str, change: Change) -> None:
    world = replayed(name, changed(name, change))
    assert world.calls[0]["overrides"]["containerOverrides"][0]["environment"] == ENVIRONMENT


def test_null_and_empty_members_of_the_event_mean_nothing() -> None:
    overrides = copy.deepcopy(load_event(RULE)["detail"]["requestParameters"]["overrides"])
    overrides["containerOverrides"][0].update(memory=None, environmentFiles=[])
    overrides["cpu"] = None
    assert replayed(RULE, overrides=overrides).outcomes[0]["outcome"] == "LAUNCHED"


BY_HAND = "; see whether the job runs, and start it by hand if not."
GONE = f" now: it was deleted or changed since{BY_HAND}"
OTHER_TASK = f" starts another task definition now{BY_HAND}"
OTHERS = f" differs from the call in overrides{BY_HAND}"
DYNAMIC = (
    " fills in the environment when it fires: put the value into the command, which CloudTrail "
    "does not hide."
)


@BOTH
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d.update(Rules=[], Schedules=[]), GONE),
        (lambda d: (d["Rules"] + d["Schedules"])[0].update(Name="weekly"), GONE),
        (
            lambda d: target_of(d)["EcsParameters"].update(TaskDefinitionArn=f"{NAMESAKE}-2"),
            OTHER_TASK,
        ),
        (
            lambda d: target_of(d)["EcsParameters"].update(TaskDefinitionArn=NAMESAKE[:-1]),
            OTHER_TASK,
        ),
        (lambda d: target_of(d).pop("Input"), f"has no overrides, which the call has{BY_HAND}"),
        (lambda d: target_of(d).update(Input="{"), "Input is not JSON: correct it."),
        (lambda d: target_of(d).update(Input='"text"'), "Input is not an object: correct it."),
        (
            lambda d: target_of(d).update(Input='{"containerOverrides": {}}'),
            "Input.containerOverrides is not a list: correct it.",
        ),
        (container_of(lambda c: c.update(command=["other"])), OTHERS),
        (container_of(lambda c: c.update(name="other")), OTHERS),
        (container_of(lambda c: c.update(cpu=256)), OTHERS),
        (container_of(lambda c: c.pop("environment")), OTHERS),
        (
            container_of(lambda c: c.update(environment=[{"name": "A", "value": 1}])),
            "environment[0].value is not of type string: correct it.",
        ),
    ],
)
def test_what_can_not_be_proven_is_not_repeated(name: str, change: Change, why: str) -> None:
    assert refusal(replayed(name, changed(name, change))).endswith(why)


TEMPLATE = json.dumps(load_event(RULE)["detail"]["requestParameters"]["overrides"]).replace(
    f'"{HIDDEN}"', '[{"name": "DAY", "value": <day>}]'
)


@pytest.mark.parametrize(
    "change",
    [
        {"InputPath": "$.detail"},
        {"InputTransformer": {"InputPathsMap": {"day": "$.time"}, "InputTemplate": TEMPLATE}},
    ],
)
def test_dynamic_input_cannot_be_verified(change: dict[str, Any]) -> None:
    dynamic = changed(RULE, lambda d: target_of(d).update(change) or target_of(d).pop("Input"))
    assert refusal(replayed(RULE, dynamic)).endswith(DYNAMIC)
    # It may be that one which made the call, even if another would fit.
    dynamic["Rules"][0]["Targets"].append(target_of(load_definitions(RULE)) | {"Id": "constant"})
    assert refusal(replayed(RULE, dynamic)).endswith(DYNAMIC)


@pytest.mark.parametrize("member", ["name", "value"])
def test_a_placeholder_of_scheduler_can_not_be_proven(member: str) -> None:
    filled = ENVIRONMENT[0] | {member: "at <aws.scheduler.scheduled-time>"}
    placeholder = changed(SCHEDULE, container_of(lambda c: c.update(environment=[filled])))
    why = refusal(replayed(SCHEDULE, placeholder))
    assert why.endswith(DYNAMIC)


def test_the_name_of_a_schedule_may_have_been_cut() -> None:
    # chronos-schedule/nightly-report-in-t is all that is left of it: the right one is found among
    # all that begin so, in all groups.
    definitions = load_definitions(SCHEDULE)
    (right,) = definitions["Schedules"]
    (other,) = load_definitions(SCHEDULE)["Schedules"]
    other.update(Name="nightly-report-in-tokyo", GroupName="elsewhere")
    other["Target"]["EcsParameters"]["TaskDefinitionArn"] += "-tokyo"
    definitions["Schedules"] = [other, right]
    assert replayed(SCHEDULE, definitions).outcomes[0]["outcome"] == "LAUNCHED"


def test_a_name_that_was_not_cut_is_the_whole_name() -> None:
    longer = changed(RULE, lambda d: d["Rules"][0].update(Name="nightly-report-2"))
    assert refusal(replayed(RULE, longer)).endswith(GONE)


@pytest.mark.parametrize(("length", "found"), [(23, False), (24, True), (40, True)])
def test_a_started_by_of_36_characters_may_have_been_cut(length: int, found: bool) -> None:
    started_by = ("events-rule/" + "n" * length)[:36]
    rule = changed(RULE, lambda d: d["Rules"][0].update(Name="n" * (length + 1)))
    world = replayed(RULE, rule, startedBy=started_by)
    assert (world.outcomes[0]["outcome"] == "LAUNCHED") is found


def test_several_that_agree_on_every_value_will_do() -> None:
    definitions = load_definitions(RULE)
    (rule,) = definitions["Rules"]
    definitions["Rules"].append(copy.deepcopy(rule) | {"EventBusName": "other"})
    assert replayed(RULE, definitions).outcomes[0]["outcome"] == "LAUNCHED"
    another = load_definitions(RULE)
    container_of(lambda c: c["environment"][0].update(value="USD"))(another)
    definitions["Rules"][1]["Targets"] = another["Rules"][0]["Targets"]
    assert "both fit the call, and their environments differ" in refusal(
        replayed(RULE, definitions)
    )


def test_a_target_that_does_not_fit_does_not_stand_in_the_way_of_one_that_does() -> None:
    definitions = load_definitions(RULE)
    other = copy.deepcopy(target_of(definitions)) | {"Id": "other", "Input": "{}"}
    definitions["Rules"][0]["Targets"].append(other)
    assert replayed(RULE, definitions).outcomes[0]["outcome"] == "LAUNCHED"


def test_a_target_in_another_cluster_proves_nothing() -> None:
    # One rule may start the task in two clusters, each time with an environment of its own.
    definitions = load_definitions(RULE)
    target = target_of(definitions)
    elsewhere = copy.deepcopy(target) | {"Id": "elsewhere", "Arn": f"{target['Arn']}-2"}
    target["Input"] = "{}"
    definitions["Rules"][0]["Targets"].append(elsewhere)
    why = f"has no overrides, which the call has{BY_HAND[:-1]} (of 2 definitions, none fits)."
    assert refusal(replayed(RULE, definitions)).endswith(why)


def test_a_target_that_is_no_task_of_ecs_is_none() -> None:
    definitions = load_definitions(RULE)
    target_of(definitions).pop("EcsParameters")
    assert refusal(replayed(RULE, definitions)).endswith(GONE)


def test_only_what_is_hidden_is_filled_in() -> None:
    # Of two containers, one has an environment of its own.
    overrides = copy.deepcopy(load_event(RULE)["detail"]["requestParameters"]["overrides"])
    overrides["containerOverrides"].insert(0, {"name": "sidecar", "cpu": 128})
    definitions = load_definitions(RULE)
    given = json.loads(target_of(definitions)["Input"])
    given["containerOverrides"].insert(0, {"name": "sidecar", "cpu": 128})
    target_of(definitions)["Input"] = json.dumps(given)
    with World(Stack(), NOW, definitions=definitions) as world:
        event = load_event(RULE)
        event["detail"]["requestParameters"]["overrides"] = overrides
        assert world.call_handler(event)["outcome"] == "LAUNCHED"
    assert world.calls[0]["overrides"] == given


def test_the_call_of_an_sdk_is_not_repeated() -> None:
    for started_by in ("by-hand", "events-rule", None):
        assert refusal(replayed(RULE, startedBy=started_by)).startswith(NO_DEFINITION)
    # Whoever starts a rule's job again by hand may have changed its environment.
    event = load_event(RULE)
    event["detail"]["userIdentity"].pop("invokedBy")
    event["detail"]["sourceIPAddress"] = "192.0.2.1"
    with World(Stack(), NOW, definitions=load_definitions(RULE)) as world:
        world.outcomes.append(world.call_handler(event))
    assert refusal(world).startswith(NO_DEFINITION)


# EventBridge Scheduler shows itself by its user agent, which is its own word, and by its role.

NO_DEFINITION = "no EventBridge rule or schedule made the call, in which it could be looked up: "
ANOTHER_ROLE = "arn:aws:iam::123456789012:role/another"


def called(name: str, change: Change, definitions: dict[str, Any] | None = None) -> World:
    """The world after the function has seen the event, with its `detail` changed."""
    event = load_event(name)
    change(event["detail"])
    with World(Stack(), NOW, definitions=definitions or load_definitions(name)) as world:
        world.outcomes.append(world.call_handler(event))
    return world


def issuer_of(detail: dict[str, Any]) -> dict[str, Any]:
    issuer: dict[str, Any] = detail["userIdentity"]["sessionContext"]["sessionIssuer"]
    return issuer


def test_a_schedule_is_recognised_in_the_shape_that_was_assumed_before_as_well() -> None:
    def old(detail: dict[str, Any]) -> None:
        detail["userIdentity"].update(invokedBy="scheduler.amazonaws.com")
        detail.update(userAgent="scheduler.amazonaws.com")

    assert called(SCHEDULE, old).outcomes[0]["outcome"] == "LAUNCHED"

    def shown_by_its_name_alone(detail: dict[str, Any]) -> None:
        detail["userIdentity"].update(invokedBy="scheduler.amazonaws.com")
        detail.update(userAgent="x")

    assert called(SCHEDULE, shown_by_its_name_alone).outcomes[0]["outcome"] == "LAUNCHED"


@BOTH
def test_a_definition_of_another_role_did_not_make_the_call(name: str) -> None:
    world = called(name, lambda detail: issuer_of(detail).update(arn=ANOTHER_ROLE))
    assert refusal(world).startswith("the role of its caller is not that of the ")


@pytest.mark.parametrize("agent", ["Boto3/1.40.1", "AmazonEventBridgeSchedulerLike x", None])
def test_a_call_without_scheduler_s_user_agent_is_not_scheduler_s(agent: str | None) -> None:
    world = called(SCHEDULE, lambda detail: detail.update(userAgent=agent))
    assert refusal(world).startswith(NO_DEFINITION)


def test_a_service_is_known_by_its_address_as_well() -> None:
    event = load_event(RULE)
    event["detail"]["userIdentity"].pop("invokedBy")
    with World(Stack(), NOW, definitions=load_definitions(RULE)) as world:
        assert world.call_handler(event)["outcome"] == "LAUNCHED"


def test_nothing_is_looked_up_where_the_stack_says_so() -> None:
    stack = Stack({"RecoverHiddenEnvironment": "false", "PullForward": "false"})
    with World(stack, NOW, definitions=load_definitions(RULE)) as world:
        outcome = world.call_handler(load_event(RULE))
    assert outcome["outcome"] == "NOT_REPLAYABLE"
    assert outcome["detail"].endswith(".environment is hidden by CloudTrail.")
    assert lookups(world) == []
    actions = [action for s in stack.policy for action in s["Action"]]
    assert not any("List" in action or "Get" in action for action in actions)


# What is asked of AWS, and what AWS answers.


def lookups(world: World) -> list[str]:
    return [point for point in world.points if not point.endswith(("RunTask", "CreateSchedule"))]


def test_a_call_that_hides_nothing_costs_no_request() -> None:
    with World(Stack(), NOW, definitions=load_definitions(RULE)) as world:
        world.call_handler(load_event("launched.fargate-capacity-rule"))
        world.call_handler(load_event("launched.second-attempt"))
        assert lookups(world) == []
        assert function.events_client.cache_info().currsize == 0


def test_lists_are_read_to_their_end() -> None:
    # Moto's pages hold 50 names of rules, and 100 schedules or buses.
    definitions = load_definitions(RULE)
    (rule,) = definitions["Rules"]
    names = [f"{n:03}-nightly" for n in range(120)]
    definitions["Rules"] = [
        *(copy.deepcopy(rule) | {"Name": name} for name in names),
        rule | {"EventBusName": "zzz"},
    ]
    world = replayed(RULE, definitions)
    assert world.outcomes[0]["outcome"] == "LAUNCHED"
    assert len([p for p in lookups(world) if p == "before ListRuleNamesByTarget"]) > 2


def test_all_buses_and_schedules_are_read_to_their_end() -> None:
    with World(Stack(), NOW, definitions=load_definitions(RULE)) as world:
        events = boto3.client("events")
        for n in range(120):
            events.create_event_bus(Name=f"bus-{n:03}")
        definitions = load_definitions(RULE)
        (rule,) = definitions["Rules"]
        events.put_rule(Name=rule["Name"], EventBusName="bus-119", EventPattern='{"source": ["x"]}')
        target: Any = {k: v for k, v in rule["Targets"][0].items() if k != "Input"}
        events.put_targets(
            Rule=rule["Name"], EventBusName="bus-119", Targets=[target | {"InputPath": "$.x"}]
        )
        outcome = world.call_handler(load_event(RULE))
    assert outcome["detail"].endswith(f"on the bus bus-119{DYNAMIC}")


@pytest.mark.parametrize(
    ("name", "operation", "action"),
    [
        (RULE, "ListEventBuses", "events:ListEventBuses"),
        (RULE, "ListRuleNamesByTarget", "events:ListRuleNamesByTarget"),
        (RULE, "ListTargetsByRule", "events:ListTargetsByRule"),
        (SCHEDULE, "ListSchedules", "scheduler:ListSchedules"),
        (SCHEDULE, "GetSchedule", "scheduler:GetSchedule"),
    ],
)
def test_without_a_permission_the_missing_action_is_named(
    name: str, operation: str, action: str
) -> None:
    with World(Stack(), NOW, definitions=load_definitions(name)) as world:
        world.refused = {operation: "AccessDeniedException"}
        world.outcomes.append(world.call_handler(load_event(name)))
    assert refusal(world) == f"the function is not allowed to call {action}: allow it."


def test_what_else_aws_rejects_escapes_and_lambda_tries_again() -> None:
    with World(Stack(), NOW, definitions=load_definitions(RULE)) as world:
        world.refused = {"ListTargetsByRule": "InternalException"}
        with pytest.raises(ClientError, match="InternalException"):
            world.call_handler(load_event(RULE))
        world.refused = {}
        assert world.call_handler(load_event(RULE))["outcome"] == "LAUNCHED"


# Values go nowhere else.


def everything_else(world: World) -> Iterator[str]:
    """All that the function writes, but for the requests to ECS."""
    yield world.logs.getvalue()
    yield json.dumps(world.outcomes)
    yield json.dumps(world.bus.archive)
    yield from world.letters[world.stack.name].bodies
    yield from (f"{message.subject}\n{message.text}" for message in world.messages)
    yield json.dumps([call["tags"] for call in world.calls])
    yield json.dumps([entry.text for entry in world.timeline])
    yield json.dumps([dict(entry.data) for entry in world.timeline])
    yield json.dumps(world.inputs)


@BOTH
@pytest.mark.parametrize(
    "errors",
    [
        [],
        [ECSException("ServerException", "oops")],
        [ECSException("ThrottlingException", "Rate exceeded")] * 3,
        [ConflictException([])],
        [ECSException("AccessDeniedException", "no")] * 9,
        [ECSException("InvalidParameterException", "Overrides length must be at most 8192")] * 9,
    ],
    ids=lambda errors: f"{len(errors)} {errors[0].code}" if errors else "none",
)
def test_no_value_is_written_anywhere(name: str, errors: list[ECSException]) -> None:
    definitions = load_definitions(name)
    stack = Stack({"MaxAttempts": "3"})
    with World(stack, NOW, failures=10**9, definitions=definitions) as world:
        world.ecs.errors = list(errors)
        world.begin(load_event(name))
        world.run()
    assert any(SECRET in json.dumps(call) for call in world.calls)
    assert world.bus.archive
    for text in everything_else(world):
        assert SECRET not in text
        assert "EUR" not in text


def environment_is(environment: Any) -> Change:
    return container_of(lambda c: c.update(environment=environment))


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        container_of(lambda c: c.update(command=["other"])),
        container_of(lambda c: c["environment"].append({"name": "A", "value": 1})),
        # What botocore would refuse to send, and would show in its exception.
        environment_is(SECRET),
        environment_is({"REPORT_TOKEN": SECRET}),
        environment_is({SECRET: "REPORT_TOKEN"}),
        environment_is([SECRET]),
        environment_is([[SECRET]]),
        environment_is([{"name": "A", "value": [SECRET]}]),
        environment_is([{"name": {SECRET: 1}, "value": SECRET}]),
        environment_is([{"name": "A", "value": SECRET, SECRET: SECRET}]),
        environment_is([{"value": SECRET}]),
        environment_is([{"name": "", "value": SECRET}]),
        container_of(lambda c: c.update({"secrets": [SECRET], "name": SECRET})),
        lambda d: target_of(d).update(Input=f'{{"containerOverrides": [{SECRET}'),
        lambda d: target_of(d).update(Input=f'"{SECRET}"'),
        lambda d: target_of(d).update(Input=f'{{"{SECRET}": "{SECRET}"}}'),
        lambda d: target_of(d).update(Input=f'{{"cpu": "1", "{SECRET}": 1, "{SECRET}": 2}}'),
        lambda d: target_of(d)["EcsParameters"].update(Group=SECRET),
        lambda d: target_of(d)["EcsParameters"].update(PlatformVersion=SECRET),
    ],
)
def test_no_refusal_shows_a_value(name: str, change: Change) -> None:
    world = replayed(name, changed(name, change))
    assert refusal(world)
    for text in everything_else(world):
        assert SECRET not in text


@BOTH
def test_the_tag_shows_four_digits_of_all_values(name: str) -> None:
    (request,) = replayed(name).calls
    (tag,) = (tag["value"] for tag in request["tags"] if tag["key"] == DEFINITION_TAG)
    arn, _, digits = tag.partition("@")
    assert re.fullmatch("[0-9a-f]{4}", digits)
    kind = {RULE: "events:eu-west-1:123456789012:rule/nightly-report"}.get(
        name, "scheduler:eu-west-1:123456789012:schedule/reports/nightly-report-in-the-south"
    )
    assert arn == f"arn:aws:{kind}"


@BOTH
def test_what_botocore_refuses_to_send_is_not_shown(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Our own check stands in front of botocore's, whose exception shows the value.
    monkeypatch.setattr(definition, "exact", lambda value, *_: value)
    wrong = [{"name": "A", "value": {"secret": SECRET}}]
    definitions = changed(name, environment_is(wrong))
    with World(Stack(), NOW, definitions=definitions) as world:
        world.begin(load_event(name))
        world.run()
    assert world.calls == []
    (letter,) = world.bus.archive
    assert letter["detail"]["responsePayload"]["errorType"] == "NotSent"
    for text in everything_else(world):
        assert SECRET not in text


def test_a_request_that_was_not_recovered_could_not_be_sent() -> None:
    with World(Stack(), NOW) as world, pytest.raises(ParamValidationError, match="Invalid type"):
        hidden: Any = {"containerOverrides": [{"name": "report", "environment": HIDDEN}]}
        boto3.client("ecs").run_task(taskDefinition="n", overrides=hidden)
    assert world.calls == []


# The rehearsal.


def test_the_rehearsal_shows_names_and_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (RULE, SCHEDULE):
        assert main([str(EVENTS / f"{name}.json"), "--show-request"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "REPORT_CURRENCY, REPORT_TOKEN." in shown
        assert SECRET not in shown
        assert main([str(EVENTS / f"{name}.json"), "--json", "--show-request"]) == 0
        assert SECRET not in capsys.readouterr().out


def test_definitions_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    event = str(EVENTS / "not-replayable.hidden-environment.json")
    theirs = str(EVENTS / "definitions" / f"{RULE}.json")
    assert main([event]) == 1
    assert main([event, "--definitions", theirs]) == 0
    for bad in (event, str(EVENTS / "none.json")):
        assert main([event, "--definitions", bad]) == 2
    assert f"{event}: not a rule or schedule: give what " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "missing"),
    [
        (RULE, lambda d: d["Rules"][0].pop("Name"), "Rules[0].Name is missing"),
        (RULE, lambda d: d["Rules"][0].pop("Targets"), "Rules[0].Targets is missing"),
        (RULE, lambda d: d["Rules"][0].update(Bus="x"), "Rules[0].Bus is unknown"),
        (RULE, lambda d: target_of(d).pop("Id"), "Rules[0].Targets[0].Id is missing"),
        (RULE, lambda d: target_of(d).pop("RoleArn"), "Rules[0].Targets[0].RoleArn is missing"),
        (
            RULE,
            lambda d: target_of(d).pop("EcsParameters"),
            "Rules[0].Targets[0].EcsParameters is missing",
        ),
        (
            SCHEDULE,
            lambda d: target_of(d)["EcsParameters"].pop("TaskDefinitionArn"),
            "Schedules[0].Target.EcsParameters.TaskDefinitionArn is missing",
        ),
        (
            SCHEDULE,
            lambda d: d["Schedules"][0].pop("FlexibleTimeWindow"),
            "Schedules[0].FlexibleTimeWindow is missing",
        ),
        (SCHEDULE, lambda d: d.update(Schedules={}), "Schedules is not a list of objects"),
        (SCHEDULE, lambda d: d.update(Rules=["x"]), "Rules is not a list of objects"),
        (
            "launched.hidden-environment-universal-target",
            lambda d: target_of(d).pop("Input"),
            "Schedules[0].Target.Input is missing",
        ),
    ],
)
def test_incomplete_definitions_say_what_is_missing(
    name: str, change: Change, missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "definitions.json"
    given.write_text(json.dumps(changed(name, change)))
    assert main([str(EVENTS / f"{name}.json"), "--definitions", str(given)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"rehearse: {given}: {missing}")
    assert SECRET not in said


def test_definitions_that_make_another_call_say_what_they_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "definitions.json"
    lacking = changed(RULE, lambda d: target_of(d)["EcsParameters"].pop("NetworkConfiguration"))
    given.write_text(json.dumps(lacking))
    assert main([str(EVENTS / f"{RULE}.json"), "--definitions", str(given)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "has no networkConfiguration, which the call has" in said


def test_schedules_are_taken_as_get_schedule_shows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    definitions = load_definitions(SCHEDULE)
    with World(Stack(), NOW, definitions=definitions):
        (made,) = definitions["Schedules"]
        scheduler = boto3.client("scheduler")
        group = made["GroupName"]
        shown: Any = scheduler.get_schedule(Name=made["Name"], GroupName=group)
    function = {"Id": "f", "Arn": "arn:aws:lambda:eu-west-1:123456789012:function:f"}
    other = {"Name": "other", "Targets": [function]}
    shown |= {"StartDate": "2026-01-01T00:00:00Z", "EndDate": "2027-01-01T00:00:00Z"}
    given = tmp_path / "definitions.json"
    given.write_text(json.dumps({"Schedules": [shown], "Rules": [other]}, default=str))
    assert main([str(EVENTS / f"{SCHEDULE}.json"), "--definitions", str(given)]) == 0
    assert "Environment recovered from" in " ".join(capsys.readouterr().out.split())
