"""`history`: which runs were lost in the last 90 days, and what the stack would have done."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rehearsal.cli import Parser, positive, run, some_text

# What the command may have to call. Nothing else is called; sts:GetCallerIdentity needs no policy.
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "cloudtrail:LookupEvents",
                "events:ListEventBuses",
                "events:ListRuleNamesByTarget",
                "events:ListTargetsByRule",
                "scheduler:GetSchedule",
                "scheduler:ListSchedules",
            ],
            "Resource": "*",
        }
    ],
}

EPILOG = f"""\
examples:
  history
      the Region of your profile, as far back as CloudTrail's Event history goes
  history --region eu-west-1 --profile production --days 7 --failures lost
      the last week; each lost run is a file, for `rehearse lost/...`
  aws s3 sync s3://BUCKET/AWSLogs/111122223333/CloudTrail/eu-west-1/2026/11 logs && history logs
      a trail's log files: more than 90 days, other accounts
  aws cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue=RunTask \\
      | history - --offline
      what somebody else has looked up

A run is what a caller asked for once. It is lost if ECS placed less than that: nothing of it
(failed), or not all (partly). Attempts of a stack, and calls that an SDK repeats under one client
token, belong to the run that they began with. A call that ECS rejected is counted, and no more: its
caller saw an error.

What the stack would have done is decided by the stack's own code, with the template's defaults.
  RETRY        it would have been retried
  LAUNCHED     it is not lost: a retry, or a repeated call, has started it
  UNMATCHED    the rule does not match the event
  FAILED       the function cannot read the event
  All others are outcomes, which the README explains.
Where CloudTrail hides the environment, rules and schedules are read as they are now, in the account
of your credentials. A stack reads them a minute or two after the call.

--json prints one object:
  records        RunTask records, each once
  failed         lost runs of which nothing started
  partly_placed  lost runs of which some tasks started
  rejected       records of calls that ECS rejected
  would_retry    lost runs that the stack would have retried
  first, last    when the first and the last of the lost runs were called; null if there are none
  jobs           the same for each job and caller, with the `reasons` that ECS gave and the verdicts

exit status, after an interrupt as well, for what was read:
  0  nothing was lost
  1  something was lost
  2  not all could be read, and nothing was lost in the rest

It reads, and changes nothing. This policy is enough:
{json.dumps(POLICY, indent=2)}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit status (see `history --help`)."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.days and options.days > (36500 if options.files else 90):
        parser.error("--days: CloudTrail's Event history has 90 days; log files, at most 36500")
    if [str(path) for path in options.files].count("-") > 1:
        parser.error("standard input can be read once")

    def play() -> int:
        from account.look_back import look_back

        return look_back(options)

    return run(parser.prog, play, isolated=False)


def _parser() -> Parser:
    parser = Parser(
        prog="history",
        description=(
            "Which ECS tasks never started, although RunTask answered HTTP 200? Reads the Event\n"
            "history of CloudTrail, or its log files, and says what the stack would have done."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "files",
        type=Path,
        nargs="*",
        metavar="FILE",
        help=(
            "log files of CloudTrail (.json, .json.gz; up to 64 MB each), directories of them, "
            "what `aws cloudtrail lookup-events` prints, or - for standard input (default: the "
            "Event history)"
        ),
    )
    parser.add_argument(
        "--days",
        type=positive,
        metavar="N",
        help="how many days to look back (default: 90, or all that the files hold)",
    )
    parser.add_argument(
        "--region", help="the Region (default: your profile's, or all that the files hold)"
    )
    parser.add_argument("--profile", help="the profile of the AWS CLI (default: the usual one)")
    parser.add_argument(
        "--offline",
        action="store_true",
        help=(
            "do not look up the environments that CloudTrail hides: such runs are counted as "
            "NOT_REPLAYABLE; with files, no account is needed at all"
        ),
    )
    parser.add_argument(
        "--failures",
        type=some_text,
        metavar="DIRECTORY",
        help="write the first failed call of each lost run into it, as an event for `rehearse`",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser
