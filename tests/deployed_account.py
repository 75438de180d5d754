"""A user's account: the stack deployed by moto's CloudFormation, a trail, jobs and their roles."""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import boto3
from botocore.exceptions import ClientError
from botocore.model import OperationModel
from ministack.services import eventbridge
from moto.cloudformation.models import Stack as MotoStack
from moto.cloudformation.parsing import get_model_map
from moto.ecs.models import ecs_backends
from moto.iam.models import iam_backends
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from account.session import action_of
from conftest import NOW, looked_up
from rehearsal.iam import allowed
from rehearsal.pattern import _events, in_process
from rehearsal.records import read_moment
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
    # moto would take it for YAML, which takes fifty times as long.
    with mock.patch.object(MotoStack, "parse_template", staticmethod(json.loads)):
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=json.dumps(adapted(translated(region))),
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
    (made,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    return dict(made)


# What the account answers in place of moto, given the parameters of the operation.
Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]

# How long CloudTrail takes to show a call in its Event history.
EVENT_HISTORY_LATENCY = timedelta(minutes=5)
# A part of a filter's pattern, as CloudWatch Logs takes it (user guide, "Filter pattern syntax").
FILTER = re.compile(r'\(?\$\.([\w.]+) = "([^"]+)"\)?')

INVOCATION = "00000000-0000-0000-0000-0000000000aa"


