"""The template as SAM translates it: what would be deployed is what the README promises."""

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any
from unittest import mock

import boto3
import pytest
from moto import mock_aws
from moto.cloudformation.parsing import get_model_map

import deployed_account
from conftest import NOW, uv
from rehearsal import ROOT, load_event
from rehearsal.iam import as_list
from rehearsal.template import BadParameter, Stack
from rehearsal.world import World

MADE_BY_SAM = {
    "RetryRunTaskEventInvokeConfig": "AWS::Lambda::EventInvokeConfig",
    "RetryRunTaskFailedCall": "AWS::Events::Rule",
    "RetryRunTaskFailedCallPermission": "AWS::Lambda::Permission",
    "RetryRunTaskReplayedDeadLetter": "AWS::Events::Rule",
    "RetryRunTaskReplayedDeadLetterPermission": "AWS::Lambda::Permission",
    "NotifyLetters": "AWS::Lambda::EventSourceMapping",
}
# Every parameter that a condition asks for, with a value that is not its default.
SWITCHES = {
    "RecoverHiddenEnvironment": "false",
    "PullForward": "false",
    "AcceptReplaysOnDefaultBus": "true",
    "NotificationTopicArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
    "NotificationEmail": "ops@example.com",
    "ClusterArns": "arn:aws:ecs:eu-west-1:123456789012:cluster/jobs",
    "TaskDefinitionArns": "arn:aws:ecs:eu-west-1:123456789012:task-definition/nightly:*",
    "PassRoleArns": "arn:aws:iam::123456789012:role/nightly-*",
    "PowertoolsLayerArn": deployed_account.LAYER,
}


@pytest.fixture(scope="module")
def translated(stack: Stack) -> dict[str, Any]:
    """What CloudFormation gets to see, after `sam package` has put the code in a bucket."""
    return deployed_account.translated(stack.region)


@pytest.fixture
def resources(translated: dict[str, Any]) -> dict[str, dict[str, Any]]:
    resources: dict[str, dict[str, Any]] = translated["Resources"]
    return resources


def of_type(kind: str, resources: dict[str, dict[str, Any]]) -> set[str]:
    """The logical ids of all resources of a type."""
    return {name for name, resource in resources.items() if resource["Type"] == kind}


