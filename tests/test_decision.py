"""Decide: every guard, from a real event changed in one thing."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.model import ShapeResolver, StructureShape

from conftest import NOW
from rehearsal import EVENT_NAMES, load_event
from rehearsal.template import Stack
from retry_run_task.backoff import delay
from retry_run_task.caller import OURS, Caller, caller_of
from retry_run_task.chain import Chain
from retry_run_task.decision import Launch, Stop, Wait, decide
from retry_run_task.failed_call import FailedCall, read_failed_call
from retry_run_task.follow import Token, follow, unseen
from retry_run_task.outcome import Outcome
from retry_run_task.progress import Progress, unwrap
from retry_run_task.request import HIDDEN, NotExact, exact
from retry_run_task.settings import Callers, Settings

SINCE = datetime(2026, 11, 23, 0, 0, 4, tzinfo=UTC)
FARGATE = "launched.fargate-capacity-rule"
SECOND = "launched.second-attempt"

# printf %s arn:aws:ecs:eu-west-1:123456789012:cluster/jobs | sha256sum | head -c 8
# The pool, which is the cluster and FARGATE, and three digits of the origin.
PLACE = "948cbdc2-8b5"

PROGRESS = {field.name for field in fields(Progress)}

# Any, because each test says itself which kind of decision it expects.
Decide = Callable[..., Any]


@pytest.fixture
def decided(settings: Settings, run_task: StructureShape) -> Decide:
    def decide_event(name: str, settings: Settings = settings, **changes: Any) -> Any:
        call = read_failed_call(load_event(name), settings.account, settings.region)
        progress = Progress(**{key: changes.pop(key) for key in PROGRESS & changes.keys()})
        call = replace(call, **changes)
        return decide(call, caller_of(call, settings), progress, settings, NOW, run_task)

    return decide_event


def parameters(name: str, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = load_event(name)["detail"]["requestParameters"]
    return given | changes


def tagged(name: str, **tags: str | None) -> dict[str, Any]:
    """The event's parameters with tags of ours set, or removed by None."""
    ours = {f"retry-run-task:{key.replace('_', '-')}": value for key, value in tags.items()}
    kept = [tag for tag in parameters(name)["tags"] if tag["key"] not in ours]
    added = [{"key": key, "value": value} for key, value in ours.items() if value is not None]
    return parameters(name, tags=kept + added)


def tags_of(request: Any) -> dict[str, str]:
    tags = {tag["key"]: tag["value"] for tag in request["tags"]}
    assert len(tags) == len(request["tags"])
    return tags


@pytest.mark.parametrize("name", [name for name in EVENT_NAMES if not name.startswith("unmatched")])
def test_each_event_file_is_named_for_its_verdict(name: str, decided: Decide) -> None:
    decision = decided(name)
    if isinstance(decision, Launch) and decision.source is not None:
        return  # what comes of it, only the one who looks it up can tell: see test_rehearsal
    verdict = "launched" if isinstance(decision, Launch | Wait) else decision.outcome.lower()
    assert verdict.replace("_", "-") == name.partition(".")[0]


def test_the_first_attempt_is_the_callers_request_with_our_tags_and_token(decided: Decide) -> None:
    decision = decided(FARGATE)
    origin = load_event(FARGATE)["detail"]["eventID"]
    assert decision == Launch(
        Chain(origin, SINCE, 1, 10),
        parameters(FARGATE)
        | {
            "tags": [
                {"key": "team", "value": "finance"},
                {"key": "retry-run-task:attempt", "value": "1/10"},
                {"key": "retry-run-task:origin", "value": origin},
                {"key": "retry-run-task:since", "value": "2026-11-23T00:00:04Z"},
            ],
            "clientToken": f"{origin}-1",
        },
        asked=parameters(FARGATE),
    )


def test_the_next_attempt_counts_on_under_the_same_origin(decided: Decide) -> None:
    origin = load_event(FARGATE)["detail"]["eventID"]
    decision = decided(SECOND, due=NOW)
    assert isinstance(decision, Launch)
    assert decision.chain == Chain(origin, SINCE, 2, 10)
    assert decision.request["clientToken"] == f"{origin}-2"
    assert tags_of(decision.request) == {
        "team": "finance",
        "retry-run-task:attempt": "2/10",
        "retry-run-task:origin": origin,
        "retry-run-task:since": "2026-11-23T00:00:04Z",
    }


def test_the_callers_token_reference_and_aws_tags_are_not_sent_again(decided: Decide) -> None:
    by_sdk = decided("launched.fargate-capacity-sdk-client-token")
    assert "referenceId" not in by_sdk.request
    assert by_sdk.request["clientToken"] != "c5a1f7e0-7b1f-4b62-8a58-3f1f0e9b2d11"
    assert "aws:events:rule-arn" not in tags_of(decided("launched.aws-tags").request)
    shouted = parameters(FARGATE, tags=[{"key": "AWS:Shouted", "value": "x"}])
    assert "AWS:Shouted" not in tags_of(decided(FARGATE, parameters=shouted).request)


def test_what_is_not_sent_again_is_not_judged(decided: Decide) -> None:
    odd = parameters(FARGATE, clientToken=["HIDDEN_DUE_TO_SECURITY_REASONS"], referenceId=7)
    assert decided(FARGATE, parameters=odd) == decided(FARGATE)


def test_absent_parameters_written_as_null_stay_absent(decided: Decide) -> None:
    request = decided("launched.fargate-spot-capacity-provider").request
    assert "cluster" not in request
    assert request["placementStrategy"] == []


@pytest.mark.parametrize(("tag", "end"), [("1", 1), ("20", 20), ("100", 100)])
def test_the_jobs_own_budget_wins_over_the_stacks(tag: str, end: int, decided: Decide) -> None:
    decision = decided(FARGATE, parameters=tagged(FARGATE, max_attempts=tag))
    assert (decision.chain.end, decision.detail) == (end, "")


@pytest.mark.parametrize("tag", ["", "many", "-1", "101", "1e1", " 5", "\u0665"])
def test_an_unreadable_budget_is_reported_and_the_stacks_own_counts(
    tag: str, decided: Decide
) -> None:
    decision = decided(FARGATE, parameters=tagged(FARGATE, max_attempts=tag))
    assert isinstance(decision, Launch)
    assert decision.chain.end == 10
    assert "retry-run-task:max-attempts is not a whole number" in decision.detail


def test_the_budget_of_a_running_chain_is_the_one_it_started_with(
    decided: Decide, settings: Settings
) -> None:
    decision = decided(SECOND, settings=replace(settings, max_attempts=1))
    assert decision.chain.counter == "2/10"


@pytest.mark.parametrize("counter", ["10/10", "11/10"])
def test_a_chain_ends_with_its_budget(counter: str, decided: Decide) -> None:
    decision = decided(SECOND, parameters=tagged(SECOND, attempt=counter))
    assert (decision.outcome, decision.chain.counter) == (Outcome.EXHAUSTED, counter)


@pytest.mark.parametrize(
    "tags",
    [
        {"attempt": None},
        {"attempt": ""},
        {"attempt": "1"},
        {"attempt": "0/10"},
        {"attempt": "01/10"},
        {"attempt": "-1/10"},
        {"attempt": "1/10/10"},
        {"attempt": "1/101"},
        {"attempt": "901/1001"},
        {"attempt": "\u0661/10"},
        {"origin": None},
        {"origin": ""},
        {"origin": "a b"},
        {"origin": "x" * 51},
        {"since": None},
        {"since": "yesterday"},
        {"since": "2026-11-23T00:00:04Z "},
        {"since": "2026-11-23T00:00:04Z yesterday"},
        {"since": " 2026-11-23T00:00:04Z"},
    ],
)
def test_a_counter_that_can_not_be_read_stops_the_chain(
    tags: dict[str, str | None], decided: Decide
) -> None:
    decision = decided(SECOND, parameters=tagged(SECOND, **tags))
    assert decision.outcome is Outcome.NOT_REPLAYABLE
    assert f"tags[retry-run-task:{next(iter(tags))}]" in decision.detail
    assert decision.chain.counter == "unknown/10"


@pytest.mark.parametrize("lost", ["attempt", "origin", "since"])
def test_half_a_chain_stops_whoever_calls(lost: str, decided: Decide) -> None:
    chain: dict[str, str | None] = {
        "attempt": "1/10",
        "origin": "0123",
        "since": "2026-11-23T00:00:04Z",
    }
    ours = {"clientToken": "0123-1"}
    assert isinstance(decided(FARGATE, parameters=tagged(FARGATE, **chain) | ours), Wait)
    decision = decided(FARGATE, parameters=tagged(FARGATE, **chain | {lost: None}))
    assert decision.outcome is Outcome.NOT_REPLAYABLE
    assert f"tags[retry-run-task:{lost}]" in decision.detail


