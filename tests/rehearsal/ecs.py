"""ECS with scarce capacity: moto's, and what moto leaves out.

moto ignores `clientToken` and never answers with failures (aws-facts, section 6), so both are
decided here, in front of moto's own RunTask; what is placed is placed by moto.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from botocore.exceptions import ReadTimeoutError
from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend
from moto.ecs.exceptions import ECSException
from moto.ecs.models import Task, ecs_backends
from moto.ecs.responses import EC2ContainerServiceResponse

from rehearsal.policies import CAPACITY

DAY = timedelta(days=1)

# (parameters, response or None, (error code, message) or None)
OnCall = Callable[[Mapping[str, Any], Mapping[str, Any] | None, tuple[str, str] | None], None]


class ConflictException(ECSException):
    """As ECS raises it for a client token that was used with other parameters."""

    code = "ConflictException"

    def __init__(self, resource_ids: list[str]) -> None:
        super().__init__("The client token was used with other parameters.")
        self.resource_ids = resource_ids


def rejected(code: str, message: str) -> ECSException:
    """An error as ECS answers with it."""
    error = ECSException(message)
    error.code = code
    return error


def _invalid(parameters: Mapping[str, Any]) -> ECSException | None:
    """How ECS rejects what its model takes and its API does not (the words are a guess)."""
    if not 1 <= parameters.get("count", 1) <= 10:
        return rejected("InvalidParameterException", "Count must be between 1 and 10 inclusive.")
    if not re.fullmatch("[^:]+(:[0-9]+)?", parameters["taskDefinition"].rpartition("/")[2]):
        return rejected("ClientException", "Unable to describe task definition.")
    return None


@dataclass
class ScarceEcs:
    """`failures` further calls fail, and all calls do until `outage_ends`; every other is placed.

    Those of `families_without_capacity` fail as well. `at_most` is how many tasks a call can place.
    `errors` are raised in place of an answer, one a call, and `late_errors` after it took effect.
    `lost_answers` further calls take effect, and their answers never come.

    `instances`: on EC2 an answer lists a failure for each container instance of the cluster.

    `binds_failures`: whether a call that placed nothing uses up its token. What AWS does is not
    documented (aws-facts, section 6), so both worlds can be rehearsed. `tasks` are the ARNs of all
    that was placed, and `launches` the requests that placed something, with their ARNs. Tasks run
    for `task_time`, or for ever, and their tokens for an hour more, but a day at most
    (ECS_Idempotency). `straddled` are families of which one token failed first and launched then.
    """

    account: str
    region: str
    on_call: OnCall
    now: Callable[[], datetime]
    failures: int = 0
    outage_ends: datetime | None = None
    reason: str = CAPACITY
    at_most: int = 10
    families_without_capacity: set[str] = field(default_factory=set)
    errors: list[ECSException] = field(default_factory=list)
    late_errors: list[ECSException] = field(default_factory=list)
    lost_answers: int = 0
    instances: int = 1
    binds_failures: bool = True
    task_time: timedelta | None = None
    straddled: set[str] = field(default_factory=set)
    tasks: list[str] = field(default_factory=list)
    launches: list[tuple[dict[str, Any], list[str]]] = field(default_factory=list)
    tokens: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any], datetime]] = field(
        default_factory=dict
    )
    _failed: set[tuple[str, str]] = field(default_factory=set)

    @contextmanager
    def in_place_of_motos(self) -> Iterator[None]:
        """To be used inside moto's mock_aws: RunTask is answered by this object meanwhile."""
        placed_by_moto = EC2ContainerServiceResponse.run_task

        def run_task(response: EC2ContainerServiceResponse) -> ActionResult:
            parameters: dict[str, Any] = json.loads(response.body)

            def place(count: int) -> ActionResult:
                self._make_room(parameters)
                response.params["count"] = count
                return placed_by_moto(response)

            return ActionResult(self.answer(parameters, place))

        with mock.patch.object(EC2ContainerServiceResponse, "run_task", run_task):
            yield

    def answer(
        self, parameters: Mapping[str, Any], place: Callable[[int], ActionResult]
    ) -> dict[str, Any]:
        """RunTask's response; raises what is due in `errors`, ConflictException, and timeouts."""
        error = _invalid(parameters) or (self.errors.pop(0) if self.errors else None)
        if error is not None:
            self.on_call(parameters, None, (error.code, error.message))
            raise error
        cluster = parameters.get("cluster", "default").rpartition("/")[2]
        token = (cluster, parameters["clientToken"])
        known = self.tokens.get(token)
        is_alive = known is not None and self.now() < known[2] + self._life(known[1])
        if known is not None and is_alive:
            before, response, _ = known
            if before != parameters:
                tasks = [task["taskArn"] for task in response["tasks"]]
                conflict = ConflictException(tasks)
                self.on_call(parameters, None, (conflict.code, conflict.message))
                raise conflict
        elif self._is_scarce(parameters):
            response = {"tasks": [], "failures": self._failures(1)}
            self._failed.add(token)
        else:
            asked = parameters.get("count", 1)
            count = min(asked, self.at_most)
            placed = cast("dict[str, list[Task]]", place(count).result)
            tasks = [{"taskArn": task.task_arn} for task in placed["tasks"]]
            response = {"tasks": tasks, "failures": self._failures(asked - count)}
            if token in self._failed:
                self.straddled.add(family_of(parameters))
            arns = [task["taskArn"] for task in tasks]
            self.tasks += arns
            self.launches.append((dict(parameters), arns))
        if not is_alive and (response["tasks"] or self.binds_failures):
            self.tokens[token] = (dict(parameters), response, self.now())
        if self.late_errors:
            error = self.late_errors.pop(0)
            self.on_call(parameters, None, (error.code, error.message))
            raise error
        self.on_call(parameters, response, None)
        if self.lost_answers:
            self.lost_answers -= 1
            raise ReadTimeoutError(endpoint_url="ECS")
        return response

    def _life(self, response: Mapping[str, Any]) -> timedelta:
        if self.task_time is None or not response["tasks"]:
            return DAY
        return min(DAY, self.task_time + timedelta(hours=1))

    def _failures(self, missing: int) -> list[dict[str, str]]:
        if self.instances == 1:
            return [{"reason": self.reason}] * missing
        return [
            {"arn": f"arn:aws:ecs:::container-instance/{n:032x}", "reason": self.reason}
            for n in range(self.instances if missing else 0)
        ]

    def _is_scarce(self, parameters: Mapping[str, Any]) -> bool:
        if family_of(parameters) in self.families_without_capacity:
            return True
        if self.failures > 0:
            self.failures -= 1
            return True
        return self.outage_ends is not None and self.now() < self.outage_ends

    def _make_room(self, parameters: Mapping[str, Any]) -> None:
        """The cluster, task definition and container instance that moto wants to see."""
        backend = ecs_backends[self.account][self.region]
        cluster = parameters.get("cluster", "default").rpartition("/")[2]
        if cluster not in backend.clusters:
            backend.create_cluster(cluster)
            if parameters.get("launchType") != "FARGATE":  # EC2, EXTERNAL, or a provider
                self.add_instance(cluster)
        family, _, revision = parameters["taskDefinition"].rpartition("/")[2].partition(":")
        if family not in backend.task_definitions:
            container = {"name": "main", "image": "main", "cpu": 1, "memory": 1}
            definition = backend.register_task_definition(family, [container])
            definition.revision = int(revision or 1)
            backend.task_definitions[family] = {definition.revision: definition}

    def add_instance(self, cluster: str) -> None:
        """A container instance: moto asks for the EC2 instance, which not every Region can have."""
        instance = SimpleNamespace(
            image_id="ami-12345678",
            availability_zone=f"{self.region}a",
            instance_type="m5.large",
            platform=None,
        )
        with mock.patch.object(EC2Backend, "get_instance", return_value=instance):
            ecs_backends[self.account][self.region].register_container_instance(cluster, "i-1")


def family_of(parameters: Mapping[str, Any]) -> str:
    """The family of the task definition that a request names."""
    family: str = parameters["taskDefinition"].rpartition("/")[2].partition(":")[0]
    return family
