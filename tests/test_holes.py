"""Never twice, never lost: holes that reviews found. Each stays closed, and a mutant opens it."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ReadTimeoutError
from moto.ecs.exceptions import ECSException

from conftest import NOW, replay_command
from notify import remedy
from rehearsal import load_definitions, load_event
from rehearsal.cloudtrail import run_task_event
from rehearsal.template import Stack
from rehearsal.world import World
from retry_run_task import (
    chain,
    decision,
    follow,
    forward,
    handler,
    launch,
    progress,
    recover,
)
from retry_run_task.chain import Chain, pool_of
from retry_run_task.follow import Token
from retry_run_task.forward import pull_forward
from retry_run_task.outcome import Outcome
from retry_run_task.settings import Settings

FARGATE = "launched.fargate-capacity-rule"
SDK = "launched.fargate-capacity-sdk-client-token"
HIDDEN_RULE = "launched.hidden-environment-rule"
THROTTLED = ECSException("ThrottlingException", "Rate exceeded")
EVER = 10**9

Hole = Callable[[], None]
Mutant = Callable[[pytest.MonkeyPatch], None]


def outcomes(world: World) -> list[str]:
    return [outcome["outcome"] for outcome in world.outcomes]


def changed(name: str, **detail: Any) -> dict[str, Any]:
    event = copy.deepcopy(load_event(name))
    event["detail"].update(detail)
    return event


def replay_all(world: World) -> None:
    """As an operator does: with the first message's command, or else the stack's output."""
    world.wait(timedelta(minutes=10))
    command = world.messages[0].command(world.stack)
    begin = world.start - timedelta(minutes=1)
    world.replay(command or replay_command(world.stack, begin, world.now))
    world.run()


# One call, two records.


def an_sdk_repeats_a_call_under_its_token() -> None:
    """Two events, three seconds apart, of one call: their attempts differ in `since`."""
    repeated = changed(SDK, eventID="another", eventTime="2026-11-23T00:00:07Z")
    for failures, expected in (
        (0, ["LAUNCHED", "ALREADY_LAUNCHED"]),
        (1, ["FAILED_AGAIN", "SCHEDULED", "ALREADY_SCHEDULED", "LAUNCHED"]),
    ):
        with World(Stack(), NOW, failures=failures) as world:
            world.begin(load_event(SDK))
            world.begin(repeated)
            world.run()
            assert outcomes(world) == expected
            assert len(world.tasks) == 1
            token = load_event(SDK)["detail"]["requestParameters"]["clientToken"]
            assert {outcome["origin"] for outcome in world.outcomes} == {token}


def names_each_chain_for_its_event(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decision, "origin_of", lambda event_id, _: event_id)


def one_token_is_used_in_two_clusters() -> None:
    """Tokens are a cluster's own: these are two calls, and two jobs."""
    other = changed(SDK, eventID="another")
    other["detail"]["requestParameters"]["cluster"] = "other"
    with World(Stack(), NOW, failures=2) as world:
        world.begin(load_event(SDK))
        world.begin(other)
        world.run()
        assert outcomes(world).count("LAUNCHED") == 2


def names_schedules_for_their_chain_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decision, "schedule_name", lambda chain, *_: f"{chain.origin}-{chain.attempt}")


# Duplicates of a replayed attempt.


def a_replayed_attempt_comes_twice() -> None:
    """Seconds apart: both send the same, to the last tag."""
    with World(Stack({"MaxAttempts": "2"}), NOW, failures=EVER) as world:
        world.begin(load_event(FARGATE))
        world.run()
        world.ecs.failures, world.duplicates = 0, True
        replay_all(world)
        first, second = world.calls[2:]
        assert first == second
        assert len(world.tasks) == 1
        since = next(t["value"] for t in first["tags"] if t["key"] == "retry-run-task:since")
        assert since.startswith("2026-11-23T00:00:04Z 2026-11-23T")


REAL_DECIDE = decision.decide


def reads_the_time_from_the_clock(patch: pytest.MonkeyPatch) -> None:
    def decide(call: Any, caller: Any, progress: Any, settings: Any, now: Any, shape: Any) -> Any:
        progress = replace(progress, due=now if progress.due else None)
        return REAL_DECIDE(call, caller, progress, settings, now, shape)

    patch.setattr(handler, "decide", decide)