@pytest.mark.parametrize("counter", ["1/100", "901/1000"])
def test_the_longest_budget_can_be_read(counter: str, decided: Decide) -> None:
    decision = decided(SECOND, parameters=tagged(SECOND, attempt=counter))
    assert isinstance(decision, Wait)


@pytest.mark.parametrize(
    ("token", "expected"),
    [("0123-1", Wait), (None, Wait), (HIDDEN, Wait), ("of-its-own", Stop), ("012-1", Stop)],
)
def test_tags_that_were_copied_to_another_task_do_not_make_it_part_of_the_chain(
    token: str | None, expected: type, decided: Decide
) -> None:
    # Its attempts would meet the tokens of the first task's, and it would never run.
    chain = tagged(SECOND, origin="0123") | {"clientToken": token}
    decision = decided(SECOND, parameters=chain)
    assert isinstance(decision, expected)
    if isinstance(decision, Stop):
        assert decision.outcome is Outcome.NOT_REPLAYABLE
        assert "tags[retry-run-task:origin] was copied from another task" in decision.detail


@pytest.mark.parametrize(
    ("token", "outcome"),
    [
        (None, Outcome.NOT_REPLAYABLE),
        ("0123-1", Outcome.NOT_REPLAYABLE),
        ("of-its-own", Outcome.LEFT_ALONE),
    ],
)
def test_of_callers_that_are_not_covered_an_attempt_alerts_a_person_and_copied_tags_do_not(
    token: str | None, outcome: Outcome, decided: Decide, settings: Settings
) -> None:
    sdk = "launched.fargate-capacity-sdk-client-token"
    chain = tagged(SECOND, origin="0123")["tags"]
    decision = decided(
        sdk,
        settings=replace(settings, callers=Callers.SCHEDULED),
        parameters=parameters(sdk, tags=chain, clientToken=token),
    )
    assert decision.outcome is outcome


@pytest.mark.parametrize("token", [None, HIDDEN])
def test_a_strangers_chain_without_a_client_token_is_not_believed(
    token: str | None, decided: Decide
) -> None:
    chain = {"attempt": "1/10", "origin": "0123", "since": "2026-11-23T00:00:04Z"}
    decision = decided(FARGATE, parameters=tagged(FARGATE, **chain) | {"clientToken": token})
    assert decision.outcome is Outcome.NOT_REPLAYABLE
    assert "tags[retry-run-task:origin] cannot be verified" in decision.detail


def test_two_counters_are_as_good_as_none(decided: Decide) -> None:
    twice = parameters(SECOND)
    twice["tags"] = twice["tags"] + [{"key": "retry-run-task:attempt", "value": "1/10"}]
    assert decided(SECOND, parameters=twice).outcome is Outcome.NOT_REPLAYABLE


def test_a_call_of_our_own_without_a_counter_stops_the_chain(decided: Decide) -> None:
    decision = decided("not-replayable.own-call-without-counter")
    assert decision.outcome is Outcome.NOT_REPLAYABLE
    assert "tags[retry-run-task:attempt] is missing from a call of this function" in decision.detail


