"""The desk: what is asked for is read, played and printed."""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from rehearsal.cloudtrail import hide_environment
from rehearsal.definitions import read_definitions
from rehearsal.pattern import matches
from rehearsal.policies import LEFT_ALONE, OURS, OUTAGES, POLICIES, USUAL_OUTAGE
from rehearsal.records import BadInput, event_of, is_other, moment_of, read, title_of
from rehearsal.report import mail, report
from rehearsal.show import counted, elapsed, line, number
from rehearsal.storm import Storm
from rehearsal.template import BadParameter, Stack, stack_of
from rehearsal.world import World
from retry_run_task.caller import job_of
from retry_run_task.failed_call import NotAFailedCall, read_failed_call
from retry_run_task.request import NotExact

# Up to ten minutes may pass before an event is in the archive (aws-facts, section 3).
ARCHIVE_LATENCY = timedelta(minutes=10)

# Outcomes that are not the job's end.
UNDERWAY = ("FAILED_AGAIN", "SCHEDULED", "ALREADY_SCHEDULED", "ALREADY_LAUNCHED")

# What a record comes to, among several, that holds no whole call.
BAD_INPUT = "BAD_INPUT"

# Exit statuses, the worst first.
STATUSES = (2, 1, 3, 0)


def rehearse(options: argparse.Namespace) -> int:
    """Play what the options ask for, and print it. Returns the exit status; raises BadInput."""
    try:
        Stack(dict(options.parameter))
    except BadParameter as problem:
        raise BadInput(f"--parameter: {problem}") from problem
    definitions = read_definitions(options.definitions, options.event)
    try:
        return rehearse_file(options, definitions)
    except NotExact as problem:
        raise BadInput(f"definitions: {problem}") from problem


def rehearse_file(options: argparse.Namespace, definitions: Mapping[str, Any]) -> int:
    """Play what the file holds. Raises BadInput, and NotExact for definitions that are refused."""
    try:
        held = read(options.event)
        if not held:
            raise BadInput("holds no event and no record")
        if len(held) > 1:
            return several(held, options, definitions)
        event = event_of(held[0])
        stack = stack_of(event, dict(options.parameter))
    except BadInput as problem:
        raise BadInput(f"{title_of(options.event)}: {problem}") from problem
    return (storm if options.storm else one)(event, stack, options, definitions)


def one(
    event: Mapping[str, Any],
    stack: Stack,
    options: argparse.Namespace,
    definitions: Mapping[str, Any],
) -> int:
    """One failed call, as a timeline."""
    world = play(event, stack, options, definitions)
    result = summary(world, event)
    request = last_request(world) if options.show_request else {}
    if options.json:
        print(json.dumps(result | request, indent=2))
    else:
        show(world, result)
        if request:
            print("\nThe last request, as ECS received it:")
            print(json.dumps(request["request"], indent=2))
    return status_of(result["outcome"])


def several(
    held: Sequence[object], options: argparse.Namespace, definitions: Mapping[str, Any]
) -> int:
    """Each failed call among the records on its own, a line each; then how many came to what."""
    for option, is_given in {
        "--storm": options.storm,
        "--then-replay": options.then_replay,
    }.items():
        if is_given:
            raise BadInput(f"{option} takes one failed call, and this holds {len(held):,} records")
    results = []
    for record in held:
        result = one_of_several(record, options, definitions)
        if result is None:
            continue
        results.append(result)
        if not options.json:
            print(row(result), flush=True)
            if "request" in result:
                print(json.dumps(result["request"], indent=2))
    ignored = len(held) - len(results)
    verdicts = dict(Counter(result["outcome"] for result in results).most_common())
    if options.json:
        whole = {"records": len(held), "ignored": ignored, "verdicts": verdicts}
        print(json.dumps(whole | {"rehearsals": results}, indent=2))
    else:
        calls = number(len(results), "failed RunTask call")
        print("\n" * bool(results), end="")
        print(line("", f"{number(len(held), 'record')}: {calls}, {ignored:,} ignored."))
        if results:
            print(line("", f"{counted(verdicts)}."))
    return worst(verdicts)


def one_of_several(
    record: object, options: argparse.Namespace, definitions: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What comes of one record; None for what is no failed RunTask call."""
    if is_other(record):
        return None
    try:
        event = event_of(record)
        stack = stack_of(event, dict(options.parameter))
        if not matches(stack.pattern, event):
            return None
        world = play(event, stack, options, definitions)
    except BadInput as problem:
        return {"outcome": BAD_INPUT, "problem": str(problem)}
    request = last_request(world) if options.show_request else {}
    return summary(world, event) | request


def row(result: Mapping[str, Any]) -> str:
    """One line on one of several records."""
    if result["outcome"] == BAD_INPUT:
        return line(f"{BAD_INPUT:<14}  ", result["problem"])
    after = elapsed(timedelta(seconds=result["virtual_seconds"]))
    attempts = number(result["attempts"], "attempt")
    time = result["timeline"][0]["at"][:19].replace("T", " ")
    before = f"{result['outcome']:<14}  {after:>8}  {attempts:>11}  {time}  "
    return line(before, result["job"])


def storm(
    event: dict[str, Any],
    stack: Stack,
    options: argparse.Namespace,
    definitions: Mapping[str, Any],
) -> int:
    """Many such failed calls at once, under each policy asked for."""
    outage = USUAL_OUTAGE if options.outage is None else options.outage
    policies = POLICIES if options.policy == "all" else (options.policy or OURS,)

    def played(policy: str, outage: timedelta) -> Storm:
        return Storm(
            event,
            stack,
            options.storm,
            outage,
            policy,
            definitions=definitions,
            reason=options.reason,
            trickle=options.trickle,
        ).run()

    storms = {policy: played(policy, outage) for policy in policies}
    results = {policy: storm.summary() for policy, storm in storms.items()}
    by_outage: dict[str, dict[str, int]] = {}
    if options.policy == "all":
        for policy in policies:
            by_outage[policy] = {
                title: played(policy, other).summary()["launched"]
                for title, other in OUTAGES.items()
            }
            results[policy]["launched_by_outage"] = by_outage[policy]
    print(json.dumps(results, indent=2) if options.json else report(storms, by_outage))
    return worst(outcome for figures in results.values() for outcome in figures["outcomes"])


def play(
    event: Mapping[str, Any],
    stack: Stack,
    options: argparse.Namespace,
    definitions: Mapping[str, Any],
) -> World:
    """The event to its end. Raises BadInput, and NotExact for definitions that are refused."""
    start = moment_of(event)
    # The event's own call was the first to fail.
    default = 10**9 if options.then_replay else 3
    failures = options.failures or (default if options.outage is None else 1)
    world = World(
        stack,
        start,
        definitions=definitions,
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
    if not world.messages:
        raise BadInput("--then-replay: no job was lost, so there is nothing to replay")
    command = world.messages[0].command(world.stack)
    if command is None:
        world.tell("Operator", "no start-replay: the message says what helps instead")
        return
    world.ecs.failures, world.ecs.outage_ends = 0, None
    world.tell("ECS", "capacity is back")
    for _ in range(2):
        world.wait(ARCHIVE_LATENCY)
        world.replay(command)
        world.run()


def summary(world: World, event: Mapping[str, Any]) -> dict[str, Any]:
    """The object that `--json` prints.

    `outcome` is the job's: the launch or the dead letter that the invocations came to, `FAILED`
    where the function itself could not handle the event, `UNMATCHED` where it never saw it.
    `runtask_calls` and `tasks` count the caller's own call.
    """
    outcomes = [entry["outcome"] for entry in world.outcomes]
    ends = [name for name in outcomes if name not in UNDERWAY]
    outcome = ends[-1] if ends else ("FAILED" if world.bus.archive else "UNMATCHED")
    attempts = [str(entry["attempt"]).partition("/")[0] for entry in world.outcomes]
    return {
        "event": event["detail"].get("eventID"),
        "job": job_in(event, world.stack),
        "outcome": outcome if world.missing else "LAUNCHED",
        "runtask_calls": 1 + len(world.calls),
        "tasks": world.tasks,
        "attempts": max((int(a) for a in attempts if a.isdecimal()), default=0),
        "messages": [asdict(message) for message in world.messages],
        "virtual_seconds": (world.now - world.start).total_seconds(),
        "timeline": [
            {"at": entry.moment.isoformat(), "actor": entry.actor, "text": entry.text}
            | dict(entry.data)
            for entry in world.timeline
        ],
    }


def job_in(event: Mapping[str, Any], stack: Stack) -> str:
    """The job's name, as its outcomes have it; empty for what is no failed call."""
    try:
        return job_of(read_failed_call(event, stack.account, stack.region))
    except NotAFailedCall:
        return ""


def last_request(world: World) -> dict[str, Any]:
    """The last request, if any: what was recovered is shown by name, never by value."""
    return {"request": hide_environment(world.calls[-1])} if world.calls else {}


def status_of(outcome: str) -> int:
    """The exit status (see `rehearse --help`)."""
    known = {"LAUNCHED": 0, BAD_INPUT: 2, **dict.fromkeys(LEFT_ALONE, 3)}
    return known.get(outcome, 1)


def worst(outcomes: Iterable[str]) -> int:
    """The exit status of several."""
    return min(map(status_of, outcomes), key=STATUSES.index, default=0)


def show(world: World, result: Mapping[str, Any]) -> None:
    """The timeline, and how it ended."""
    print(f"{world.start:%Y-%m-%d %H:%M:%S} UTC")
    for entry in world.timeline:
        time = f"+{elapsed(entry.moment - world.start)}"
        print(line(f"{time:>9}  {entry.actor:<11}  ", entry.text))
    calls, tasks = result["runtask_calls"], result["tasks"]
    runs = number(len(tasks), "task runs", "tasks run")
    after = elapsed(world.now - world.start)
    print()
    print(line("", f"{result['outcome']} after {after}: {number(calls, 'RunTask call')}, {runs}"))
    for task in tasks:
        print(f"  {task}")
    for message in world.messages:
        print(f"\n{mail(message)}")
