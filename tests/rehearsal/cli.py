"""`rehearse`: what the stack would do with an event, seen on your desk, without an AWS account."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rehearsal import EVENTS
from rehearsal.callers import check
from rehearsal.cloudtrail import hide_environment
from rehearsal.ecs import CAPACITY
from rehearsal.storm import POLICIES, USUAL_OUTAGE, Storm, report
from rehearsal.template import BadParameter, Stack
from rehearsal.world import World
from retry_run_task.failed_call import NotAFailedCall
from retry_run_task.request import NotExact

EPILOG = """\
examples:
  rehearse events/launched.fargate-capacity-rule.json
      a nightly job fails three times and is then launched
  rehearse events/launched.fargate-capacity-rule.json --outage 75m --parameter MaxAttempts=20
      capacity is missing for 75 minutes, and the stack has another budget
  rehearse events/launched.fargate-capacity-rule.json --duplicates
      every event arrives twice: still one task
  rehearse events/launched.fargate-capacity-rule.json --then-replay
      the job dies, a person is told, and starts it with the command in the message
  rehearse my-event.json --show-request
      a failed call of your own account, as EventBridge shows it
  rehearse --storm 1000 --policy all
      a thousand jobs fail in one minute; this stack beside other systems' retries

exit status:
  0  the job was launched (with --storm: all jobs, under each policy)
  1  it ended as a dead letter (with --storm: at least one)
  2  bad input
  3  it was left alone: the rule does not match the event, or it came to LEFT_ALONE or OPTED_OUT
"""

# Up to ten minutes may pass before an event is in the archive (aws-facts, section 3).
ARCHIVE_LATENCY = timedelta(minutes=10)

# Not this stack's to retry.
LEFT_ALONE = ("UNMATCHED", "LEFT_ALONE", "OPTED_OUT")

# Outcomes that are not the job's end.
UNDERWAY = ("FAILED_AGAIN", "SCHEDULED", "ALREADY_SCHEDULED", "ALREADY_LAUNCHED")


class BadInput(Exception):
    """One line for the person at the terminal: what is wrong, and the way out."""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit status (see `rehearse --help`)."""
    options = _parser().parse_args(argv)
    try:
        if options.storm:
            return storm(options)
        world = rehearse(options)
    except (BadInput, BadParameter, NotAFailedCall) as problem:
        print(f"rehearse: {problem}", file=sys.stderr)
        return 2
    result = summary(world)
    # What was recovered is shown by name, never by value.
    request = hide_environment(world.calls[-1]) if world.calls and options.show_request else None
    if options.json:
        print(json.dumps(result | ({"request": request} if request else {}), indent=2))
    else:
        _print(world, result)
        if request:
            print("\nThe last request, as ECS received it:")
            print(json.dumps(request, indent=2))
    return {"LAUNCHED": 0, **dict.fromkeys(LEFT_ALONE, 3)}.get(result["outcome"], 1)


def storm(options: argparse.Namespace) -> int:
    """Play the storm under each policy asked for, and print how it went. Raises BadInput."""
    event = read_event(options.event)
    stack = Stack(dict(options.parameter), account=event["account"], region=event["region"])
    outage = USUAL_OUTAGE if options.outage is None else options.outage
    policies = POLICIES if options.policy == "all" else (options.policy,)
    storms = {name: Storm(event, stack, options.storm, outage, name).run() for name in policies}
    results = {name: played.summary() for name, played in storms.items()}
    print(json.dumps(results, indent=2) if options.json else report(storms))
    lost = any(figures["launched"] < figures["jobs"] for figures in results.values())
    return 1 if lost else 0


def rehearse(options: argparse.Namespace) -> World:
    """Play the event to its end. Raises BadInput or BadParameter."""
    event = read_event(options.event)
    stack = Stack(dict(options.parameter), account=event["account"], region=event["region"])
    start = datetime.fromisoformat(event["time"]).astimezone(UTC)
    # The event's own call was the first to fail.
    default = 10**9 if options.then_replay else 3
    failures = options.failures or (default if options.outage is None else 1)
    world = World(
        stack,
        start,
        definitions=read_definitions(options),
        duplicates=options.duplicates,
        failures=failures - 1,
        outage_ends=None if options.outage is None else start + options.outage,
        reason=options.reason,
    )
    with world:
        world.begin(event)
        world.run()
        if options.then_replay:
            replay_twice(world)
    return world


def replay_twice(world: World) -> None:
    """Capacity returns, and an operator replays the archive as the message says; then once more."""
    if not world.bus.messages:
        raise BadInput("--then-replay: no job was lost, so there is nothing to replay")
    command = world.bus.messages[0].splitlines()[-1].strip('"')
    world.ecs.failures, world.ecs.outage_ends = 0, None
    world.tell("ECS", "capacity is back")
    for _ in range(2):
        world.wait(ARCHIVE_LATENCY)
        world.replay(command)
        world.run()


