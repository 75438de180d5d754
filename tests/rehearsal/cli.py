"""`rehearse`: what the stack would do with a failed call, seen on your desk, without an account.

Its help needs no boto3, which takes two seconds to import: what plays the rehearsal is imported
when the options are read, and the user's shell and ~/.aws have no say in it any more.
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from rehearsal import EVENTS
from rehearsal.isolation import isolate
from rehearsal.policies import CAPACITY, POLICIES
from rehearsal.records import BadInput

EPILOG = """\
examples:
  rehearse events/launched.fargate-capacity-rule.json
      a nightly job fails three times and is then launched
  rehearse events/launched.fargate-capacity-rule.json --outage 75m --parameter MaxAttempts=20
      capacity is missing for 75 minutes, and the stack has another budget
  rehearse events/launched.fargate-capacity-rule.json --duplicates
      every event arrives twice: still one task
  rehearse events/launched.fargate-capacity-rule.json --then-replay
      the job dies, a person is alerted, and starts it with the command in the message
  rehearse --storm 1000 --policy all
      a thousand jobs fail in one minute; this stack beside other systems' retries
  rehearse --storm 300 --outage 20m --trickle 10
      capacity comes back slowly

calls of your own account:
  rehearse record.json --show-request
      the record that CloudTrail's Event history shows, or the event
  aws cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue=RunTask \\
      | rehearse -
      each failed call among the last ones
  rehearse 123456789012_CloudTrail_eu-west-1_20261123T0005Z_0123456789abcdef.json.gz
      each failed call in a log file

the rule or schedule behind a call, which has the environment that CloudTrail hides:
  aws events list-targets-by-rule --rule nightly > targets.json
  rehearse record.json --definitions nightly=targets.json
      BUS/nightly=targets.json for a rule on another bus (--event-bus-name BUS)
  aws scheduler get-schedule --name nightly > schedule.json
  rehearse record.json --definitions schedule.json

exit status:
  0  the job was launched (with --storm: all jobs, under each policy)
  1  it ended as a dead letter (with --storm: at least one, or it was lost)
  2  bad input
  3  it was left alone: the rule does not match the event, or it came to LEFT_ALONE or OPTED_OUT
  Of several calls, the worst: 2, then 1, 3 and 0.
"""

# What a storm has no use for.
NOT_WITH_STORM = ("failures", "then_replay", "duplicates", "show_request")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line: the usage is in `--help`."""

    def print_help(self, file: Any = None) -> None:
        """On a terminal that does not know all characters as well."""
        _open_streams()
        super().print_help(file)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit status (see `rehearse --help`)."""
    parser = _parser()
    options = parser.parse_args(argv)
    _check(parser, options)

    def play() -> int:
        from rehearsal import desk

        return desk.rehearse(options)

    return run(parser.prog, play)


def run(command: str, play: Callable[[], int], *, isolated: bool = True) -> int:
    """What `play` returns, once this process is isolated; 2 and one line for what went wrong.

    What reads an account is not `isolated`: it needs the user's profile.
    """
    _open_streams()
    try:
        if isolated:
            isolate()
        status = play()
        sys.stdout.flush()
        return status
    except BadInput as bad:
        problem = str(bad)
    except OSError as error:  # of what is printed: reading raises BadInput
        print_nowhere()
        if isinstance(error, BrokenPipeError):  # `rehearse … | head`
            return 2
        problem = f"standard output: {error.strerror}"
    except KeyboardInterrupt:
        problem = "interrupted"
    print(f"{command}: {' '.join(problem.split())}", file=sys.stderr)
    return 2


def print_nowhere() -> None:
    """Nobody reads standard output any more. Python would try again to write what is left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Standard output and error take everything, even where they were closed (`>&-`)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            # Names and reasons of anybody's calls are shown: no terminal knows all characters.
            stream.reconfigure(errors="backslashreplace")


def _check(parser: Parser, options: argparse.Namespace) -> None:
    """Refuses options that do not go together."""
    for name in NOT_WITH_STORM if options.storm else ():
        if getattr(options, name):
            parser.error(f"--{name.replace('_', '-')} does not go with --storm")
    for name in ("policy", "trickle"):
        if getattr(options, name) and not options.storm:
            parser.error(f"--{name} goes with --storm only")
    names = [name for name, _ in options.parameter]
    if twice := {name for name in names if names.count(name) > 1}:
        parser.error(f"--parameter {min(twice)} is given twice")
    if [str(options.event), *options.definitions].count("-") > 1:
        parser.error("--definitions: standard input can be taken once")


def _parser() -> Parser:
    parser = Parser(
        prog="rehearse",
        description=(
            "Play a failed RunTask call through template.yaml's rule, the real function and an\n"
            "ECS with scarce capacity, in virtual time. Nothing leaves this machine."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "event",
        type=Path,
        nargs="?",
        default=EVENTS / "launched.fargate-capacity-rule.json",
        metavar="FILE",
        help=(
            "JSON, plain or compressed (.gz), or - for standard input: an EventBridge event, a "
            "CloudTrail record, a log file of CloudTrail, what `aws cloudtrail lookup-events` "
            "prints, or an array of these; up to 64 MB (default: a job on Fargate)"
        ),
    )
    parser.add_argument(
        "--storm",
        type=positive,
        metavar="N",
        help="N jobs fail within a minute, under ECS's documented rates (--outage: default 25m)",
    )
    parser.add_argument(
        "--trickle",
        type=positive,
        metavar="R",
        help=(
            "with --storm: capacity comes back for R tasks a minute, and is kept until it is used "
            "(default: for all at once)"
        ),
    )
    parser.add_argument(
        "--policy",
        choices=(*POLICIES, "all"),
        metavar="POLICY",
        help=(
            f"with --storm: whose retries it is played with: {', '.join(POLICIES)}, or all "
            f"(default: {POLICIES[0]})"
        ),
    )
    parser.add_argument(
        "--failures",
        type=positive,
        metavar="N",
        help="how many RunTask calls of the job fail, the event's own included (default 3)",
    )
    parser.add_argument(
        "--outage",
        type=duration,
        metavar="TIME",
        help=(
            "how long capacity is missing from the event's own call on: 90s, 25m, 1h15m; with "
            "--failures, both have to be over"
        ),
    )
    parser.add_argument(
        "--reason",
        type=some_text,
        default=CAPACITY,
        help="the failures' reason (default: %(default)s)",
    )
    parser.add_argument(
        "--definitions",
        type=some_text,
        action="append",
        default=[],
        metavar="FILE",
        help=(
            "a rule or schedule of the call's account and Region that may have made the call, see "
            "below; repeatable (default: the file's own in definitions/ beside it)"
        ),
    )
    parser.add_argument(
        "--then-replay",
        action="store_true",
        help="let the job die, bring capacity back, and replay the archive: twice",
    )
    parser.add_argument(
        "--duplicates", action="store_true", help="deliver every event twice, as CloudTrail may"
    )
    parser.add_argument(
        "--parameter",
        type=_name_and_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the stack, as in `sam deploy --parameter-overrides`; repeatable",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help=(
            "print one JSON object instead: of one record, its rehearsal; of several, `records`, "
            "`ignored`, `verdicts` and `rehearsals`; of a storm, each policy's figures"
        ),
    )
    parser.add_argument(
        "--show-request", action="store_true", help="also print the last replayed request, whole"
    )
    return parser


def positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 999999")
    return int(text)


def some_text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def duration(text: str) -> timedelta:
    match = re.fullmatch("(?:([0-9]{1,4})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})s)?", text)
    if not text or not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90s, 25m or 1h15m")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