@pytest.mark.parametrize(
    "reason",
    [
        "ATTRIBUTE",
        "LOCATION",
        "MISSING",
        "INACTIVE",
        "The requested CPU configuration is above your limit",
        "The requested MEMORY configuration is above your limit",
    ],
)
def test_permanent_reasons_are_not_retried_unless_another_one_may_pass(
    reason: str, decided: Decide
) -> None:
    assert decided(FARGATE, reasons=(reason,)).outcome is Outcome.NOT_RETRYABLE
    assert isinstance(decided(FARGATE, reasons=(reason, "RESOURCE:CPU")), Launch)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"overrides": "HIDDEN_DUE_TO_SECURITY_REASONS"}, "overrides is hidden by CloudTrail"),
        ({"group": "HIDDEN_DUE_TO_SECURITY_REASONS"}, "group is hidden by CloudTrail"),
        ({"group": "a HIDDEN_DUE_TO_SECURITY_REASONS"}, "group is hidden by CloudTrail"),
        ({"taskDefinition": None}, "taskDefinition is missing"),
        ({"omitted": True}, "omitted is unknown to botocore's model"),
        ({"a secret": 1}, "a member with an odd name is unknown"),
        ({"count": "1"}, "count is not of type integer"),
        ({"count": True}, "count is not of type integer"),
        ({"count": 1.0}, "count is not of type integer"),
        ({"enableExecuteCommand": 0}, "enableExecuteCommand is not of type boolean"),
        ({"cluster": ["jobs"]}, "cluster is not of type string"),
        ({"networkConfiguration": []}, "networkConfiguration is not an object"),
        ({"placementStrategy": {}}, "placementStrategy is not a list"),
        ({"placementConstraints": [None]}, "placementConstraints[0] is not an object"),
        ({"tags": "team=finance"}, "tags is not a list"),
        ({"tags": [{"key": "team", "value": 7}]}, "tags[0].value is not of type string"),
        ({"tags": [{"key": "", "value": "x"}]}, "tags[0].key is below the least"),
        (
            {"capacityProviderStrategy": [{"weight": 1}]},
            "capacityProviderStrategy[0].capacityProvider is missing",
        ),
        (
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": -1}]},
            "capacityProviderStrategy[0].weight is below the least",
        ),
        (
            {"overrides": {"containerOverrides": [{"command": ["echo", 1]}]}},
            "overrides.containerOverrides[0].command[1] is not of type string",
        ),
    ],
)
def test_a_request_that_can_not_be_repeated_exactly_is_not_repeated(
    change: dict[str, Any], problem: str, decided: Decide
) -> None:
    decision = decided(FARGATE, parameters=parameters(FARGATE, **change))
    assert decision.outcome is Outcome.NOT_REPLAYABLE
    assert problem in decision.detail


def test_a_union_has_exactly_one_member() -> None:
    # RunTask's newest members hold one, but Lambda's botocore may be older than they are.
    members = {"a": {"shape": "S"}, "b": {"shape": "S"}}
    shapes: Any = {"U": {"type": "structure", "union": True, "members": members}}
    union = ShapeResolver(shapes | {"S": {"type": "string"}}).get_shape_by_name("U")
    assert exact({"a": "x", "b": None}, union) == {"a": "x"}
    for value in ({}, {"a": "x", "b": "y"}):
        with pytest.raises(NotExact, match="does not have exactly one member"):
            exact(value, union)


def test_the_refusal_names_the_parameter_and_never_its_value(decided: Decide) -> None:
    secret = {"overrides": {"containerOverrides": [{"command": "hunter2"}]}}
    decision = decided(FARGATE, parameters=parameters(FARGATE, **secret))
    assert "overrides.containerOverrides[0].command is not a list" in decision.detail
    assert "hunter2" not in decision.detail


def test_our_tags_need_room(decided: Decide) -> None:
    assert len(decided("launched.47-user-tags").request["tags"]) == 50
    assert "tags has no room for 3 more" in decided("not-replayable.48-user-tags").detail


def test_a_chain_of_ours_asks_for_the_missing_tasks_only(decided: Decide) -> None:
    decision = decided("launched.partial-placement-of-our-own", due=NOW)
    assert (decision.request["count"], decision.chain.counter) == (2, "2/10")


def test_a_callers_partly_placed_call_is_left_alone_unless_the_stack_says_otherwise(
    decided: Decide, settings: Settings
) -> None:
    name = "left-alone.partial-placement"
    assert decided(name).outcome is Outcome.LEFT_ALONE
    decision = decided(name, settings=replace(settings, retry_partial_failures=True))
    assert (decision.request["count"], decision.chain.counter) == (2, "1/10")


def test_nothing_is_asked_for_where_nothing_is_missing(decided: Decide) -> None:
    decision = decided("launched.partial-placement-of-our-own", tasks=tuple("abcde"))
    assert decision.outcome is Outcome.ALREADY_LAUNCHED


def test_a_replay_extends_the_budget_and_restarts_the_age(decided: Decide) -> None:
    # The time is that of the schedule, in which all copies of this attempt have waited.
    due = NOW - timedelta(seconds=31)
    decision = decided("exhausted.last-attempt", replay_name="monday", due=due)
    asked = tags_of(parameters("exhausted.last-attempt"))
    since = asked["retry-run-task:since"]
    first = datetime.fromisoformat(since)
    assert decision.chain == Chain(asked["retry-run-task:origin"], first, 11, 20, due)
    assert tags_of(decision.request)["retry-run-task:since"] == f"{since} 2026-11-23T00:00:59Z"