def somebody_is_ahead() -> None:
    """After a conflict that names no task, the next attempt comes while the other's token lives."""
    patient = {"BackoffBaseSeconds": "36000", "BackoffCapSeconds": "36000"}
    with World(Stack(patient), NOW, failures=1) as world:
        world.call_handler(load_event(FARGATE))
        world.deploy(Stack(patient | {"MaxAttempts": "20"}))  # so that the duplicate differs
        assert world.call_handler(load_event(FARGATE))["outcome"] == "SCHEDULED"
        (schedule,) = world.schedules()
        due = datetime.fromisoformat(schedule["ScheduleExpression"][3:-1] + "+00:00")
        assert due - NOW <= timedelta(minutes=30)


def waits_as_long_as_the_stack_says(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decision, "SHARED_CAP", timedelta(days=1))


def cloudtrail_shows_no_tokens() -> None:
    """Attempt 2 uses the token of attempt 1 again: the third has to know it, or passes one over."""
    with World(Stack(), NOW, failures=1) as world:
        world.shows_tokens = False
        world.ecs.errors = [THROTTLED]
        world.begin(load_event(FARGATE))
        while len(world.calls) < 2:
            world.step()
        world.invoke(load_event(FARGATE))  # a duplicate
        world.run()
        assert len(world.tasks) == 1


def writes_no_token_into_a_tag(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decision, "token_tags", lambda *_: [])


# Tokens that die.


def a_duplicate_is_throttled_until_the_token_has_died() -> None:
    """The first copy launches a task of five minutes; the second is thrown back for an hour."""
    parameters = {"BackoffBaseSeconds": "900", "BackoffCapSeconds": "900"}
    with World(Stack(parameters), NOW, task_time=timedelta(minutes=5)) as world:
        world.begin(load_event(FARGATE))
        world.duplicates = True
        world.begin(load_event(FARGATE))
        world.step()  # the first copy
        assert outcomes(world) == ["LAUNCHED"]
        world.away = {"RunTask": world.now + timedelta(minutes=66)}
        world.run()
        assert len(world.tasks) == 1
        assert outcomes(world)[-1] == "EXPIRED"
        assert "see whether it runs or has run" in world.outcomes[-1]["detail"]


def lets_tokens_live(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decision, "TOKEN_LIFE", timedelta(days=1))


def hidden(**scarcity: Any) -> World:
    return World(Stack(), NOW, definitions=load_definitions(HIDDEN_RULE), **scarcity)


def a_look_up_fails_where_a_duplicate_has_launched() -> None:
    with hidden() as world:
        event = load_event(HIDDEN_RULE)
        world.call_handler(event)
        world.away = {"ListEventBuses": world.now + timedelta(seconds=1)}
        again = world.call_handler(event)
        assert (again["outcome"], again["attempt"]) == ("SCHEDULED", "2/10")
        assert "The environment's look-up ended in EndpointConnectionError." in again["detail"]
        world.watch_schedules()
        world.run()
        assert outcomes(world) == ["ALREADY_LAUNCHED"]
        assert len(world.ecs.tasks) == 1


REAL_FOLLOW, REAL_UNSEEN = follow.follow, follow.unseen


def follows_with(patch: pytest.MonkeyPatch, token: Token, **changes: Any) -> None:
    """After an attempt whose token came to this, the progress is another one."""

    def follow(call: Any, progress: Any, request: Any, came_to: Token, *rest: Any) -> Any:
        call, progress = REAL_FOLLOW(call, progress, request, came_to, *rest)
        return call, replace(progress, **changes) if came_to is token else progress

    patch.setattr(handler, "follow", follow)


def passes_over_the_token_of_a_failed_look_up(patch: pytest.MonkeyPatch) -> None:
    follows_with(patch, Token.UNSENT, unspent=False)


def look_ups_fail_for_an_hour_where_a_duplicate_has_launched() -> None:
    with hidden(task_time=timedelta(minutes=1)) as world:
        event = load_event(HIDDEN_RULE)
        world.invoke(event)
        world.away = {"ListTargetsByRule": world.now + timedelta(minutes=62)}
        world.invoke(event)
        world.run()
        assert outcomes(world)[-1] == "EXPIRED"
        assert len(world.ecs.tasks) == 1