class UserAccount:
    """What a user's session meets: moto's services, and here what moto lacks or has wrong.

    `stack` is the deployed one, as DescribeStacks has it. `refused` are operations that AWS
    refuses, with the error's code; `sent`, the actions of all requests, and `regions`, where they
    were sent to. A function that is
    invoked is the world's, and the user's RunTask calls are answered by the world's ECS.
    """

    def __init__(self, world: World, parameters: Mapping[str, str]) -> None:
        self.world = world
        self.refused: dict[str, str | BaseException] = {}
        self.sent: list[str] = []
        self.regions: list[tuple[str, str]] = []
        self.answers: dict[str, Answer] = {
            "SimulatePrincipalPolicy": self._simulate,
            "GetLayerVersionByArn": lambda _: {"LayerVersionArn": LAYER},
            "Invoke": self._invoke,
            "FilterLogEvents": self._filter_log_events,
            "LookupEvents": self._lookup_events,
        }
        self._calls: list[tuple[datetime, dict[str, Any]]] = []
        self._stop_listening = mock.patch.object(world, "publish", self._published(world.publish))
        prepare(world.stack.region)
        self.stack = create_stack(world.stack.name, world.stack.region, parameters)
        page = boto3.client("cloudformation").list_stack_resources(StackName=world.stack.name)
        self._resources: dict[str, str] = {
            resource["LogicalResourceId"]: resource.get("PhysicalResourceId", "")
            for resource in page["StackResourceSummaries"]
        }
        self._complete(parameters)

    def output(self, name: str) -> str:
        """An output of the stack."""
        (value,) = (o["OutputValue"] for o in self.stack["Outputs"] if o["OutputKey"] == name)
        return str(value)

    def resource(self, logical_id: str) -> str:
        """The physical name of a resource."""
        return self._resources[logical_id]

    def define_task(self, name: str, **given: Any) -> None:
        """A task definition, such as `nightly:42`, with the roles `task` and `execution`."""
        family, _, revision = name.partition(":")
        roles = "arn:aws:iam::123456789012:role/"
        definition = {
            "containerDefinitions": [{"name": "main", "image": "main", "cpu": 1, "memory": 1}],
            "taskRoleArn": f"{roles}task",
            "executionRoleArn": f"{roles}execution",
        }
        boto3.client("ecs").register_task_definition(family=family, **definition | given)
        known = ecs_backends[self.world.stack.account][self.world.stack.region].task_definitions
        (registered,) = known[family].values()
        registered.revision = int(revision or 1)
        registered.arn = registered.arn.rpartition(":")[0] + f":{registered.revision}"
        known[family] = {registered.revision: registered}

    def allow(self, role: str, statements: Sequence[Mapping[str, Any]]) -> None:
        """A role with these statements."""
        iam, policy = boto3.client("iam"), {"Version": "2012-10-17", "Statement": statements}
        iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
        iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=json.dumps(policy))

    def _complete(self, parameters: Mapping[str, str]) -> None:
        """What moto's CloudFormation leaves out."""
        client, name = boto3.client("lambda"), self.output("FunctionName")
        variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(
            FunctionName=name,
            Environment={"Variables": {key: str(value) for key, value in variables.items()}},
            Layers=[LAYER],
        )
        boto3.client("scheduler").create_schedule_group(Name=self.output("ScheduleGroupName"))
        if address := parameters.get("NotificationEmail"):
            topic = self.output("NotificationTopicArn")
            boto3.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint=address)
        cloudwatch = boto3.client("cloudwatch")
        for logical_id, resource in self.world.stack.resources.items():
            if resource["Type"] == "AWS::CloudWatch::Alarm":
                named = resource["Properties"] | {"AlarmName": self.resource(logical_id)}
                cloudwatch.put_metric_alarm(**named)
        trails, here = boto3.client("cloudtrail"), {"LocationConstraint": self.world.stack.region}
        boto3.client("s3").create_bucket(Bucket="trail", CreateBucketConfiguration=here)
        trails.create_trail(Name="everything", S3BucketName="trail", IsMultiRegionTrail=True)
        trails.put_event_selectors(
            TrailName="everything",
            EventSelectors=[{"ReadWriteType": "All", "IncludeManagementEvents": True}],
        )
        trails.start_logging(Name="everything")

    def _simulate(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """IAM's simulation, out of the role's inline policies."""
        name = asked["PolicySourceArn"].rpartition("/")[2]
        # The backend itself, because a test's user may not ask for these.
        roles = iam_backends[self.world.stack.account]["aws"].roles.values()
        policies = [role.policies for role in roles if role.name == name]
        if not policies:
            said: Any = {"Error": {"Code": "NoSuchEntity", "Message": f"no role {name}"}}
            raise ClientError(said, "SimulatePrincipalPolicy")
        statements = [s for text in policies[0].values() for s in _read(text)]
        (action,), (resource,) = asked["ActionNames"], asked["ResourceArns"]
        context = {c["ContextKeyName"]: c["ContextKeyValues"][0] for c in asked["ContextEntries"]}
        is_allowed = allowed(statements, action, resource, context)
        result = {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": "allowed" if is_allowed else "implicitDeny",
        }
        return {"EvaluationResults": [result], "IsTruncated": False}

    def _invoke(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        assert asked["InvocationType"] == "Event"
        assert asked["FunctionName"] == self.output("FunctionName")
        event = json.loads(asked["Payload"])
        self.world.at(self.world.now + timedelta(seconds=1), lambda: self.world.invoke(event))
        return {"StatusCode": 202, "ResponseMetadata": {"RequestId": INVOCATION}}

    def _filter_log_events(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """The lines of which a member has the value that the pattern says."""
        assert asked["logGroupName"] == self.output("LogGroupName")
        lines = []
        for text in self.world.logs.getvalue().splitlines():
            line = json.loads(text)
            if "time" in line:
                lines.append((read_moment(line["time"]), line))
        request_id = INVOCATION
        for entry in self.world.timeline:
            if entry.actor == "Scheduler":  # that is another invocation
                request_id = "another"
            if error := entry.data.get("error"):
                kind, _, message = error.partition(": ")
                said = {"errorType": kind, "errorMessage": message, "requestId": request_id}
                lines.append((entry.moment, said))
        if "filterPattern" not in asked:  # may it be read at all?
            return {"events": []}
        either = asked["filterPattern"].removeprefix("{ ").removesuffix(" }").split(" || ")
        wanted = [FILTER.fullmatch(each) for each in either]
        events = [
            {
                "eventId": f"{moment} {json.dumps(line)}",
                "timestamp": int(moment.timestamp() * 1000),
                "message": json.dumps(line),
            }
            for moment, line in lines
            if any(each and line.get(each[1]) == each[2] for each in wanted)
        ]
        return {"events": [e for e in events if e["timestamp"] >= asked["startTime"]]}

    def _published(self, publish: Callable[..., None]) -> Callable[..., None]:
        def published(event: dict[str, Any], *latency: timedelta) -> None:
            self._calls.append((self.world.now, event["detail"]))
            publish(event, *latency)

        return published

    def _lookup_events(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        shown = [
            (moment, record)
            for moment, record in self._calls
            if moment + EVENT_HISTORY_LATENCY <= self.world.now
            and asked["StartTime"] <= moment <= asked["EndTime"]
        ]
        answer = looked_up(*(record for _, record in shown))
        for event, (moment, _) in zip(answer["Events"], shown, strict=True):
            event["EventTime"] = moment
        return answer

    def _sleep(self, seconds: float) -> None:
        """A user's command waits: the world goes on. The function's own waits are botocore's."""
        if self.world.is_in_function:
            self.world.wait(timedelta(seconds=seconds))
        else:
            self.world.pass_time(timedelta(seconds=seconds))

    @contextmanager
    def entered(self) -> Iterator[Self]:
        """Sessions that are made meanwhile are the user's."""
        _events()  # that of the world, which is no user's
        make = boto3.Session

        def session(**options: Any) -> boto3.Session:
            made = make(**options)
            hooks: Any = made.events
            hooks.register("before-parameter-build", _keep)
            hooks.register_last("before-call", self._answer)
            hooks.register("after-call.ecs.RunTask", self._identify)
            hooks.register("before-send.events.TestEventPattern", in_process(eventbridge))
            return made

        with (
            self._stop_listening,
            mock.patch.object(boto3, "Session", session),
            mock.patch("time.sleep", self._sleep),
        ):
            yield self

    def _answer(
        self, model: OperationModel, context: Mapping[str, Any], request_signer: Any, **_: object
    ) -> Any:
        self.sent.append(action_of(model))
        self.regions.append((self.sent[-1], request_signer.region_name))
        refused = self.refused.get(model.name)
        if isinstance(refused, BaseException):
            raise refused
        if refused:
            said = {"Error": {"Code": refused, "Message": "said AWS"}, "ResponseMetadata": {}}
            return SimpleNamespace(status_code=400), said
        if answer := self.answers.get(model.name):
            answered = {"ResponseMetadata": {}} | dict(answer(context["asked"]))
            return SimpleNamespace(status_code=200), answered
        return None

    def _identify(self, parsed: Mapping[str, Any], **_: object) -> None:
        """The record of a call has the identifier of its request, if it came as far as to ECS."""
        if "RequestId" in parsed["ResponseMetadata"]:
            self._calls[-1][1]["requestID"] = parsed["ResponseMetadata"]["RequestId"]


def _read(policy: Any) -> list[Any]:
    """Its statements. Of what CloudFormation has made, moto keeps the object itself."""
    read = json.loads(policy) if isinstance(policy, str) else policy
    return [statement for statement in read["Statement"] if statement]


def _keep(params: Mapping[str, Any], context: dict[str, Any], **_: object) -> None:
    context["asked"] = params


@contextmanager
def user_account(
    parameters: Mapping[str, str] | None = None,
    definitions: Mapping[str, Any] | None = None,
    **scarcity: Any,
) -> Iterator[UserAccount]:
    """An account with the stack deployed, a trail, and these rules and schedules."""
    given = {"NotificationEmail": "ops@example.com"} | dict(parameters or {})
    world = World(Stack(given), NOW, definitions=definitions, **scarcity)
    with world, UserAccount(world, given).entered() as account:
        yield account
