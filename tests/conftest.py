"""What the tests share: the real settings of a default stack, and RunTask's real model."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast
from unittest import mock

import botocore.session
import pytest
from botocore.model import StructureShape
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

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


@pytest.fixture(scope="session", autouse=True)
def _no_account() -> Iterator[None]:
    """Whatever the developer's shell holds, no test can reach an account."""
    empty = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    with mock.patch.dict(os.environ, kept | empty, clear=True):
        yield