def lets_look_ups_fail_for_ever(patch: pytest.MonkeyPatch) -> None:
    follows_with(patch, Token.UNSENT, first_use=None)


def a_look_up_fails_at_a_later_attempt() -> None:
    """The definition that was verified for the first one is still known at the third."""
    with hidden(failures=1) as world:
        world.begin(load_event(HIDDEN_RULE))
        world.step()
        world.away = {"ListTargetsByRule": world.now + timedelta(minutes=4)}
        world.run()
        assert outcomes(world) == ["FAILED_AGAIN", "SCHEDULED", "SCHEDULED", "LAUNCHED"]
        assert [call["clientToken"][-2:] for call in world.calls] == ["-1", "-2"]


def forgets_what_was_verified(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(follow, "DEFINITION_TAG", "")


def a_late_duplicate_is_thrown_back_for_long() -> None:
    """It gives up as early as all copies do, whenever it came."""
    with World(Stack(), NOW, task_time=timedelta(minutes=1)) as world:
        world.begin(load_event(FARGATE))
        world.run()
        world.wait(timedelta(minutes=15))
        world.away = {"RunTask": world.now + timedelta(minutes=43)}
        world.invoke(load_event(FARGATE))
        world.run()
        assert len(world.tasks) == 1
        assert outcomes(world)[-1] == "EXPIRED"


def counts_from_its_own_first_use(patch: pytest.MonkeyPatch) -> None:
    def follow(call: Any, progress: Any, *rest: Any) -> Any:
        result, after = REAL_FOLLOW(call, progress, *rest)
        first_use = progress.first_use or datetime.now(NOW.tzinfo)
        return result, replace(after, first_use=after.first_use and first_use)

    patch.setattr(handler, "follow", follow)


def a_late_duplicate_meets_the_failure_of_the_first() -> None:
    """Its next token may be in use for as long as its own was."""
    with World(Stack(), NOW, failures=1, task_time=timedelta(minutes=1)) as world:
        world.begin(load_event(FARGATE))
        world.run()
        assert outcomes(world)[-1] == "LAUNCHED"
        world.deploy(Stack({"MaxAttempts": "20"}))
        world.wait(timedelta(minutes=52))
        world.invoke(load_event(FARGATE))
        world.run()
        assert len(world.tasks) == 1
        assert outcomes(world)[-1] == "EXPIRED"


def takes_the_next_token_for_fresh(patch: pytest.MonkeyPatch) -> None:
    follows_with(patch, Token.TAKEN, first_use=None)


# What passes by itself.


def services_are_away_for_ten_minutes() -> None:
    with hidden(failures=2) as world:
        world.away = dict.fromkeys(("RunTask", "ListRuleNamesByTarget"), NOW + timedelta(minutes=8))
        world.begin(load_event(HIDDEN_RULE))
        world.run()
        assert outcomes(world)[-1:] == ["LAUNCHED"]
        assert world.bus.archive == []


def nothing_passes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(launch, "transient", lambda _: None)
    patch.setattr(recover, "transient", lambda _: None)


# Letters of letters.


def what_a_queue_kept_is_a_letter_that_can_be_replayed() -> None:
    """Scheduler could not deliver an attempt, the queue's redrive failed, and so did a replay."""
    with World(Stack({"MaxAttempts": "2"}), NOW, failures=1) as world:
        world.begin(load_event(FARGATE))
        while not world.schedules():
            world.step()
        world.undelivered = 1
        world.run()
        ((_, message),) = world.queue
        assert message["FunctionName"] == world.stack.function_arn
        assert json.loads(message["Payload"])["retry-run-task:due"]["at"]
        for times in (3, 3):
            world.crashes = ["before RunTask"] * times
            if world.queue:
                world.redrive()
                world.run()
            else:
                replay_all(world)
        assert len(world.bus.archive) == 2
        assert world.bus.archive[0]["detail"]["requestPayload"] == message
        replay_all(world)
        assert len(world.tasks) == 1
        assert outcomes(world)[-1] == "LAUNCHED"


REAL_UNWRAP = progress.unwrap


def unwraps_requests_outside_of_letters_only(patch: pytest.MonkeyPatch) -> None:
    def unwrap(payload: Any) -> Any:
        event, read = REAL_UNWRAP(payload)
        inner = payload.get("detail", {}).get("requestPayload", {})
        return (inner if "FunctionName" in inner else event), read

    patch.setattr(handler, "unwrap", unwrap)


# A stack that is narrowed, renamed or doubled.


def narrowed() -> Stack:
    return Stack({"ClusterArns": "arn:aws:ecs:eu-west-1:123456789012:cluster/other"})


def the_stack_is_narrowed_in_mid_chain() -> None:
    with World(Stack(), NOW, failures=1) as world:
        world.begin(load_event(FARGATE))
        world.step()
        world.deploy(narrowed())
        world.run()
        assert outcomes(world) == ["FAILED_AGAIN", "NOT_REPLAYABLE"]
        assert world.outcomes[-1]["attempt"] == "1/10"
        assert "ClusterArns, TaskDefinitionArns" in world.outcomes[-1]["detail"]
        assert len(world.messages) == 1
        world.deploy(Stack())
        replay_all(world)
        assert len(world.tasks) == 1


def looks_at_what_is_covered_first(patch: pytest.MonkeyPatch) -> None:
    def decide(call: Any, caller: Any, progress: Any, settings: Any, now: Any, shape: Any) -> Any:
        if not settings.covers(call.parameters.get("cluster"), call.parameters["taskDefinition"]):
            chain = Chain(call.event_id, call.event_time, 0, 10)
            return decision.Stop(chain, Outcome.LEFT_ALONE, "")
        return REAL_DECIDE(call, caller, progress, settings, now, shape)

    patch.setattr(handler, "decide", decide)


def attempt_of(stack: Stack, event: dict[str, Any], patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The event of this stack's first attempt at the job, which fails."""
    published: list[dict[str, Any]] = []
    definitions = load_definitions(HIDDEN_RULE)
    with World(stack, NOW, failures=1, definitions=definitions) as world:
        patch.setattr(world, "publish", lambda event, *_: published.append(event))
        world.deliver(event)
    (attempt,) = published
    return attempt


def the_stack_is_renamed_in_mid_chain() -> None:
    """Its earlier attempts are a stranger's now: a letter, where its callers are not covered."""
    before = Stack({"Callers": "ALL"}, name="before")
    after = Stack({"Callers": "SCHEDULED"}, name="after")
    with pytest.MonkeyPatch.context() as patch:
        attempt = attempt_of(before, load_event(SDK), patch)
    with World(after, NOW) as world:
        world.deliver(attempt)
        assert outcomes(world) == ["NOT_REPLAYABLE"]
        assert "another stack, or of this one under an earlier name" in world.outcomes[0]["detail"]
        world.run()
        assert [message.command(after) for message in world.messages] == [None]
        world.deploy(Stack({"Callers": "UNATTENDED"}, name="after"))
        replay_all(world)
        assert outcomes(world)[-1] == "LAUNCHED"
        assert world.outcomes[-1]["attempt"] == "2/11"


def leaves_strangers_attempts_alone(patch: pytest.MonkeyPatch) -> None:
    def left_alone(_: Any, caller: Any, __: Any, *rest: Any) -> Any:
        chain, settings, note = rest
        return decision._left_alone(chain, caller, settings, note)

    patch.setattr(decision, "_not_covered", left_alone)


def a_letter_is_replayed_whose_caller_is_not_covered_any_more() -> None:
    """A person got a message that the job is lost, and starts it: from attempt 0 as well."""
    with World(Stack({"Callers": "ALL"}), NOW) as world:
        failures = [{"reason": "ATTRIBUTE"}]
        world.begin(changed(SDK, responseElements={"tasks": [], "failures": failures}))
        world.run()
        assert outcomes(world) == ["NOT_RETRYABLE"]
        world.deploy(Stack({"Callers": "SCHEDULED"}))
        replay_all(world)
        assert outcomes(world)[1:] == ["SCHEDULED", "LAUNCHED"]


def forgets_what_it_took_on(patch: pytest.MonkeyPatch) -> None:
    def decide(call: Any, caller: Any, progress: Any, *rest: Any) -> Any:
        return REAL_DECIDE(call, caller, replace(progress, taken_on=False), *rest)

    patch.setattr(handler, "decide", decide)


def a_replayed_attempt_at_a_permanent_failure_is_throttled() -> None:
    with World(Stack(), NOW) as world:
        failures = [{"reason": "ATTRIBUTE"}]
        world.begin(changed(FARGATE, responseElements={"tasks": [], "failures": failures}))
        world.run()
        world.ecs.errors = [THROTTLED]
        replay_all(world)
        assert outcomes(world) == ["NOT_RETRYABLE", "SCHEDULED", "SCHEDULED", "LAUNCHED"]


def takes_a_throttled_replay_for_a_chain(patch: pytest.MonkeyPatch) -> None:
    follows_with(patch, Token.SENT, replay_name=None, taken_on=False)


def a_later_replay_is_throttled_once() -> None:
    """It goes on past the spent tokens of the replays before, at once, as without the throttle."""
    with World(Stack({"MaxAttempts": "10"}), NOW, failures=EVER) as world:
        world.begin(load_event(FARGATE))
        world.run()
        replay_all(world)
        world.ecs.failures = 0
        world.bus.archive[1:] = []  # of the first letter alone
        world.ecs.errors = [THROTTLED]
        replay_all(world)
        assert outcomes(world)[-1] == "LAUNCHED"


def two_letters_of_a_chain_are_replayed() -> None:
    """One of attempt 1's failure, one of a due attempt: they wait under one name."""
    with World(Stack({"MaxAttempts": "2"}), NOW, binds_failures=False) as world:
        world.ecs.errors = [THROTTLED]
        world.begin(load_event(FARGATE))
        while not world.schedules():
            world.step()
        world.crashes = ["before RunTask"] * 3
        world.run()
        world.send_result("Failure", "EventAgeExceeded", load_event(FARGATE), None)
        assert len(world.bus.archive) == 2
        replay_all(world)
        assert outcomes(world)[-3:] == ["SCHEDULED", "ALREADY_SCHEDULED", "LAUNCHED"]


def a_copy_of_an_attempts_event_comes_late() -> None:
    """Half an hour after the first: it gives up when the first would have."""
    with World(Stack(), NOW, failures=1, task_time=timedelta(minutes=1)) as world:
        world.begin(load_event(FARGATE))
        with pytest.MonkeyPatch.context() as patch:
            events: list[Any] = []
            patch.setattr(world, "publish", lambda event, _: events.append(event))
            world.step()
        world.publish(events[0])
        world.run()
        assert outcomes(world)[-1] == "LAUNCHED"
        world.wait(timedelta(minutes=30))
        world.away = {"RunTask": world.now + timedelta(minutes=38)}
        world.invoke(events[0])
        world.run()
        assert len(world.tasks) == 1
        assert outcomes(world)[-1] == "EXPIRED"


def takes_the_wait_of_a_copy_for_its_own(patch: pytest.MonkeyPatch) -> None:
    def payload(event: Any, progress: Any, _: Any) -> str:
        return REAL_WRAP(event, progress, datetime.now(NOW.tzinfo))

    patch.setattr(decision, "wrap", payload)


REAL_WRAP = progress.wrap


def an_attempt_is_throttled_after_a_long_wait() -> None:
    """Its token is not older than the wait was long."""
    patient = {"BackoffBaseSeconds": "36000", "BackoffCapSeconds": "36000"}
    with World(Stack(patient), NOW, failures=1) as world:
        world.begin(load_event(FARGATE))
        while not world.schedules():
            world.step()
        world.ecs.errors = [THROTTLED]
        world.run()
        assert outcomes(world)[-2:] == ["SCHEDULED", "LAUNCHED"]


def counts_from_the_call(patch: pytest.MonkeyPatch) -> None:
    def follow(call: Any, progress: Any, *rest: Any) -> Any:
        return REAL_FOLLOW(call, replace(progress, due=None), *rest)

    patch.setattr(handler, "follow", follow)


def two_stacks_are_over_the_same_jobs() -> None:
    """Jobs whose requests are visible start once, whatever the stacks' budgets are."""
    for failures in range(4):
        with World(Stack({"MaxAttempts": "3"}), NOW, failures=failures) as world:
            world.deploy(Stack({"MaxAttempts": "5"}, name="another"))
            world.begin(load_event(FARGATE))
            world.run()
            assert len(world.tasks) == 1


NUMBERS = iter(range(EVER))


def no_token_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        decision, "client_token", lambda chain, *_, **__: f"{chain.origin}-{next(NUMBERS)}"
    )


# An answer too large for CloudTrail.


def an_answer_is_too_large_for_cloudtrail() -> None:
    """On EC2 it lists a failure for each of 1,200 instances: the rule never sees its event."""
    with World(Stack(), NOW, failures=2, instances=1200, reason="RESOURCE:CPU") as world:
        world.begin(load_event("launched.ec2-mixed-reasons"))
        world.run()
        assert outcomes(world) == ["SCHEDULED", "SCHEDULED", "LAUNCHED"]
        assert world.outcomes[0]["detail"].startswith(
            "ECS placed 0 of 1 tasks, and answered: RESOURCE:CPU. The answer is too large for "
            "CloudTrail. Pending until"
        )


def a_large_answer_is_shown_all_the_same() -> None:
    """Between 90 and 100 KB, its event comes, and meets the schedule."""
    with World(Stack(), NOW, failures=1, instances=880, reason="RESOURCE:CPU") as world:
        world.begin(load_event("launched.ec2-mixed-reasons"))
        world.run()
        assert outcomes(world) == ["SCHEDULED", "ALREADY_SCHEDULED", "LAUNCHED"]


def a_large_answer_is_permanent() -> None:
    """The chain ends where the answer is known; its event, which comes as well, says the same."""
    with World(Stack(), NOW, failures=EVER, instances=910, reason="ATTRIBUTE") as world:
        world.begin(load_event("launched.ec2-mixed-reasons"))
        world.run()
        assert outcomes(world) == ["NOT_RETRYABLE", "NOT_RETRYABLE"]
        assert world.outcomes[0]["attempt"] == "1/10"
        assert len(world.calls) == 1


def keeps_the_old_reasons(patch: pytest.MonkeyPatch) -> None:
    def unseen(call: Any, progress: Any, request: Any, tasks: Any, _: Any, settings: Any) -> Any:
        return REAL_UNSEEN(call, progress, request, tasks, call.reasons, settings)

    patch.setattr(handler, "unseen", unseen)


def takes_every_answer_for_visible(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(launch, "MOST_SHOWN", EVER)


# Time.


def a_replay_starts_a_minute_before_its_first_letter() -> None:
    """Whether the first second of a replay's time is part of it is not known: here it is not."""
    with World(Stack({"MaxAttempts": "1"}), NOW, failures=1) as world:
        world.begin(load_event(FARGATE))
        world.run()
        replay_all(world)
        assert len(world.tasks) == 1


REAL_REPLAY = World.replay
START = re.compile(r"(?<=--event-start-time )\S+")


def replays_from_the_letters_own_second(patch: pytest.MonkeyPatch) -> None:
    def replay(world: World, command: str) -> int:
        margin = remedy.MARGIN.total_seconds()
        return REAL_REPLAY(world, START.sub(lambda m: later(m[0], margin), command))

    def later(time: str, seconds: float) -> str:
        moment = datetime.fromisoformat(time) + timedelta(seconds=seconds)
        return f"{moment:%Y-%m-%dT%H:%M:%SZ}"

    patch.setattr(World, "replay", replay)


# Pulled forward.


def a_duplicate_comes_when_its_attempt_was_pulled_forward() -> None:
    """The schedule fired sooner, and its name is free: when it fires again, the token is alive."""
    patient = {"BackoffBaseSeconds": "7200", "BackoffCapSeconds": "86400"}
    with World(Stack(patient), NOW, failures=1, task_time=timedelta(minutes=1)) as world:
        world.begin(load_event(FARGATE))
        while not world.schedules():
            world.step()
        (made,) = (call["tags"] for call in world.calls)
        another_is_launched(world)
        failed = run_task_event(
            world.calls[0],
            {"tasks": [], "failures": [{"reason": "RESOURCE:CPU"}]},
            event_id="a-duplicate",
            moment=NOW,
            region=world.stack.region,
            account=world.stack.account,
            role_arn=world.stack.function["Role"],
            session=world.stack.function_name,
        )
        assert made == failed["detail"]["requestParameters"]["tags"]
        world.at(world.now + timedelta(minutes=3), lambda: world.deliver(failed))
        world.run()
        assert len(world.tasks) == 1


def a_duplicate_of_an_attempt_that_was_pulled_forward_is_throttled() -> None:
    """It counts the token's life from the earliest time at which the other may have used it."""
    for base in ("900", "3600"):
        for throttles in range(1, 5):
            start_once_though_a_duplicate_is_throttled(base, throttles)


def start_once_though_a_duplicate_is_throttled(base: str, throttles: int) -> None:
    waits = {"BackoffBaseSeconds": base, "BackoffCapSeconds": base}
    with World(Stack(waits), NOW, failures=1, task_time=timedelta(minutes=1)) as world:
        world.begin(load_event(FARGATE))
        with mock.patch.object(world, "deliver", wraps=world.deliver) as deliver:
            while not world.schedules():
                world.step()
        another_is_launched(world)
        while "LAUNCHED" not in outcomes(world):
            world.step()
        world.deliver(deliver.call_args.args[0])
        world.ecs.errors = [THROTTLED] * throttles
        world.run()
        assert len(world.tasks) == 1


def forgets_that_another_may_be_pulled_forward(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decision, "MOST_GAIN", timedelta())


def another_is_launched(world: World) -> None:
    """A job of the same pool, which had waited."""
    event = load_event("launched.second-attempt")
    settings = Settings.read(world.stack.environment, world.stack.function_arn)
    pool = pool_of(event["detail"]["requestParameters"], settings)
    launched = Chain("another", NOW, 2, 10)
    client = handler.forward_client()
    assert list(pull_forward(client, launched, pool, settings, lambda: 100_000))
    world.watch_schedules()


def pulls_forward_by_any_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(forward, "MOST_GAIN", timedelta(days=1))


def an_attempt_that_was_pulled_forward_is_throttled_once() -> None:
    """It costs no budget either: the next one, under the same token, is the last of the budget."""
    parameters = {"MaxAttempts": "2", "BackoffBaseSeconds": "600"}
    with World(Stack(parameters), NOW, failures=1) as world:
        world.begin(load_event(FARGATE))
        while not world.schedules():
            world.step()
        another_is_launched(world)
        world.ecs.errors = [THROTTLED]
        world.run()
        assert outcomes(world) == ["FAILED_AGAIN", "SCHEDULED", "SCHEDULED", "LAUNCHED"]
        assert [outcome["attempt"] for outcome in world.outcomes][-2:] == ["3/3", "3/3"]


def counts_what_was_pulled_forward(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Chain, "pulled_forward", lambda chain, _: chain.one_further())


def a_forwarded_attempt_comes_twice_with_another_payload() -> None:
    """The update arrives when the schedule has fired, and it fires again: one task, one chain."""
    for failures in (1, 2):
        parameters = {"BackoffBaseSeconds": "600"}
        with World(Stack(parameters), NOW, failures=failures) as world:
            world.lingers = timedelta(hours=1)
            world.begin(load_event(FARGATE))
            while not world.schedules():
                world.step()
            world.late_updates, world.is_in_function = [timedelta(minutes=15)], True
            with pytest.raises(ReadTimeoutError):
                another_is_launched(world)
            world.is_in_function = False
            world.run()
            assert len(world.tasks) == 1
            assert world.forwarded, "it has fired twice"
            assert world.bus.archive == []


def takes_another_token_where_it_was_pulled_forward(patch: pytest.MonkeyPatch) -> None:
    def token(chain: Chain, *rest: Any, **more: Any) -> str:
        return REAL_TOKEN(chain, *rest, **more) + ("0" if chain.planned else "")

    patch.setattr(decision, "client_token", token)


REAL_TOKEN = chain.client_token


HOLES: list[tuple[Hole, Mutant]] = [
    (a_duplicate_comes_when_its_attempt_was_pulled_forward, pulls_forward_by_any_time),
    (
        a_duplicate_of_an_attempt_that_was_pulled_forward_is_throttled,
        forgets_that_another_may_be_pulled_forward,
    ),
    (an_attempt_that_was_pulled_forward_is_throttled_once, counts_what_was_pulled_forward),
    (
        a_forwarded_attempt_comes_twice_with_another_payload,
        takes_another_token_where_it_was_pulled_forward,
    ),
    (an_sdk_repeats_a_call_under_its_token, names_each_chain_for_its_event),
    (a_replayed_attempt_comes_twice, reads_the_time_from_the_clock),
    (cloudtrail_shows_no_tokens, writes_no_token_into_a_tag),
    (somebody_is_ahead, waits_as_long_as_the_stack_says),
    (a_duplicate_is_throttled_until_the_token_has_died, lets_tokens_live),
    (a_look_up_fails_where_a_duplicate_has_launched, passes_over_the_token_of_a_failed_look_up),
    (look_ups_fail_for_an_hour_where_a_duplicate_has_launched, lets_look_ups_fail_for_ever),
    (a_look_up_fails_at_a_later_attempt, forgets_what_was_verified),
    (a_late_duplicate_is_thrown_back_for_long, counts_from_its_own_first_use),
    (a_late_duplicate_meets_the_failure_of_the_first, takes_the_next_token_for_fresh),
    (one_token_is_used_in_two_clusters, names_schedules_for_their_chain_alone),
    (services_are_away_for_ten_minutes, nothing_passes),
    (what_a_queue_kept_is_a_letter_that_can_be_replayed, unwraps_requests_outside_of_letters_only),
    (the_stack_is_narrowed_in_mid_chain, looks_at_what_is_covered_first),
    (the_stack_is_renamed_in_mid_chain, leaves_strangers_attempts_alone),
    (a_letter_is_replayed_whose_caller_is_not_covered_any_more, forgets_what_it_took_on),
    (a_replayed_attempt_at_a_permanent_failure_is_throttled, takes_a_throttled_replay_for_a_chain),
    (a_later_replay_is_throttled_once, takes_a_throttled_replay_for_a_chain),
    (two_letters_of_a_chain_are_replayed, names_schedules_for_their_chain_alone),
    (a_copy_of_an_attempts_event_comes_late, takes_the_wait_of_a_copy_for_its_own),
    (an_attempt_is_throttled_after_a_long_wait, counts_from_the_call),
    (two_stacks_are_over_the_same_jobs, no_token_twice),
    (an_answer_is_too_large_for_cloudtrail, takes_every_answer_for_visible),
    (a_large_answer_is_permanent, keeps_the_old_reasons),
    (a_large_answer_is_shown_all_the_same, takes_every_answer_for_visible),
    (a_replay_starts_a_minute_before_its_first_letter, replays_from_the_letters_own_second),
]
NAMES = [hole.__name__ for hole, _ in HOLES]


@pytest.mark.parametrize("hole", [hole for hole, _ in HOLES], ids=NAMES)
def test_it_is_closed(hole: Hole) -> None:
    hole()


@pytest.mark.parametrize(("hole", "mutant"), HOLES, ids=NAMES)
def test_its_mutant_opens_it(hole: Hole, mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        hole()


def test_a_renamed_stack_does_not_look_up_what_its_attempts_had_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempt = attempt_of(Stack(name="before"), load_event(HIDDEN_RULE), monkeypatch)
    with World(Stack(name="after"), NOW, definitions=load_definitions(HIDDEN_RULE)) as world:
        world.deliver(attempt)
        world.run()
        outcome = world.outcomes[-1]
        assert outcome["outcome"] == "NOT_REPLAYABLE"
        assert "an attempt of another stack, or of this one under an earlier" in outcome["detail"]
        assert world.calls == []


def test_a_schedule_that_cannot_be_made_is_lambdas_to_retry_and_then_a_letter() -> None:
    with World(Stack(), NOW, failures=2) as world:
        world.refused["CreateSchedule"] = "ThrottlingException"
        world.begin(load_event(FARGATE))
        world.run()
        assert outcomes(world) == ["FAILED_AGAIN"]
        (letter,) = world.bus.archive
        assert letter["detail"]["responsePayload"]["errorType"] == "ClientError"
        world.refused.clear()
        replay_all(world)
        assert outcomes(world)[-1] == "LAUNCHED"
        assert len(world.tasks) == 1
