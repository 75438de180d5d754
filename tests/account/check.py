"""`check`: would the account's jobs be covered, and is the stack in order?"""

import argparse
import json
from collections.abc import Sequence

from rehearsal.cli import Parser, run, some_text

# What the command may have to call. Nothing else is called; sts:GetCallerIdentity needs no policy.
# Without one of them, what it is for is not looked at.
ACTIONS = [
    "cloudformation:DescribeStacks",
    "cloudformation:ListStackResources",
    "cloudtrail:DescribeTrails",
    "cloudtrail:GetEventSelectors",
    "cloudtrail:GetTrailStatus",
    "cloudwatch:DescribeAlarms",
    "ecs:DescribeTaskDefinition",
    "events:DescribeArchive",
    "events:DescribeRule",
    "events:ListEventBuses",
    "events:ListRuleNamesByTarget",
    "events:ListRules",
    "events:ListTargetsByRule",
    "events:TestEventPattern",
    "iam:SimulatePrincipalPolicy",
    "lambda:GetFunctionConcurrency",
    "lambda:GetFunctionConfiguration",
    "lambda:GetLayerVersion",
    "lambda:GetPolicy",
    "scheduler:GetSchedule",
    "scheduler:GetScheduleGroup",
    "scheduler:ListSchedules",
    "sns:ListSubscriptionsByTopic",
    "sqs:GetQueueAttributes",
]
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ACTIONS, "Resource": "*"}],
}

EPILOG = f"""\
examples:
  check
      the trail, the stack retry-run-task and every job, in the Region of your profile
  check --job nightly
      one job only: a rule's or schedule's name, BUS/NAME, GROUP/NAME or an ARN
  check --stack jobs-retries --region eu-west-1 --profile production --json
      another stack, for a machine

Each line has a mark:
  ✔  it is as it should be
  ✘  there is something to fix; the sentence says what
  ?  it was not looked at; the sentence says why, and names the action that you are not allowed

Each rule and schedule that starts an ECS task is a job, on whatever bus and in whatever group. Its
call is made up from its target, hidden as CloudTrail hides it, and goes through the deployed rule's
pattern (EventBridge's TestEventPattern) and the decision of the function's own code. IAM simulates
what the function's role is allowed: "the policy allows" says no more, for the simulation does not
know all policies of an organisation. Without a stack, the jobs are judged as a stack with the
template's defaults would.

Calls of other programs (SDKs, Step Functions) have no definition that could be looked at: see
`history`.

--json prints one object:
  account, region  where it looked
  fix, unknown     how many findings have the mark ✘ and ?
  findings         each with its part (trail, stack, jobs), subject, mark (ok, fix, unknown) and
                   sentence
  left_out         jobs that were not judged, by the reason

exit status:
  0  nothing is to be fixed
  1  something is to be fixed
  2  not all could be looked at, and in the rest nothing is to be fixed

It reads, and changes nothing. This policy is enough:
{json.dumps(POLICY, indent=2)}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit status (see `check --help`)."""
    parser = _parser()
    options = parser.parse_args(argv)

    def play() -> int:
        from account.checkup import check

        return check(options)

    return run(parser.prog, play, isolated=False)


def add_account_options(parser: argparse.ArgumentParser) -> None:
    """Which stack, where, and with which credentials."""
    parser.add_argument(
        "--stack",
        type=some_text,
        default="retry-run-task",
        metavar="NAME",
        help="the stack's name (default: %(default)s)",
    )
    parser.add_argument("--region", help="the Region (default: your profile's)")
    parser.add_argument("--profile", help="the profile of the AWS CLI (default: the usual one)")


def _parser() -> Parser:
    parser = Parser(
        prog="check",
        description=(
            "Would failed calls of my jobs be retried? Looks at the trail, the stack,\n"
            "and at each rule and schedule that starts an ECS task."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_account_options(parser)
    parser.add_argument(
        "--job", type=some_text, metavar="NAME", help="this job only (default: all of them)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser
