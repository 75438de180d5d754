"""Whose call is it, and is its failure ours to retry?"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from retry_run_task.failed_call import FailedCall, text_in
from retry_run_task.settings import Callers, Settings

OURS = "retry-run-task"
UNKNOWN = "unknown"

# What rules and schedules write in front of their names in `startedBy`; they cut the whole to 36
# characters (seen: chronos-schedule/tfg-fraud-dev-sched, of tfg-fraud-dev-sched-p2p-daily).
RULE_PREFIX = "events-rule/"
SCHEDULE_PREFIX = "chronos-schedule/"

Sign = Literal["invoked_by", "started_by", "user_agent", "tag"]

# Which sign wins. AWS itself writes `invokedBy`; the others are the caller's own word.
SIGNS: tuple[Sign, ...] = ("invoked_by", "started_by", "user_agent", "tag")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of caller, and how CloudTrail's record shows it.

    `group`: SCHEDULED callers never look at `failures`. ATTENDED ones see them, or retry by
    themselves; a job that its caller starts again *and* we retry would run twice. `signs` are
    regular expressions for the whole value; a tag is written `key=value`.
    """

    name: str
    group: Literal["SCHEDULED", "ATTENDED"]
    signs: Mapping[Sign, str]


# Beside each kind stands what it does with `failures`, and where that was read (2026-11). A caller
# that is not in this table is UNKNOWN, because nothing in its calls identifies it: gchq/sleeper,
# ecspresso, ecschedule, luigi, ecs-cli, silinternational/ecs-deploy, fabfuel/ecs-deploy, buildkite,
# Terraform's aws_ecs_task_execution, most GitHub actions, and anybody's own Lambda function (of 32
# call sites, 8 read `failures`, 5 crash at `tasks[0]`, 19 notice nothing).
KINDS = (
    # Looks at nothing: 0 FailedInvocations of 115,304, with 4.9 % of the calls failed
    # (paradisec-archive/nabu, docs/mediaflux-backup-event-loss.md).
    Kind(
        "events-rule",
        "SCHEDULED",
        {
            "invoked_by": r"events\.amazonaws\.com",
            "started_by": f"{RULE_PREFIX}.*",
            "user_agent": r"events\.amazonaws\.com",
        },
    ),
    # Looks at nothing, be the target ECS or the universal one. It does not show up as
    # scheduler.amazonaws.com (a record of 2024-11, and two users on RunTask); the older shape that
    # this project assumed is read as well.
    Kind(
        "scheduler",
        "SCHEDULED",
        {
            "invoked_by": r"scheduler\.amazonaws\.com",
            "started_by": f"{SCHEDULE_PREFIX}.*",
            "user_agent": r"AmazonEventBridgeScheduler\b.*|scheduler\.amazonaws\.com",
        },
    ),
    # Not documented. That it looks at nothing, as rules do, is a guess.
    Kind("pipes", "SCHEDULED", {"invoked_by": r"pipes\.amazonaws\.com"}),
    # `.sync` fails the state, and only the author's `Retry` runs it again. In request-response the
    # state succeeds, and nothing runs; the record does not show which of the two it was, so that
    # the job's tag has to opt in (Step Functions developer guide, "connect-ecs").
    Kind(
        "step-functions",
        "ATTENDED",
        {"invoked_by": r"states\.amazonaws\.com", "started_by": "AWS Step Functions"},
    ),
    # Places its jobs itself, and retries (AWS Batch user guide, "Automated job retries").
    Kind("batch", "ATTENDED", {"invoked_by": r"batch\.amazonaws\.com", "tag": "aws:batch:.*"}),
    # EcsRunTaskOperator raises EcsOperatorError, and the DAG's `retries` run it again; the executor
    # queues it again, max_run_task_attempts times (apache/airflow, providers/amazon:
    # operators/ecs.py, executors/ecs/ecs_executor.py; the user agent: hooks/base_aws.py).
    Kind("airflow", "ATTENDED", {"user_agent": ".* Airflow/.*"}),
    # Backs off on "Capacity is unavailable" (dagster-io/dagster: dagster_aws/ecs/utils.py).
    Kind("dagster", "ATTENDED", {"tag": "dagster/.*"}),
    # Three attempts within seconds, then the flow crashes (PrefectHQ/prefect: prefect_aws,
    # workers/ecs_worker.py).
    Kind("prefect", "ATTENDED", {"tag": r"prefect\.io/.*"}),
    # Tries every second for 60 s (dask/dask-cloudprovider: aws/ecs.py).
    Kind("dask", "ATTENDED", {"tag": "createdBy=dask-cloudprovider"}),
    # Aborts, and Jenkins provisions another agent (jenkinsci/amazon-ecs-plugin: ECSLauncher.java).
    Kind("jenkins", "ATTENDED", {"tag": r"jenkins\.(label|templatename)=.*"}),
    # Raises, so that SQS delivers the message again (awslabs/aws-lambda-ecs-run-task:
    # src/helper.py).
    Kind("sqs-runner", "ATTENDED", {"started_by": r"arn:[a-z-]+:sqs:.*"}),
    # Throws, which a person sees (aws-actions/amazon-ecs-deploy-task-definition: index.js).
    Kind(
        "github-actions",
        "ATTENDED",
        {
            "started_by": "GitHub-Actions",
            "user_agent": "(.* )?amazon-ecs-deploy-task-definition-for-github-actions.*",
        },
    ),
    # `copilot task run` fails without a retry, which a person sees (aws/copilot-cli:
    # internal/pkg/aws/ecs/ecs.go).
    Kind(
        "copilot",
        "ATTENDED",
        {"started_by": "copilot-task", "user_agent": "(.* )?aws-copilot/.*"},
    ),
    # Prints the failures and exits with 0: a person sees them, or a script does not (aws/aws-cli).
    Kind("cli", "ATTENDED", {"user_agent": "aws-cli/.*"}),
    # Shows the failures to a person. CloudTrail marks its sessions (CloudTrail record contents,
    # `sessionCredentialFromConsole`), or writes these user agents (same page, `userAgent`).
    Kind("console", "ATTENDED", {"user_agent": r"(console|signin)\.amazonaws\.com"}),
)
GROUPS = {kind.name: kind.group for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a call: the name of a Kind, OURS or UNKNOWN; and its role's ARN, if it shows."""

    kind: str
    role: str | None

    @property
    def is_scheduled(self) -> bool:
        """Is it a rule, a schedule or (a guess) a pipe, which never look at what they got?"""
        return GROUPS.get(self.kind) == "SCHEDULED"

    def is_covered(self, callers: Callers) -> bool:
        """Does the stack retry this caller's calls, where the job itself does not say otherwise?"""
        if self.kind == OURS or callers is Callers.ALL:
            return True
        if callers is Callers.SCHEDULED:
            return self.is_scheduled
        return GROUPS.get(self.kind) != "ATTENDED"


def caller_of(call: FailedCall, settings: Settings) -> Caller:
    """Who made the call. The function's own calls have its role and its name as the session.

    A session's name alone is anybody's choice; the role is not (AWS STS, AssumeRole).
    """
    role = call.role or None
    if call.caller_arn == settings.session_arn:
        return Caller(OURS, role)
    for sign in SIGNS:
        values = _shown(call, sign)
        for kind in KINDS:
            if _matches(kind, sign, values):
                return Caller(kind.name, role)
    return Caller(UNKNOWN, role)


def is_shown_as(call: FailedCall, kind: str, *signs: Sign) -> bool:
    """Does one of these signs show that a caller of this kind made the call?"""
    (known,) = (known for known in KINDS if known.name == kind)
    return any(_matches(known, sign, _shown(call, sign)) for sign in signs)


def started_by_of(call: FailedCall) -> str:
    """The call's `startedBy`; empty without one."""
    return text_in(call.parameters, "startedBy")


def job_of(call: FailedCall) -> str:
    """The job as its owner knows it: its rule's or schedule's name, else its group or family.

    A long name of a rule or schedule arrives cut (see RULE_PREFIX).
    """
    for prefix in (RULE_PREFIX, SCHEDULE_PREFIX):
        if started_by_of(call).startswith(prefix):
            return started_by_of(call).removeprefix(prefix)
    family = text_in(call.parameters, "taskDefinition").rpartition("/")[2].partition(":")[0]
    # `family:<name>` is ECS's default group (RunTask `group`).
    return text_in(call.parameters, "group").removeprefix("family:") or family


def _shown(call: FailedCall, sign: Sign) -> list[str]:
    """What the call's record shows where a sign may be."""
    match sign:
        case "invoked_by":
            return [call.invoked_by]
        case "started_by":
            return [started_by_of(call)]
        case "user_agent":
            return [call.user_agent, *(["console.amazonaws.com"] if call.from_console else [])]
        case "tag":  # pragma: no branch - mypy sees that no other is left
            return list(_tags(call.parameters.get("tags")))


def _matches(kind: Kind, sign: Sign, values: list[str]) -> bool:
    pattern = kind.signs.get(sign)
    return pattern is not None and any(re.fullmatch(pattern, v, re.DOTALL) for v in values)


def _tags(tags: object) -> Iterable[str]:
    """Each tag as `key=value`, those of AWS included; what is no tag is passed over."""
    for tag in tags if isinstance(tags, list) else []:
        if isinstance(tag, dict):
            yield f"{text_in(tag, 'key')}={text_in(tag, 'value')}"