def read_definitions(options: argparse.Namespace) -> dict[str, Any]:
    """The rules and schedules of `--definitions`, or those beside the event; raises BadInput."""
    path = options.definitions or options.event.parent / "definitions" / options.event.name
    if options.definitions is None and not path.exists():
        return {}
    definitions = _read_json(path)
    if not isinstance(definitions, dict) or not definitions.keys() <= {"Rules", "Schedules"}:
        raise BadInput(f'{path}: not {{"Rules": […], "Schedules": […]}}, as in events/definitions/')
    try:
        check(definitions)
    except NotExact as problem:
        raise BadInput(
            f"{path}: {problem}: give Targets as `aws events list-targets-by-rule` shows them, "
            "and each schedule as `aws scheduler get-schedule` does"
        ) from problem
    return definitions


def read_event(path: Path) -> dict[str, Any]:
    """The EventBridge event in the file; raises BadInput for anything else."""
    event = _read_json(path)
    # What TestEventPattern asks of an event.
    required = {"detail": dict, "detail-type": str, "source": str, "account": str, "time": str}
    for key, kind in (required | {"id": str, "region": str, "resources": list}).items():
        if not isinstance(event, dict) or not isinstance(event.get(key), kind):
            raise BadInput(
                f"{path}: not an EventBridge event, {key!r} is missing: "
                'give the whole event, from "version" to "detail", as in events/'
            )
    try:
        datetime.fromisoformat(event["time"]).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{path}: not an EventBridge event, 'time' is no time") from error
    return dict(event)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON: {error}") from error


def summary(world: World) -> dict[str, Any]:
    """The object that `--json` prints.

    `outcome` is the job's: the launch or the dead letter that the invocations came to, `FAILED`
    where the function itself could not handle the event, `UNMATCHED` where it never saw it.
    `runtask_calls` and `tasks` count the caller's own call.
    """
    outcomes = [entry["outcome"] for entry in world.outcomes]
    launched = not world.missing
    ends = [name for name in outcomes if name not in UNDERWAY]
    outcome = ends[-1] if ends else ("FAILED" if world.bus.archive else "UNMATCHED")
    attempts = [str(entry["attempt"]).partition("/")[0] for entry in world.outcomes]
    return {
        "outcome": "LAUNCHED" if launched else outcome,
        "runtask_calls": 1 + len(world.calls),
        "tasks": world.tasks,
        "attempts": max((int(a) for a in attempts if a.isdecimal()), default=0),
        "messages": world.bus.messages,
        "virtual_seconds": (world.now - world.start).total_seconds(),
        "timeline": [
            {"at": entry.moment.isoformat(), "actor": entry.actor, "text": entry.text}
            | dict(entry.data)
            for entry in world.timeline
        ],
    }


def _print(world: World, result: dict[str, Any]) -> None:
    print(f"{world.start:%Y-%m-%d %H:%M:%S} UTC")
    for entry in world.timeline:
        print(f"{_elapsed(entry.moment - world.start):>9}  {entry.actor:<11}  {entry.text}")
    tasks = result["tasks"]
    print(
        f"\n{result['outcome']} after {_elapsed(world.now - world.start)[1:]}: "
        f"{result['runtask_calls']} RunTask calls, {len(tasks)} "
        f"{'task runs' if len(tasks) == 1 else 'tasks run'}"
    )
    for task in tasks:
        print(f"  {task}")
    for message in result["messages"]:
        print(f"\nThe message to the topic, as it would arrive:\n{message}")


def _elapsed(time: timedelta) -> str:
    seconds = int(time.total_seconds())
    return f"+{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rehearse",
        description=(
            "Play an EventBridge event through template.yaml's rule, the real function and an ECS "
            "with scarce capacity, in virtual time. Nothing leaves this machine."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "event",
        type=Path,
        nargs="?",
        default=EVENTS / "launched.fargate-capacity-rule.json",
        help="a JSON file with one EventBridge event (default: a job on Fargate)",
    )
    parser.add_argument(
        "--storm",
        type=positive,
        metavar="N",
        help="N jobs fail within a minute, under ECS's documented rates (--outage: default 25m)",
    )
    parser.add_argument(
        "--policy",
        choices=(*POLICIES, "all"),
        default=POLICIES[0],
        help="whose retries the storm is played with (default: %(default)s)",
    )
    parser.add_argument(
        "--failures",
        type=positive,
        metavar="N",
        help="how many RunTask calls of the job fail, the event's own included (default 3)",
    )
    parser.add_argument(
        "--outage",
        type=_duration,
        metavar="TIME",
        help="how long capacity is missing from the event's own call on: 90s, 25m, 1h15m",
    )
    parser.add_argument(
        "--reason", default=CAPACITY, help="the failures' reason (default: %(default)s)"
    )
    parser.add_argument(
        "--definitions",
        type=Path,
        metavar="FILE",
        help="rules and schedules that may have made the call (default: definitions/ beside it)",
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
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument(
        "--show-request", action="store_true", help="also print the last replayed request, whole"
    )
    return parser


def positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _duration(text: str) -> timedelta:
    match = re.fullmatch("(?:([0-9]{1,4})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})s)?", text)
    if not text or not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90s, 25m or 1h15m")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