def dicts_in(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from dicts_in(child)


def kinds(resources: dict[str, dict[str, Any]]) -> set[str]:
    return {resource["Type"] for resource in resources.values()}


def arn_of(name: str) -> dict[str, list[str]]:
    return {"Fn::GetAtt": [name, "Arn"]}


def test_there_are_two_functions_with_the_code_and_the_roles_of_this_project(
    stack: Stack, resources: dict[str, Any]
) -> None:
    functions = of_type("AWS::Lambda::Function", resources)
    assert functions == {"RetryRunTask", "Notify"}
    for name in functions:
        function = resources[name]["Properties"]
        assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
        assert function["Role"] == arn_of(f"{name}Role")
        module, _, handler = function["Handler"].rpartition(".")
        code = ROOT / stack.resources[name]["Properties"]["CodeUri"]
        assert (code / module.replace(".", "/")).with_suffix(".py").exists()
        assert callable(getattr(importlib.import_module(module), handler))


def test_a_broken_layer_does_not_silence_both(resources: dict[str, Any]) -> None:
    assert "Layers" in resources["RetryRunTask"]["Properties"]
    assert "Layers" not in resources["Notify"]["Properties"]
    # Nor does an error in the code of one stop the other from being imported.
    for path in (ROOT / "functions" / "notify").glob("*.py"):
        imported = re.findall(r"^ *(?:from|import) (\w+)", path.read_text("utf-8"), re.MULTILINE)
        third_party = set(imported) - sys.stdlib_module_names
        assert third_party <= {"notify", "boto3", "botocore", "mypy_boto3_sns"}


def test_sam_adds_nothing_but_rules_and_what_calls_and_follows_the_functions(
    stack: Stack, resources: dict[str, Any]
) -> None:
    added = resources.keys() - stack.source["Resources"].keys()
    assert {name: resources[name]["Type"] for name in added} == MADE_BY_SAM
    assert of_type("AWS::Events::Rule", resources) == stack.rules.keys()
    assert "ManagedPolicyArns" not in json.dumps(resources)


def test_two_rules_and_nobody_else_may_invoke_the_function(resources: dict[str, Any]) -> None:
    for rule in ("RetryRunTaskFailedCall", "RetryRunTaskReplayedDeadLetter"):
        (target,) = resources[rule]["Properties"]["Targets"]
        assert target["Arn"] == arn_of("RetryRunTask")
        assert resources[f"{rule}Permission"]["Properties"] == {
            "Action": "lambda:InvokeFunction",
            "FunctionName": {"Ref": "RetryRunTask"},
            "Principal": "events.amazonaws.com",
            "SourceArn": arn_of(rule),
        }


def test_every_result_of_the_function_goes_to_the_bus(resources: dict[str, Any]) -> None:
    bus = {"Destination": arn_of("OutcomeBus")}
    assert resources["RetryRunTaskEventInvokeConfig"]["Properties"] == {
        "FunctionName": {"Ref": "RetryRunTask"},
        "Qualifier": "$LATEST",
        "MaximumRetryAttempts": 2,
        "MaximumEventAgeInSeconds": 21600,
        "DestinationConfig": {"OnSuccess": bus, "OnFailure": bus},
    }


def test_nothing_is_public(resources: dict[str, Any]) -> None:
    allow = [s for s in dicts_in(resources) if "Principal" in s and s.get("Effect") == "Allow"]
    assert all(s["Principal"] == {"Service": mock.ANY} for s in allow)
    # Who makes Lambda use a role must be allowed to pass it.
    unconditional = {
        (s["Principal"]["Service"], s["Action"]) for s in allow if "Condition" not in s
    }
    assert unconditional == {("lambda.amazonaws.com", "sts:AssumeRole")}
    assert not [kind for kind in kinds(resources) if re.search("Url|ApiGateway", kind)]


def test_it_needs_no_more_than_the_readme_says(resources: dict[str, Any]) -> None:
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    promise = "no database, no state machine, no CloudTrail log group and no CloudWatch Logs subscr"
    assert f"needs {promise}iption" in readme
    needless = "DynamoDB|RDS|S3|StepFunctions|CloudTrail|Logs::SubscriptionFilter|EC2|KMS"
    assert not [kind for kind in kinds(resources) if re.match(f"AWS::({needless})", kind)]
    assert of_type("AWS::Logs::LogGroup", resources) == {"LogGroup"}  # the functions' own


def test_sam_delete_leaves_nothing_behind(resources: dict[str, Any]) -> None:
    holds_data = {"AWS::Events::Archive", "AWS::Logs::LogGroup", "AWS::SQS::Queue"}
    assert holds_data <= kinds(resources)
    for resource in resources.values():
        said = resource.get("DeletionPolicy")
        assert said == "Delete" or (said is None and resource["Type"] not in holds_data)


def test_lost_jobs_outlive_an_archive_that_is_replaced(resources: dict[str, Any]) -> None:
    kept = {name for name, r in resources.items() if r.get("UpdateReplacePolicy") == "Retain"}
    assert kept == of_type("AWS::Events::Archive", resources)


# Names: a stack's name may have 128 characters, and the names of what it makes fewer.

STACKSET = "StackSet-retry-run-task-6a3c4a5b-7f0e-4a4f-9c1b-3f1a2b3c4d5e"
LONGEST = f"StackSet-{'x' * 82}-6a3c4a5b-7f0e-4a4f-9c1b-3f1a2b3c4d5e"
# What the template names itself. Whatever is not in this list is named by CloudFormation, within
# the limits of its type: the roles, too, so that CAPABILITY_IAM is enough.
NAMED = {
    "DeadLetterArchive": "ArchiveName",
    "OutcomeBus": "Name",
    "ScheduleGroup": "Name",
    "LostJobsQuery": "Name",
    "ChainQuery": "Name",
    "LeftAloneQuery": "Name",
}


def names_in(resource: dict[str, Any]) -> set[str]:
    """The property with which a template names a resource: `Name`, `RoleName`, `ArchiveName`, …"""
    kind = resource["Type"].rpartition(":")[2]
    return {"Name", f"{kind}Name"} & set(resource.get("Properties", {}))


def test_the_template_names_only_what_has_to_be_named(resources: dict[str, Any]) -> None:
    inline = of_type("AWS::IAM::Policy", resources)  # named within its role
    named = {
        (logical_id, key)
        for logical_id in resources.keys() - inline
        for key in names_in(resources[logical_id])
    }
    assert named == set(NAMED.items())


@pytest.fixture(scope="module")
def schemas(stack: Stack) -> dict[str, Any]:
    """What CloudFormation's own schemas, which cfn-lint has, say of each type's properties."""
    types = {resource["Type"] for resource in stack.resources.values()}
    theirs = sorted(kind for kind in types if not kind.startswith("AWS::Serverless::"))
    script = ("tool", "run", "--quiet", "--from", CFN_LINT, "python", "-c", SHOW_SCHEMAS)
    shown: dict[str, Any] = json.loads(uv(*script, stack.region, *theirs))
    return shown


CFN_LINT = "cfn-lint>=1.58,<2"
SHOW_SCHEMAS = """
import json, sys
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER as manager
region, *types = sys.argv[1:]
schemas = {name: manager.get_resource_schema(region, name).schema for name in types}
print(json.dumps({name: schema["properties"] for name, schema in schemas.items()}))
"""


@pytest.mark.parametrize("stack_name", ["a", STACKSET, LONGEST], ids=["short", "StackSet", "128"])
def test_every_text_fits_whatever_the_stacks_name(stack_name: str, schemas: dict[str, Any]) -> None:
    assert len(LONGEST) == 128
    stack, checked = Stack(name=stack_name), set()
    for logical_id, resource in stack.resources.items():
        if resource["Type"].startswith("AWS::Serverless::"):
            continue
        for key, value in resource.get("Properties", {}).items():
            rule = schemas[resource["Type"]][key]
            if isinstance(value, str) and "maxLength" in rule:
                assert len(value) <= rule["maxLength"], f"{logical_id}.{key}"
                assert re.search(rule.get("pattern", ""), value), f"{logical_id}.{key}"
                checked.add((logical_id, key))
    assert NAMED.items() <= checked


def test_two_stacks_do_not_share_a_name() -> None:
    one, two = (Stack(name=name) for name in ("one", "two"))
    for logical_id, key in NAMED.items():
        names = {s.resources[logical_id]["Properties"][key] for s in (one, two)}
        assert len(names) == 2, logical_id
    # Of two ids that share any one part, too: they are of version 1, whose last part is the host's.
    ids = ["201c12d0-0721-11ee-b056-02bec084ce62", "5e4b5ff0-4d8d-11ec-9f3e-02bec084ce62"]
    groups = set()
    for stack_id in ids:
        with mock.patch.object(Stack, "stack_id", f"arn:aws:cloudformation:r:1:stack/s/{stack_id}"):
            groups.add(Stack().environment["SCHEDULE_GROUP"])
    assert groups == {f"retry-run-task-{stack_id.replace('-', '')}" for stack_id in ids}


def test_a_replays_name_fits_whatever_the_stacks_name() -> None:
    stack = Stack(name=LONGEST)
    text = json.dumps([stack.resources, stack.outputs])
    names = re.findall(r"--replay-name (\S*?\$\(date \+%s\)\S*) --", text)
    assert len(names) == text.count("start-replay --") == 2  # for the messages, and an output
    for name in names:
        # StartReplay, API reference: up to 64 of these characters.
        assert re.fullmatch(r"[.\-_A-Za-z0-9]{1,64}", name.replace("$(date +%s)", "1" * 10))


@pytest.mark.parametrize("replay", [{}, {"replay-name": "r" * 64}], ids=["attempt", "replay"])
def test_a_schedules_name_fits_whatever_origin_the_function_takes(replay: dict[str, str]) -> None:
    event = load_event("launched.second-attempt") | replay
    parameters = event["detail"]["requestParameters"]
    tags = {tag["key"]: tag for tag in parameters["tags"]}
    tags["retry-run-task:attempt"]["value"] = "999998/999999"  # the longest
    origin = tags["retry-run-task:origin"]
    uuid = origin["value"]
    with World(Stack(), NOW) as world:
        for length in range(len(uuid), 65):
            origin["value"] = uuid.ljust(length, "a")
            parameters["clientToken"] = f"{origin['value']}-999998"
            assert world.call_handler(event)["outcome"] in ("SCHEDULED", "NOT_REPLAYABLE")
        names = [schedule["Name"] for schedule in world.schedules()]
    assert any(uuid in name for name in names)
    for name in names:
        assert re.fullmatch("[0-9a-zA-Z-_.]{1,64}", name)  # CreateSchedule, API reference


# What depends on what.


def references(node: Any) -> Iterator[str]:
    """The logical ids and parameters that CloudFormation must know to resolve a node."""
    for function, argument in (item for found in dicts_in(node) for item in found.items()):
        match function, argument:
            case "Ref" | "DependsOn", _:
                yield from as_list(argument)
            case "Fn::GetAtt", [name, *_]:
                yield name
            case "Fn::Sub", str():
                yield from re.findall(r"\$\{([\w:]+)", argument)
            case "Fn::Sub", [text, variables]:
                yield from set(re.findall(r"\$\{([\w:]+)", text)) - variables.keys()


def in_order(resources: dict[str, Any]) -> list[str]:
    """An order in which CloudFormation can create the resources; raises CycleError."""
    graph = {name: resources.keys() & set(references(r)) for name, r in resources.items()}
    return list(TopologicalSorter(graph).static_order())


def test_every_reference_has_a_target(translated: dict[str, Any]) -> None:
    known = translated["Parameters"].keys() | translated["Resources"].keys()
    everywhere = {name for name in references(translated) if not name.startswith("AWS::")}
    assert everywhere <= known


def test_no_resource_waits_for_itself(resources: dict[str, Any]) -> None:
    assert sorted(in_order(resources)) == sorted(resources)
    # The circle that SchedulerPolicy is there to avoid would be found.
    circle = {"SchedulerRole": resources["SchedulerRole"] | {"Has": resources["SchedulerPolicy"]}}
    with pytest.raises(CycleError):
        in_order(resources | circle)


# What `sam publish` takes, and which version it is.


def test_sam_publish_takes_the_applications_metadata(stack: Stack) -> None:
    application = stack.source["Metadata"]["AWS::ServerlessRepo::Application"]
    # CreateApplication, API reference of the Serverless Application Repository.
    assert re.fullmatch("[a-z0-9](([a-z0-9]|-(?!-))*[a-z0-9])?", application["Author"])
    assert len(application["Author"]) <= 127
    assert re.fullmatch("[a-zA-Z0-9-]{1,140}", application["Name"])
    assert 1 <= len(application["Description"]) <= 256
    assert 1 <= len(application["Labels"]) <= 10
    assert all(re.fullmatch("[a-zA-Z0-9+_:/@-]{1,127}", label) for label in application["Labels"])
    # `sam package` uploads these files.
    assert all((ROOT / application[file]).is_file() for file in ("LicenseUrl", "ReadmeUrl"))


def test_output_project_and_metadata_have_one_version(stack: Stack) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    application = stack.source["Metadata"]["AWS::ServerlessRepo::Application"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert stack.outputs["Version"]["Value"] == project["version"]
    assert application["SemanticVersion"] == project["version"]


# GovCloud and China, where AWS's SSM parameter for the Powertools layer does not exist.


def test_no_parameter_is_fetched_by_cloudformation_before_it_is_needed(stack: Stack) -> None:
    types = {spec["Type"] for spec in stack.source["Parameters"].values()}
    assert types == {"String", "Number", "CommaDelimitedList"}


@pytest.mark.parametrize(
    ("given", "layer"),
    [
        ({}, "{{resolve:ssm:/aws/service/powertools/python/arm64/python3.13/latest}}"),
        ({"PowertoolsLayer": "/my/layer:7"}, "{{resolve:ssm:/my/layer:7}}"),
    ],
)
def test_the_layer_is_looked_up_in_the_ssm_parameter(given: dict[str, str], layer: str) -> None:
    assert Stack(given).function["Layers"] == [layer]


LAYER = "lambda:us-gov-west-1:123456789012:layer:AWSLambdaPowertoolsPythonV3-python313-arm64:27"


@pytest.mark.parametrize("partition", ["aws", "aws-us-gov", "aws-cn", "aws-eusc", "aws-iso-b"])
def test_a_layers_arn_wins_and_no_ssm_parameter_is_resolved(partition: str) -> None:
    arn = f"arn:{partition}:{LAYER}"
    stack = Stack({"PowertoolsLayerArn": arn, "PowertoolsLayer": "/none"}, partition=partition)
    assert stack.function["Layers"] == [arn]
    text = json.dumps([stack.resources, stack.outputs])
    assert "resolve:" not in text
    assert set(re.findall("arn:([a-z-]*):", text)) == {partition}


@pytest.mark.parametrize(
    "given",
    [
        {"PowertoolsLayer": "powertools"},
        {"PowertoolsLayer": "/layer}}"},
        {"PowertoolsLayer": "/layer:latest"},
        {"PowertoolsLayer": f"arn:aws:{LAYER}"},
        {"PowertoolsLayerArn": f"arn:aws:{LAYER}".rpartition(":")[0]},  # without its version
        {"PowertoolsLayerArn": f" arn:aws:{LAYER}"},
        {"PowertoolsLayerArn": "/aws/service/powertools"},
    ],
)
def test_what_is_neither_a_name_nor_the_arn_of_a_layer_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(BadParameter):
        Stack(given)


def test_every_combination_of_the_conditions_resolves(stack: Stack) -> None:
    assert set(references(stack.source["Conditions"])) == SWITCHES.keys()
    for chosen in product((True, False), repeat=len(SWITCHES)):
        given = {k: v for (k, v), take in zip(SWITCHES.items(), chosen, strict=True) if take}
        one = Stack(given)
        absent = stack.source["Resources"].keys() - one.resources.keys()
        text = json.dumps([one.resources, one.outputs])
        assert not any(f"{one.name}-{name}" in text for name in absent)
        assert not re.search(r'"Ref"|"Fn::|\$\{', text)


# Safeguard 7 of the README: "each permission has its reason beside it".


@pytest.mark.parametrize("role_id", ["RetryRunTaskRole", "NotifyRole"])
def test_each_permission_has_its_reason_beside_it(role_id: str) -> None:
    stack = Stack({"NotificationTopicArn": SWITCHES["NotificationTopicArn"]})
    template = (ROOT / "template.yaml").read_text("utf-8")
    role = re.split(r"\n  (?=\w+:\n)", template.partition(f"\n  {role_id}:\n")[2])[0]
    found = re.findall(
        r"((?: *#.*\n)*)(?: *- !If\n *- \w+\n(?: *- !Ref AWS::NoValue\n)?)? *- Sid: (\w+)\n", role
    )
    reasons = {sid: reason.strip() for reason, sid in found}
    statements = stack.policy_of(role_id)
    assert reasons.keys() == {statement["Sid"] for statement in statements}
    for statement in statements:
        sid = statement["Sid"]
        # What is read is what was found: both have one reason.
        reason = reasons[sid] or reasons.get(sid.replace("Read", "Find"), "")
        assert reason.endswith("."), sid
        assert '"*"' in reason or "*" not in as_list(statement["Resource"]), sid


# A smoke test: moto's CloudFormation makes the stack, and takes it away again.

# For these a log group stands in (deployed_account.adapted).
UNKNOWN_TO_MOTO = {
    "AWS::CloudWatch::Alarm",
    "AWS::Events::EventBusPolicy",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Logs::QueryDefinition",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::Scheduler::ScheduleGroup",
}


def what_is_there() -> dict[str, list[Any]]:
    """What the stack makes, listed by the services themselves."""
    events = boto3.client("events")
    return {
        "functions": boto3.client("lambda").list_functions()["Functions"],
        "buses": events.list_event_buses()["EventBuses"],
        "rules": events.list_rules()["Rules"],
        "archives": events.list_archives()["Archives"],
        "topics": boto3.client("sns").list_topics()["Topics"],
        "queues": boto3.client("sqs").list_queues().get("QueueUrls", []),
        "log groups": boto3.client("logs").describe_log_groups()["logGroups"],
        "dashboards": boto3.client("cloudwatch").list_dashboards()["DashboardEntries"],
        "roles": boto3.client("iam").list_roles()["Roles"],
    }


@pytest.fixture
def account(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account with the code in a bucket, and a layer."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", stack.region)
    with mock_aws():
        deployed_account.prepare(stack.region)
        yield


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("given", [{}, SWITCHES], ids=["default", "everything else"])
def test_the_stack_is_made_and_goes_without_a_trace(
    given: dict[str, str], stack: Stack, translated: dict[str, Any]
) -> None:
    assert kinds(translated["Resources"]) - get_model_map().keys() == UNKNOWN_TO_MOTO
    before = what_is_there()
    cloudformation, named = boto3.client("cloudformation"), {"StackName": stack.name}
    made = deployed_account.create_stack(stack.name, stack.region, given)
    assert made["StackStatus"] == "CREATE_COMPLETE"
    summaries = cloudformation.list_stack_resources(**named)["StackResourceSummaries"]
    expected = Stack(given).resources.keys() | MADE_BY_SAM.keys()
    # moto lists a resource whose condition is false as well, without its name.
    assert {summary["LogicalResourceId"] for summary in summaries} - {""} == expected

    there = what_is_there()
    new = {kind for kind in there if there[kind] != before[kind]}
    assert new == there.keys() - ({"topics"} if "NotificationTopicArn" in given else set())
    outputs = {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}
    assert outputs.keys() == stack.outputs.keys()
    (bus,) = (bus for bus in there["buses"] if bus["Name"] == stack.name)
    rules = boto3.client("events").list_rules(EventBusName=stack.name)["Rules"]
    (rule,) = (rule["Arn"] for rule in rules if "ReplayedDeadLetter" in rule["Name"])
    command = outputs["StartReplayCommand"]
    assert f"--event-source-arn {outputs['ArchiveArn']} " in command
    assert f"--destination Arn={bus['Arn']},FilterArns={rule} " in command

    cloudformation.delete_stack(**named)
    assert what_is_there() == before
