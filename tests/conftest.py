"""What the tests share: the real settings of a default stack, and RunTask's real model."""

from rehearsal.isolation import isolate

isolate()  # before anything imports boto3

import gc
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, cast
from unittest import mock

import boto3
import botocore.session
import pytest
from botocore.model import StructureShape
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from moto.core.authorization import enable_iam_authentication

from rehearsal.template import Stack
from retry_run_task.settings import Settings

# Reproducible runs, in CI too: no deadline on a shared machine, no random seed.
hypothesis_settings.register_profile(
    "project",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# Hours instead of minutes, and other examples in each run (see the README, "Develop").
hypothesis_settings.register_profile(
    "long",
    parent=hypothesis_settings.get_profile("project"),
    derandomize=False,
    max_examples=1500,
    stateful_step_count=40,
    print_blob=True,
)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "project"))

NOW = datetime(2026, 11, 23, 0, 1, 30, tzinfo=UTC)

# Beside the members of a failed call's event: an attempt that is due now.
DUE_NOW = {"retry-run-task:due": {"at": "2026-11-23T00:01:30Z", "unspent": False}}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest ones first, so that no core waits for another at the end."""
    items.sort(key=lambda item: not item.name.startswith(LONGEST))


LONGEST = ("test_the_safeguards_hold", "test_the_storm_goes", "test_jobs_run_soon")


def pytest_collection_finish() -> None:
    """Python looks for garbage less often, and not among what is imported: a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture(scope="session")
def stack() -> Stack:
    return Stack()


@pytest.fixture(scope="session")
def settings(stack: Stack) -> Settings:
    return Settings.read(stack.environment, stack.function_arn)


@pytest.fixture(scope="session")
def run_task() -> StructureShape:
    model = botocore.session.get_session().get_service_model("ecs").operation_model("RunTask")
    return cast("StructureShape", model.input_shape)


@pytest.fixture(autouse=True)
def _usual_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever terminal the tests run in."""
    monkeypatch.setenv("COLUMNS", "100")


def replay_command(stack: Stack, start: datetime, end: datetime) -> str:
    """The output StartReplayCommand, as an operator fills it in."""
    command: str = stack.outputs["StartReplayCommand"]["Value"]
    for word, moment in (("START", start), ("END", end)):
        command = command.replace(f"time {word}", f"time {moment:%Y-%m-%dT%H:%M:%SZ}")
    return command


def run_command(
    main: Callable[[Sequence[str]], int],
    *arguments: str,
    encoding: str = "utf-8",
    stdin: bytes = b"",
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a console script."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2)]
    held = io.TextIOWrapper(io.BytesIO(stdin))
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]), mock.patch("sys.stdin", held):
        try:
            status = main(arguments)
        except SystemExit as stopped:
            status = int(str(stopped.code))
    out, error = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    return status, out, error


def looked_up(*records: Mapping[str, Any]) -> dict[str, Any]:
    """What `aws cloudtrail lookup-events` prints of these records."""
    return {
        "Events": [
            {
                "EventId": record["eventID"],
                "EventName": record["eventName"],
                "EventTime": "2026-11-23T01:00:04+01:00",
                "EventSource": record["eventSource"],
                "Resources": [],
                "CloudTrailEvent": json.dumps(record),
            }
            for record in records
        ]
    }


@contextmanager
def enforcing(statements: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """In moto's account, enforce IAM on a caller with the actions of these statements.

    moto knows neither their resources nor their conditions: those are checked directly.
    """
    everywhere = [
        {"Effect": s["Effect"], "Action": s["Action"], "Resource": "*"} for s in statements
    ]
    policy = {"Version": "2012-10-17", "Statement": everywhere}
    iam, name = boto3.client("iam"), "function"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="template", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    with pytest.MonkeyPatch.context() as patch, enable_iam_authentication():
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        patch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials it started with
        yield


def unavailable(reason: str) -> NoReturn:
    """A tool that a test needs is not here: a reason to skip, but not where it must be (CI)."""
    if os.environ.get("REQUIRE_RUNTIME"):
        pytest.fail(reason)
    pytest.skip(reason)


def uv(*arguments: str | Path) -> str:
    """What a command of uv prints: tools with strict pins have environments of their own."""
    command = [shutil.which("uv") or unavailable("uv is not installed"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        unavailable(f"uv {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout.strip()
