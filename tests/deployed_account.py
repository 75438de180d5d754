"""A user's account: the stack deployed by moto's CloudFormation, a trail, jobs and their roles."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import boto3
from botocore.model import OperationModel
from ministack.services import eventbridge
from moto.cloudformation.parsing import get_model_map
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from account.session import action_of
from conftest import NOW
from rehearsal.iam import allowed
from rehearsal.pattern import in_process
from rehearsal.template import Stack
from rehearsal.world import World

LAYER = "arn:aws:lambda:eu-west-1:123456789012:layer:powertools:1"


@cache
def _translated(region: str) -> str:
    source = copy.deepcopy(Stack().source)
    for name in ("RetryRunTask", "Notify"):
        source["Resources"][name]["Properties"]["CodeUri"] = "s3://code/functions.zip"
    with mock.patch.dict("os.environ", AWS_DEFAULT_REGION=region):
        return json.dumps(Translator({}, Parser()).translate(source, {}))


def translated(region: str) -> dict[str, Any]:
    """What CloudFormation gets to see, after `sam package` has put the code in a bucket."""
    template: dict[str, Any] = json.loads(_translated(region))
    return template


def adapted(translated: Mapping[str, Any]) -> dict[str, Any]:
    """The translated template, without what moto cannot do."""
    # Ref of a bus gives a Python object, not the bus's name.
    text = json.dumps(translated).replace(
        '{"Ref": "OutcomeBus"}', '{"Fn::GetAtt": ["OutcomeBus", "Name"]}'
    )
    text = text.replace("{{resolve:ssm:${PowertoolsLayer}}}", "${PowertoolsLayer}")
    template: dict[str, Any] = json.loads(text)
    # An archive's pattern has to be a string.
    archive = template["Resources"]["DeadLetterArchive"]["Properties"]
    archive["EventPattern"] = json.dumps(archive["EventPattern"])
    # Dynamic references are not resolved: a layer of this account stands in for what they give.
    template["Parameters"]["PowertoolsLayer"]["Default"] = LAYER
    # A log group stands in for the others: it has a name and an ARN as well.
    for resource in template["Resources"].values():
        if resource["Type"] not in get_model_map():
            resource["Type"] = "AWS::Logs::LogGroup"
    return template


def prepare(region: str) -> None:
    """The code in a bucket, and the layer."""
    s3, here = boto3.client("s3"), {"LocationConstraint": region}
    s3.create_bucket(Bucket="code", CreateBucketConfiguration=here)
    s3.put_object(Bucket="code", Key="functions.zip", Body=b"code")
    layer = boto3.client("lambda").publish_layer_version(
        LayerName="powertools", Content={"ZipFile": b"code"}
    )
    assert layer["LayerVersionArn"] == LAYER


def create_stack(name: str, region: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Deployed, as DescribeStacks has it."""
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps(adapted(translated(region))),
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (made,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    return dict(made)


# What the user's account answers in place of moto: see the methods of UserAccount.
Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class UserAccount:
    """What a user's session meets: moto's services, and here what moto lacks or has wrong.

    `stack` is the deployed one, as DescribeStacks has it. `refused` are operations that AWS
    refuses, with the error's code, and `sent` the actions of all requests.
    """

    def __init__(self, world: World, parameters: Mapping[str, str]) -> None:
        self.world, region = world, world.stack.region
        self.refused: dict[str, str] = {}
        self.sent: list[str] = []
        self.answers: dict[str, Answer] = {
            "SimulatePrincipalPolicy": self.simulate,
            "GetLayerVersionByArn": lambda _: {"LayerVersionArn": LAYER},
        }
        prepare(region)
        self.stack = create_stack(world.stack.name, region, parameters)
        self._complete()

    def output(self, name: str) -> str:
        (value,) = (o["OutputValue"] for o in self.stack["Outputs"] if o["OutputKey"] == name)
        return str(value)

    def resource(self, logical_id: str) -> str:
        """The physical name of a resource."""
        cloudformation = boto3.client("cloudformation")
        found = cloudformation.list_stack_resources(StackName=self.stack["StackName"])
        (name,) = (
            each["PhysicalResourceId"]
            for each in found["StackResourceSummaries"]
            if each["LogicalResourceId"] == logical_id
        )
        return str(name)

    def _complete(self) -> None:
        """What moto's CloudFormation leaves out."""
        client, name = boto3.client("lambda"), self.output("FunctionName")
        variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(
            FunctionName=name,
            Environment={"Variables": {key: str(value) for key, value in variables.items()}},
            Layers=[LAYER],
        )
        boto3.client("scheduler").create_schedule_group(Name=self.output("ScheduleGroupName"))
        if any(
            p["ParameterKey"] == "NotificationEmail" and p["ParameterValue"]
            for p in self.stack["Parameters"]
        ):
            self.subscribe()
        for logical_id, resource in self.world.stack.resources.items():
            if resource["Type"] == "AWS::CloudWatch::Alarm":
                given = {k: v for k, v in resource["Properties"].items() if k != "Tags"}
                given["AlarmName"] = self.resource(logical_id)
                boto3.client("cloudwatch").put_metric_alarm(**given)
        trails = boto3.client("cloudtrail")
        boto3.client("s3").create_bucket(
            Bucket="trail",
            CreateBucketConfiguration={"LocationConstraint": self.world.stack.region},
        )
        trails.create_trail(Name="everything", S3BucketName="trail", IsMultiRegionTrail=True)
        trails.start_logging(Name="everything")

    def subscribe(self) -> None:
        boto3.client("sns").subscribe(
            TopicArn=self.output("NotificationTopicArn"),
            Protocol="email",
            Endpoint="ops@example.com",
            ReturnSubscriptionArn=True,
        )

    def simulate(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """IAM's simulation, out of the role's inline policies."""
        iam, role = boto3.client("iam"), asked["PolicySourceArn"].rpartition("/")[2]
        statements: list[Any] = []
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document: Any = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            statements += document["Statement"]
        (action,), (resource,) = asked["ActionNames"], asked["ResourceArns"]
        context = {c["ContextKeyName"]: c["ContextKeyValues"][0] for c in asked["ContextEntries"]}
        is_allowed = allowed(statements, action, resource, context)
        decision = "allowed" if is_allowed else "implicitDeny"
        return {
            "EvaluationResults": [
                {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision}
            ],
            "IsTruncated": False,
        }

    def attend(self, session: boto3.Session) -> None:
        """Answer the requests of a session."""
        hooks: Any = session.events
        hooks.register(
            "before-parameter-build", lambda params, context, **_: context.update(asked=params)
        )
        hooks.register_first("before-call", self._answer)
        hooks.register("before-send.events.TestEventPattern", in_process(eventbridge))

    def _answer(self, model: OperationModel, context: Mapping[str, Any], **_: object) -> Any:
        self.sent.append(action_of(model))
        if code := self.refused.get(model.name):
            error = {"Error": {"Code": code, "Message": "said AWS"}}
            return SimpleNamespace(status_code=400), error | {
                "ResponseMetadata": {"HTTPStatusCode": 400}
            }
        if answer := self.answers.get(model.name):
            answered = dict(answer(context["asked"]))
            return SimpleNamespace(status_code=200), {"ResponseMetadata": {}} | answered
        return None


@contextmanager
def user_account(
    parameters: Mapping[str, str] | None = None,
    definitions: Mapping[str, Any] | None = None,
    **scarcity: Any,
) -> Iterator[UserAccount]:
    """An account with the stack deployed, a trail, and these rules and schedules."""
    given = {"NotificationEmail": "ops@example.com"} | dict(parameters or {})
    with World(Stack(given), NOW, definitions=definitions, **scarcity) as world:
        account, make = UserAccount(world, given), boto3.Session

        def session(**options: Any) -> boto3.Session:
            made = make(**options)
            account.attend(made)
            return made

        with mock.patch.object(boto3, "Session", session):
            yield account