def test_a_replay_gives_the_jobs_own_budget_where_it_has_one(decided: Decide) -> None:
    call = tagged("exhausted.last-attempt", max_attempts="5")
    decision = decided("exhausted.last-attempt", parameters=call, replay_name="monday")
    assert decision.chain.counter == "11/15"


def test_a_replayed_first_call_starts_its_chain(decided: Decide) -> None:
    assert decided(FARGATE, replay_name="monday").chain.counter == "1/10"


def test_a_call_outside_of_what_the_stack_was_narrowed_to_is_left_alone(decided: Decide) -> None:
    narrow = Stack({"ClusterArns": "arn:aws:ecs:eu-west-1:123456789012:cluster/other"})
    decision = decided(FARGATE, settings=Settings.read(narrow.environment, narrow.function_arn))
    assert isinstance(decision, Stop)
    assert decision.outcome is Outcome.LEFT_ALONE


def test_a_call_inside_of_what_the_stack_was_narrowed_to_is_retried(decided: Decide) -> None:
    narrow = Stack({"ClusterArns": "arn:aws:ecs:eu-west-1:123456789012:cluster/jobs"})
    decision = decided(FARGATE, settings=Settings.read(narrow.environment, narrow.function_arn))
    assert isinstance(decision, Launch)


def test_a_request_that_was_omitted_is_reported_even_by_a_narrowed_stack(decided: Decide) -> None:
    narrow = Stack({"ClusterArns": "arn:aws:ecs:eu-west-1:123456789012:cluster/other"})
    decision = decided(
        "not-replayable.omitted-parameters",
        settings=Settings.read(narrow.environment, narrow.function_arn),
    )
    assert decision.outcome is Outcome.NOT_REPLAYABLE


def test_deciding_twice_gives_the_same_request(
    settings: Settings, run_task: StructureShape
) -> None:
    call: FailedCall = read_failed_call(load_event(FARGATE), settings.account, settings.region)
    caller = caller_of(call, settings)
    once, twice = (decide(call, caller, Progress(), settings, NOW, run_task) for _ in range(2))
    assert once == twice


# When: attempts 2 and up wait, and everything is decided again when the wait is over.


def test_the_first_attempt_is_made_at_once_and_the_second_waits(decided: Decide) -> None:
    assert isinstance(decided(FARGATE), Launch)
    wait = decided(SECOND)
    assert isinstance(wait, Wait)
    assert wait.name == f"{PLACE}-{wait.chain.origin}-2"
    assert wait.until == NOW + timedelta(seconds=93)  # 60 to 120


@pytest.mark.parametrize("made", [1, 2, 5, 9])
def test_each_attempt_waits_for_a_time_of_its_own(
    made: int, decided: Decide, settings: Settings
) -> None:
    wait = decided(SECOND, parameters=tagged(SECOND, attempt=f"{made}/10"))
    name = f"{wait.chain.origin}-{made + 1}"
    own = delay(name, made + 1, settings.backoff_base, settings.backoff_cap)
    assert own <= wait.until - NOW < own + timedelta(seconds=1)


def test_what_waits_is_the_failed_call_itself(
    decided: Decide, settings: Settings, run_task: StructureShape
) -> None:
    event, progress = unwrap(json.loads(decided(SECOND).payload))
    call = read_failed_call(event, settings.account, settings.region)
    again = decide(call, caller_of(call, settings), progress, settings, NOW, run_task)
    assert again == decided(SECOND, due=NOW)


def test_a_wait_ends_in_whole_seconds_and_never_early(
    settings: Settings, run_task: StructureShape
) -> None:
    call = read_failed_call(load_event(SECOND), settings.account, settings.region)
    later = NOW + timedelta(microseconds=1)
    wait = decide(call, caller_of(call, settings), Progress(), settings, later, run_task)
    assert isinstance(wait, Wait)
    assert wait.until == NOW + timedelta(seconds=93)  # more than 92
    later = NOW + timedelta(milliseconds=999)
    wait = decide(call, caller_of(call, settings), Progress(), settings, later, run_task)
    assert isinstance(wait, Wait)
    assert wait.until == NOW + timedelta(seconds=94)


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"parameters": tagged(SECOND, attempt="10/10")}, Outcome.EXHAUSTED),
        ({"parameters": tagged(SECOND, max_attempts="0")}, Outcome.OPTED_OUT),
        ({"reasons": ("ATTRIBUTE",)}, Outcome.NOT_RETRYABLE),
        ({"parameters": tagged(SECOND, since="2026-11-22T22:00:00Z")}, Outcome.EXPIRED),
    ],
)
def test_a_due_attempt_is_decided_again(
    change: dict[str, Any], outcome: Outcome, decided: Decide, settings: Settings
) -> None:
    limited = replace(settings, max_age=timedelta(hours=2))
    assert decided(SECOND, settings=limited, due=NOW, **change).outcome is outcome
    assert isinstance(decided(SECOND, settings=limited, due=NOW), Launch)


