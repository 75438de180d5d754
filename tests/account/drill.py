"""`drill`: a fire drill with one job, or a probe of what ECS and CloudTrail do with a failure."""

import argparse
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from account.check import add_account_options
from rehearsal.cli import Parser, duration, run, some_text

# What a drill, and a probe, may have to call. Nothing else is called; sts:GetCallerIdentity needs
# no policy.
DRILL = [
    "cloudformation:DescribeStacks",
    "ecs:DescribeTaskDefinition",
    "ecs:StopTask",
    "events:DescribeRule",
    "events:ListEventBuses",
    "events:ListRuleNamesByTarget",
    "events:ListRules",
    "events:ListTargetsByRule",
    "events:TestEventPattern",
    "iam:SimulatePrincipalPolicy",
    "lambda:GetFunctionConcurrency",
    "lambda:GetFunctionConfiguration",
    "lambda:InvokeFunction",
    "logs:FilterLogEvents",
    "scheduler:GetSchedule",
    "scheduler:ListSchedules",
]
PROBE = [
    "cloudformation:DescribeStacks",
    "cloudtrail:LookupEvents",
    "ecs:DescribeCapacityProviders",
    "ecs:DescribeClusters",
    "ecs:DescribeContainerInstances",
    "ecs:DescribeTaskDefinition",
    "ecs:ListContainerInstances",
    "ecs:RunTask",
    "ecs:StopTask",
    "ecs:TagResource",
    "iam:PassRole",
    "logs:FilterLogEvents",
]
# What these actions are narrowed to: whoever may invoke the function, or pass roles, may start
# anything (README, "Safeguards"). The function is that of a stack with the usual name.
NARROW: dict[str, dict[str, Any]] = {
    "ecs:TagResource": {"Condition": {"StringEquals": {"ecs:CreateAction": "RunTask"}}},
    "iam:PassRole": {
        "Condition": {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    },
    "lambda:InvokeFunction": {
        "Resource": "arn:aws:lambda:*:*:function:retry-run-task-RetryRunTask-*"
    },
}


def policy_of(actions: Sequence[str]) -> str:
    """A policy that allows these actions, as JSON."""
    others = [action for action in actions if action not in NARROW]
    statements: list[Any] = [{"Effect": "Allow", "Action": others, "Resource": "*"}]
    statements += [
        {"Effect": "Allow", "Action": [action], "Resource": "*"} | NARROW[action]
        for action in actions
        if action in NARROW
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


EPILOG = f"""\
examples:
  drill nightly
      the rule or schedule `nightly` is retried, as if its call had failed a moment ago
  drill jobs/nightly --stop --yes
      the one on the bus, or in the group, `jobs`; its task is stopped as soon as it is placed
  drill request.json
      a RunTask request, as `aws ecs run-task --cli-input-json` takes it
  drill --probe CLUSTER TASK_DEFINITION
      what nobody documents; see below

A drill makes the record that CloudTrail would write of a failed call of the job, asks EventBridge
whether the deployed rule matches it, and invokes the deployed function with it. So the job really
runs, beside whatever runs already. What `check` calls wrong with the stack or the job is refused.
The function's log then shows how it goes on; the times are real. If capacity is really missing, the
retries take as long as they do in an emergency.

A drill does not verify that CloudTrail sends the event, and that the rule invokes the function:
`check` looks at both.

exit status:
  0  the job was launched (and stopped, with --stop)
  1  it was not launched, not in time, or could not be stopped
  2  refused: nothing was started

This policy is enough (for a stack of another name or partition, change the function's ARN); without
ecs:StopTask, --stop does not work:
{policy_of(DRILL)}

A probe settles what nobody documents, and costs nothing. It asks ECS for a task that no container
instance of the cluster can hold, and again with another `group` under the same client token.
Then it waits for the records of both calls in CloudTrail's Event history, and prints what they
show. The cluster needs at least one container instance, and no managed scaling; the task
definition, one for EC2 without network mode `awsvpc`. A tag opts the calls out of retries. If a
stack is deployed, its log shows how long CloudTrail's event took.

exit status of a probe:
  0  the report has both calls and their records
  1  a task has started (it is stopped), ECS did not answer as expected, or the records did not come
     in time
  2  refused: nothing was asked of ECS

For a probe, this policy is enough:
{policy_of(PROBE)}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit status (see `drill --help`)."""
    parser = _parser()
    options = parser.parse_args(argv)
    if bool(options.job) == bool(options.probe):
        parser.error("give the job to start, or --probe CLUSTER TASK_DEFINITION")
    if options.probe and options.stop:
        parser.error("--stop does not go with --probe, which starts nothing")

    def play() -> int:
        if options.probe:
            from account.probe import probe

            return probe(options)
        from account.fire_drill import drill

        return drill(options)

    return run(parser.prog, play, isolated=False)


def _parser() -> Parser:
    parser = Parser(
        prog="drill",
        description=(
            "A fire drill: does the deployed stack start this job, if its call fails? The job\n"
            "really runs."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "job",
        type=some_text,
        nargs="?",
        metavar="JOB",
        help=(
            "a rule's or schedule's name (BUS/NAME, GROUP/NAME or its ARN, where several have it), "
            "or a JSON file with a RunTask request"
        ),
    )
    add_account_options(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--stop", action="store_true", help="stop the task once it is placed")
    parser.add_argument(
        "--timeout",
        type=duration,
        default=timedelta(minutes=30),
        metavar="TIME",
        help="how long to wait: 90s, 30m, 1h15m (default: 30m)",
    )
    parser.add_argument(
        "--probe",
        nargs=2,
        metavar=("CLUSTER", "TASK_DEFINITION"),
        help="instead of a drill: what ECS and CloudTrail do with a failure",
    )
    return parser
