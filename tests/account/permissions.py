"""Permissions: may the function, and the caller of a job, do what a retry of it needs?"""

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from account.finding import Finding, fix, is_gone, ok, unknown
from account.simulation import Answer, Context, Simulation
from retry_run_task.settings import Settings

# Roles are passed to these services (Amazon ECS developer guide, "Amazon ECS task IAM role", and
# "Amazon ECS infrastructure IAM role" for the volumes of EBS).
TASKS, INFRASTRUCTURE = "ecs-tasks.amazonaws.com", "ecs.amazonaws.com"
SCHEDULER = "scheduler.amazonaws.com"


def of_function(simulation: Simulation, settings: Settings, role: str) -> Iterator[Finding]:
    """What the function needs for any job: to wait, to look up, and to pull others forward."""
    region = f"{settings.partition}:{{}}:{settings.region}:{settings.account}"
    schedules = f"arn:{region.format('scheduler')}:schedule"
    attempt = f"{schedules}/{settings.schedule_group}/attempt"
    needs: list[tuple[str, str, Context]] = [
        ("scheduler:CreateSchedule", attempt, {}),
        ("iam:PassRole", settings.scheduler_role_arn, {"iam:PassedToService": SCHEDULER}),
    ]
    if settings.recover_hidden_environment:
        needs += [
            ("events:ListEventBuses", "*", {}),
            ("events:ListRuleNamesByTarget", "*", {}),
            ("events:ListTargetsByRule", f"arn:{region.format('events')}:rule/name", {}),
            ("scheduler:ListSchedules", "*", {}),
            ("scheduler:GetSchedule", f"{schedules}/default/name", {}),
        ]
    if settings.pull_forward:
        needs += [
            ("scheduler:ListSchedules", "*", {}),
            ("scheduler:GetSchedule", attempt, {}),
            ("scheduler:UpdateSchedule", attempt, {}),
        ]
    found = dict.fromkeys(
        finding
        for action, resource, context in needs
        for finding in _unless_allowed(
            simulation.of(role, action, resource, context),
            "policy",
            f"The function's role is not allowed {action}",
            "deploy the stack again",
        )
    )
    yield from found or [ok("policy", "It allows what the function needs for any job.")]


def of_retry(
    simulation: Simulation,
    settings: Settings,
    role: str,
    title: str,
    request: Mapping[str, Any],
    task_definition: Mapping[str, Any],
    *,
    is_narrow: bool,
) -> Iterator[Finding]:
    """What the function needs to retry a call. `is_narrow`: the stack has PassRoleArns."""
    cluster = settings.arn("cluster", request.get("cluster") or "default")
    arn, where = task_definition["taskDefinitionArn"], {"ecs:cluster": cluster}
    yield from _unless_allowed(
        simulation.of(role, "ecs:RunTask", arn, where),
        title,
        f"The function's role is not allowed ecs:RunTask for {name_of(arn)} in {name_of(cluster)}",
        "see the role's policies",
    )
    created = where | {"ecs:CreateAction": "RunTask"}
    yield from _unless_allowed(
        simulation.of(role, "ecs:TagResource", _any_task(cluster), created),
        title,
        f"The function's role is not allowed ecs:TagResource in {name_of(cluster)}",
        "see the role's policies",
    )
    for named, service in _roles(task_definition, request):
        # A task definition may name a role without its ARN (RegisterTaskDefinition).
        path = f"arn:{settings.partition}:iam::{settings.account}:role/"
        passed = named if named.startswith("arn:") else f"{path}{named}"
        answer = simulation.of(role, "iam:PassRole", passed, {"iam:PassedToService": service})
        if is_narrow and not answer.refused_by:
            problem, way_out = f"The role {name_of(passed)} is not in PassRoleArns", f"add {passed}"
        else:
            problem = f"The function's role is not allowed iam:PassRole for {passed}"
            way_out = "see the role's policies"
        yield from _unless_allowed(answer, title, problem, way_out)


def of_caller(
    simulation: Simulation, settings: Settings, role: str, title: str, request: Mapping[str, Any]
) -> Iterator[Finding]:
    """A caller that sends tags needs another permission (RunTask `tags`, API reference)."""
    cluster = settings.arn("cluster", request.get("cluster") or "default")
    tags = {f"aws:RequestTag/{tag.get('key')}": tag.get("value", "") for tag in request["tags"]}
    keys = [str(tag.get("key")) for tag in request["tags"]]
    context: Context = {
        "ecs:CreateAction": "RunTask",
        "ecs:cluster": cluster,
        **tags,
        "aws:TagKeys": keys,
    }
    try:
        answer = simulation.of(role, "ecs:TagResource", _any_task(cluster), context)
    except ClientError as error:
        if not is_gone(error):
            raise
        problem = f"Its caller's role {name_of(role)} is not there"
        yield fix(title, f"{problem}: make it again, or give the target another.")
        return
    yield from _unless_allowed(
        answer,
        title,
        f"It sends tags, and its caller's role {name_of(role)} is not allowed ecs:TagResource",
        "ECS rejects its calls until it is",
    )


def _unless_allowed(answer: Answer, subject: str, problem: str, way_out: str) -> Iterator[Finding]:
    if answer.is_allowed:
        return
    by = f" ({answer.refused_by})" if answer.refused_by else ""
    if answer.missing:
        keys = ", ".join(answer.missing)
        yield unknown(subject, f"{problem}, if conditions on {keys} do not hold{by}: look at them.")
    else:
        yield fix(subject, f"{problem}{by}: {way_out}.")


def _roles(
    task_definition: Mapping[str, Any], request: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The roles that the task gets, and the services that they are passed to."""
    named = roles_in(request)
    for name in ("taskRoleArn", "executionRoleArn"):
        if role := named.pop(name, None) or task_definition.get(name):
            yield role, TASKS
    for role in named.values():
        yield role, INFRASTRUCTURE


def roles_in(request: Mapping[str, Any]) -> dict[str, Any]:
    """The roles that the request itself names, by where it does."""
    overrides = request.get("overrides", {})
    overrides = overrides if isinstance(overrides, Mapping) else {}
    roles = {name: overrides.get(name) for name in ("taskRoleArn", "executionRoleArn")}
    volumes = request.get("volumeConfigurations", [])
    for i, volume in enumerate(volumes if isinstance(volumes, list) else []):
        if isinstance(volume, Mapping):
            roles[f"volumeConfigurations[{i}]"] = volume.get("managedEBSVolume", {}).get("roleArn")
    return {where: role for where, role in roles.items() if role}


def _any_task(cluster: str) -> str:
    """The ARN of a task of the cluster that does not exist yet."""
    return f"{cluster.replace(':cluster/', ':task/')}/{'0' * 32}"


def name_of(arn: str) -> str:
    """What stands behind the last slash, which may be all of it."""
    return arn.rpartition("/")[2]