@pytest.mark.parametrize(
    ("max_age", "expected"),
    [
        (None, Wait),
        # 00:00:04 is when the job failed, 00:01:30 is now, 00:03:03 is when it would be due.
        (timedelta(seconds=179), Wait),
        (timedelta(seconds=178), Stop),
        (timedelta(seconds=60), Stop),
    ],
)
def test_an_attempt_that_would_be_due_too_late_is_not_made(
    max_age: timedelta | None, expected: type, decided: Decide, settings: Settings
) -> None:
    decision = decided(SECOND, settings=replace(settings, max_age=max_age))
    assert isinstance(decision, expected)
    if isinstance(decision, Stop):
        assert decision.outcome is Outcome.EXPIRED


def test_a_replay_restarts_the_age(decided: Decide, settings: Settings) -> None:
    limited = replace(settings, max_age=timedelta(minutes=30))
    old = tagged("exhausted.last-attempt", since="2020-01-01T00:00:00Z")
    again = decided("exhausted.last-attempt", settings=limited, parameters=old, replay_name="r")
    assert isinstance(again, Wait)


def test_a_request_that_is_too_large_for_a_schedule_is_asked_for_at_once(decided: Decide) -> None:
    def with_command(text: str) -> Any:
        parameters = tagged(SECOND)
        parameters["overrides"]["containerOverrides"][0]["command"] = [text]
        return decided(SECOND, parameters=parameters)

    # What counts are bytes of UTF-8: Scheduler's limit is 256 KB.
    room = 256_000 - len(with_command("").payload.encode())
    assert len(with_command("é" * (room // 2)).payload.encode()) in (255_999, 256_000)
    assert isinstance(with_command("x" * room), Wait)
    assert isinstance(with_command("x" * (room + 1)), Launch)


def test_text_that_is_no_unicode_can_wait_as_well(decided: Decide) -> None:
    odd = parameters(SECOND, group="\ud800")
    assert isinstance(decided(SECOND, parameters=odd), Wait)


@pytest.fixture
def followed(
    settings: Settings, run_task: StructureShape
) -> Callable[..., tuple[FailedCall, Progress]]:
    """What is decided on after an attempt at a call that came to nothing, without an event."""

    def follow_call(
        call: FailedCall, progress: Progress, token: Token
    ) -> tuple[FailedCall, Progress]:
        caller, due = caller_of(call, settings), replace(progress, due=NOW)
        launch = decide(call, caller, due, settings, NOW, run_task)
        assert isinstance(launch, Launch)
        return follow(call, progress, launch.request, token)

    return follow_call


@pytest.mark.parametrize("token", Token)
def test_an_attempt_that_failed_without_an_event_is_followed_by_the_next_one(
    token: Token, settings: Settings, run_task: StructureShape, followed: Callable[..., Any]
) -> None:
    call = read_failed_call(load_event(FARGATE), settings.account, settings.region)
    call, progress = followed(call, Progress(), token)
    wait = decide(call, caller_of(call, settings), progress, settings, NOW, run_task)
    assert isinstance(wait, Wait)
    assert (wait.name, wait.chain.counter) == (f"{PLACE}-{call.event_id}-2", "2/10")


def test_no_token_is_passed_over(
    settings: Settings, run_task: StructureShape, followed: Callable[..., Any]
) -> None:
    # Otherwise duplicates of one chain could both start the job, each under its own token.
    call = read_failed_call(load_event(FARGATE), settings.account, settings.region)
    progress = Progress()
    tokens = []
    for token in (Token.UNSENT, Token.SENT, Token.TAKEN, Token.SENT, Token.UNSENT, Token.TAKEN):
        caller, due = caller_of(call, settings), replace(progress, due=NOW)
        launch = decide(call, caller, due, settings, NOW, run_task)
        assert isinstance(launch, Launch)
        tokens.append((launch.chain.attempt, launch.request["clientToken"][-2:]))
        call, progress = followed(call, progress, token)
    assert tokens == [(1, "-1"), (2, "-1"), (3, "-1"), (4, "-2"), (5, "-2"), (6, "-2")]


def test_what_no_event_tells_of_is_decided_on_as_a_failed_call_of_our_own(
    decided: Decide, settings: Settings
) -> None:
    call = read_failed_call(load_event(FARGATE), settings.account, settings.region)
    request = decided(FARGATE).request
    own = unseen(call, Progress(due=NOW), request, ("arn",), ("RESOURCE:CPU",), settings)
    assert caller_of(own, settings) == Caller(OURS, None)
    assert (own.event_time, own.tasks, own.reasons) == (NOW, ("arn",), ("RESOURCE:CPU",))
    assert own.parameters == request


def test_a_schedules_name_tells_clusters_apart_however_they_are_named(decided: Decide) -> None:
    names = {
        decided(SECOND, parameters=parameters(SECOND, cluster=cluster)).name
        for cluster in ("jobs", parameters(SECOND)["cluster"])
    }
    assert len(names) == 1
    assert decided(SECOND, parameters=parameters(SECOND, cluster=None)).name not in names


def test_the_token_of_a_failed_call_is_spent(decided: Decide) -> None:
    origin = load_event(FARGATE)["detail"]["eventID"]
    for used, next_one in ((f"{origin}-1", "2"), (None, "5"), (f"{origin}-9", "5")):
        event = tagged(SECOND, attempt="4/10") | {"clientToken": used}
        attempt = decided(SECOND, parameters=event, due=NOW)
        assert attempt.request["clientToken"] == f"{origin}-{next_one}"


def test_where_there_is_no_room_for_the_tokens_tag_it_is_left_out(decided: Decide) -> None:
    full = decided("launched.47-user-tags").request
    again = decided("launched.47-user-tags", parameters=full, begun=True, unspent=True, due=NOW)
    assert again.request["clientToken"] == full["clientToken"]
    assert len(again.request["tags"]) == 50
    assert "retry-run-task:token" not in tags_of(again.request)


@pytest.mark.parametrize("shown", [True, False])
def test_a_tag_tells_the_token_where_the_number_of_the_attempt_does_not(
    shown: bool, decided: Decide, followed: Callable[..., Any], settings: Settings
) -> None:
    # Attempt 2 uses the token of attempt 1 again, and fails. Its event may not show the token.
    call = read_failed_call(load_event(FARGATE), settings.account, settings.region)
    call, _ = followed(call, Progress(), Token.SENT)
    request = decided(
        FARGATE, parameters=call.parameters, begun=True, unspent=True, due=NOW
    ).request
    assert request["clientToken"] == f"{call.event_id}-1"
    assert tags_of(request)["retry-run-task:token"] == f"{call.event_id}-1"
    failed = request | ({} if shown else {"clientToken": None})
    arn = settings.session_arn
    third = decided(FARGATE, parameters=failed, caller_arn=arn, due=NOW).request
    assert third["clientToken"] == f"{call.event_id}-2"
    assert tags_of(third)["retry-run-task:token"] == f"{call.event_id}-2"


def test_an_attempt_under_a_token_that_is_not_spent_does_not_wait_until_the_token_has_died(
    decided: Decide, settings: Settings
) -> None:
    # Nor does a longer wait of the stack's make it longer.
    patient = replace(settings, backoff_base=timedelta(hours=5), backoff_cap=timedelta(hours=9))
    spent = decided(SECOND, settings=patient)
    unspent = decided(SECOND, settings=patient, unspent=True, first_use=NOW)
    assert spent.until - NOW > timedelta(hours=2)
    assert unspent.until - NOW <= timedelta(minutes=30)


def test_what_waits_knows_that_its_token_is_unspent(
    settings: Settings, run_task: StructureShape, followed: Callable[..., Any]
) -> None:
    event = read_failed_call(load_event(FARGATE), settings.account, settings.region)
    call, progress = followed(event, Progress(), Token.SENT)
    wait = decide(call, caller_of(call, settings), progress, settings, NOW, run_task)
    assert isinstance(wait, Wait)
    due, progress = unwrap(json.loads(wait.payload))
    call = read_failed_call(due, settings.account, settings.region)
    launch = decide(call, caller_of(call, settings), progress, settings, NOW, run_task)
    assert isinstance(launch, Launch)
    assert launch.request["clientToken"] == f"{event.event_id}-1"
