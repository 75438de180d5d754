"""The deployed folder as Lambda runs it: AWS's emulator and runtime client, Powertools as a layer.

The function's AWS is moto's server: boto3 sends it real HTTP requests.
"""

import http.client
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self, cast
from unittest import mock

import pytest
from moto.core.base_backend import BackendDict
from moto.ecs.exceptions import ECSException
from moto.scheduler.models import scheduler_backends
from moto.server import ThreadedMotoServer
from moto.sns.models import sns_backends

from conftest import unavailable, uv
from rehearsal import ROOT, load_event
from rehearsal.ecs import ScarceEcs
from rehearsal.template import Stack

# The emulator has an account and a Region of its own, whatever its environment says.
STACK = Stack(account="012345678912", region="us-east-1")
PYTHON_VERSION = STACK.function["Runtime"].removeprefix("python")
LOCALHOST = "127.0.0.1"
INVOCATIONS = "/2015-03-31/functions/function/invocations"  # the emulator's only path

FARGATE = "launched.fargate-capacity-rule"
ORIGIN = load_event(FARGATE)["detail"]["eventID"]
SAM_CLI = "aws-sam-cli>=1.170,<2"
WHERE_SAM_IS = "import samcli, pathlib; print(pathlib.Path(samcli.__file__).parent)"


def python() -> str:
    """Lambda's version of Python where the machine has it, else the one that runs the tests."""
    command = [shutil.which("uv") or "uv", "python", "find", "--system", PYTHON_VERSION]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode == 0:
        return found.stdout.strip()
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return str(next(pyenv.glob(f"versions/{PYTHON_VERSION}.*/bin/python"), sys.executable))


@dataclass(frozen=True)
class Tools:
    """What Lambda brings along: the emulator, Python with boto3, and Powertools' layer apart."""

    emulator: Path
    python: Path
    layer: Path


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    machine = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine())
    sam = uv("tool", "run", "--quiet", "--from", SAM_CLI, "python", "-c", WHERE_SAM_IS)
    emulator = Path(sam, "local", "rapid", f"aws-lambda-rie-{machine}")
    if sys.platform != "linux" or not emulator.exists():
        unavailable(f"There is no emulator for {sys.platform} on {platform.machine()}.")
    folder = tmp_path_factory.mktemp("runtime")
    tools = Tools(emulator, folder / "venv" / "bin" / "python", folder / "layer" / "python")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    powertools, boto3 = project["dependencies"]
    install = ("pip", "install", "--quiet", "--no-build", "--python", tools.python)
    uv("venv", "--quiet", "--python", python(), folder / "venv")
    uv(*install, "awslambdaric>=4.2,<5", boto3)
    uv(*install, "--target", tools.layer, powertools)
    return tools


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of moto's server; `ecs` empties what is behind it."""
    environment = {"MOTO_ACCOUNT_ID": STACK.account, "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"}
    with mock.patch.dict(os.environ, environment):
        server = ThreadedMotoServer(LOCALHOST, 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


class Lambda:
    """One execution environment with a function of the stack in it, as a context manager."""

    def __init__(self, name: str, tools: Tools, endpoint: str, stdout: Path) -> None:
        self.tools, self.stdout = tools, stdout
        function = STACK.resources[name]["Properties"]
        self.handler, self.code = function["Handler"], ROOT / function["CodeUri"]
        layers = {"PYTHONPATH": str(tools.layer)} if "Layers" in function else {}
        self.environment = STACK.environment_of(name) | {
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function["MemorySize"]),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(function["Timeout"]),
            "AWS_LAMBDA_LOG_FORMAT": function["LoggingConfig"]["LogFormat"],
            # The default of JSON (Lambda developer guide, "Log-level filtering").
            "AWS_LAMBDA_LOG_LEVEL": function["LoggingConfig"].get("ApplicationLogLevel", "INFO"),
            "HOME": str(stdout.parent),  # no developer's ~/.aws
            "PYTHONDONTWRITEBYTECODE": "1",  # Lambda mounts the folder read-only
            **layers,
        }
        self.address = LOCALHOST, free_port()

    def __enter__(self) -> Self:
        host, port = self.address
        command = [
            self.tools.emulator,
            *("--runtime-interface-emulator-address", f"{host}:{port}"),
            *("--runtime-api-address", f"{host}:{free_port()}"),
            *(self.tools.python, "-m", "awslambdaric", self.handler),
        ]
        self.output = self.stdout.open("wb")
        self.process = subprocess.Popen(  # noqa: S603
            command, cwd=self.code, env=self.environment, stdout=self.output, stderr=self.output
        )
        self.wait_until_it_listens()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        self.output.close()

    def invoke(self, payload: dict[str, Any]) -> dict[str, Any]:
        """What the function returns, or the error that Lambda makes of what it raises."""
        with closing(http.client.HTTPConnection(*self.address, timeout=60)) as connection:
            connection.request("POST", INVOCATIONS, json.dumps(payload))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer

    def wait_until_it_listens(self) -> None:
        """In real time, unlike all else here: it is another program that starts."""
        while True:
            assert self.process.poll() is None, self.written()
            with suppress(ConnectionRefusedError), socket.create_connection(self.address):
                return
            time.sleep(0.01)

    def written(self) -> str:
        return self.stdout.read_text("utf-8")

    def lines(self) -> list[dict[str, Any]]:
        """The function's own log: JSON, one object a line, between the emulator's lines."""
        lines = self.written().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOCALHOST, 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def runtime(
    tools: Tools, endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lambda]:
    stdout = tmp_path_factory.mktemp("lambda") / "stdout"
    with Lambda("RetryRunTask", tools, endpoint, stdout) as runtime:
        yield runtime


@pytest.fixture
def ecs(runtime: Lambda) -> Iterator[ScarceEcs]:
    """The ECS that the function asks: new in each test, as its twins elsewhere are."""
    del runtime  # which is to start first
    calls = ScarceEcs(STACK.account, STACK.region, lambda *_: None, lambda: datetime.now(UTC))
    with calls.in_place_of_motos():
        yield calls


def event(name: str) -> dict[str, Any]:
    """An event of the emulator's account and Region."""
    given = load_event(name)
    text = json.dumps(given).replace(given["account"], STACK.account)
    moved: dict[str, Any] = json.loads(text.replace(given["region"], STACK.region))
    return moved


def test_the_runtime_is_that_of_the_template_and_has_powertools_from_its_layer_only(
    tools: Tools, tmp_path: Path
) -> None:
    code = "import sys, boto3; print(*sys.version_info[:2], sep='.'); import aws_lambda_powertools"
    run = partial(subprocess.run, capture_output=True, text=True, check=False, cwd=tmp_path)
    alone = run([str(tools.python), "-c", code], env={})
    # Where the machine has no Python of that version, the one that runs the tests stands in.
    here = ".".join(map(str, sys.version_info[:2]))
    assert alone.stdout.strip() in (PYTHON_VERSION, here)
    assert "No module named 'aws_lambda_powertools'" in alone.stderr
    assert run([str(tools.python), "-c", code], env={"PYTHONPATH": str(tools.layer)}).stderr == ""


def test_a_launch(runtime: Lambda, ecs: ScarceEcs) -> None:
    outcome = runtime.invoke(event(FARGATE))
    assert (outcome["outcome"], outcome["attempt"]) == ("LAUNCHED", "1/10")
    assert outcome["tasks"] == ecs.tasks
    assert len(ecs.tasks) == 1
    logged, measured = runtime.lines()[-2:]
    assert {key: logged[key] for key in outcome} == outcome
    assert logged["correlation_id"] == ORIGIN
    assert measured["LAUNCHED"] == [1.0]


def test_the_log_is_the_functions_own_lines(runtime: Lambda, ecs: ScarceEcs) -> None:
    assert runtime.invoke(event(FARGATE))["outcome"] == "LAUNCHED"
    assert len(ecs.tasks) == 1
    strangers = [line for line in runtime.lines() if line.get("service") != "retry-run-task"]
    assert [line for line in strangers if line.get("level") == "INFO"] == []


def test_a_failure(runtime: Lambda, ecs: ScarceEcs) -> None:
    ecs.failures = 1
    outcome = runtime.invoke(event(FARGATE))
    assert (outcome["outcome"], outcome["tasks"], ecs.tasks) == ("FAILED_AGAIN", [], [])


@pytest.mark.usefixtures("ecs")
def test_a_schedule(runtime: Lambda) -> None:
    groups = cast("BackendDict[Any]", scheduler_backends)[STACK.account][STACK.region]
    groups.create_schedule_group(STACK.environment["SCHEDULE_GROUP"], {})
    before = datetime.now(UTC)
    outcome = runtime.invoke(event("launched.second-attempt"))
    assert (outcome["outcome"], outcome["attempt"]) == ("SCHEDULED", "2/10")
    (schedule,) = groups.schedule_groups[STACK.environment["SCHEDULE_GROUP"]].schedules.values()
    assert schedule.name.endswith(f"-{ORIGIN}-2")
    until = datetime.fromisoformat(schedule.schedule_expression[3:-1]).replace(tzinfo=UTC)
    assert 60 <= (until - before).total_seconds() <= 120
    # The schedule's input is what the function is invoked with when the wait is over.
    due = runtime.invoke(json.loads(schedule.target["Input"]))
    assert (due["outcome"], due["attempt"]) == ("LAUNCHED", "2/10")


def test_a_crash(runtime: Lambda, ecs: ScarceEcs) -> None:
    ecs.errors = [ECSException("AccessDeniedException", "no")]
    error = runtime.invoke(event(FARGATE))
    assert error["errorType"] == "AccessDeniedException"
    assert error["errorMessage"].endswith(
        "calling the RunTask operation (reached max retries: 0): no"
    )
    assert "retry_run_task/launch.py" in "".join(error["stackTrace"])
    # The next invocation finds the same process in order.
    assert runtime.invoke(event(FARGATE))["outcome"] == "LAUNCHED"


def test_a_message_to_people(tools: Tools, endpoint: str, tmp_path: Path) -> None:
    """The other function, without the layer."""
    topics = cast("BackendDict[Any]", sns_backends)[STACK.account][STACK.region]
    topic_arn = STACK.environment_of("Notify")["TOPIC_ARN"]
    topic = topics.create_topic(topic_arn.rpartition(":")[2])
    letters = [json.dumps({"outcome": "EXPIRED", "job": "nightly", "event": "e"}), "{"]
    records = [
        {"messageId": f"m{n}", "body": body, "attributes": {"SentTimestamp": "1795305690999"}}
        for n, body in enumerate(letters)
    ]
    with Lambda("Notify", tools, endpoint, tmp_path / "stdout") as notify:
        assert notify.invoke({"Records": records}) == {"batchItemFailures": []}
        (sent,) = topic.sent_notifications
        assert sent[2] == (
            "[retry-run-task] failed: 1 job did not start, 1 may not have started (us-east-1)"
        )
        assert "\n- nightly\n  first due" not in sent[1]
        assert "\n- nightly\n  attempts unknown\n  event e\n" in sent[1]
        lost, notified = notify.lines()
        assert (lost["outcome"], lost["message"]) == ("UNREADABLE", "lost job")
        assert (notified["jobs"], notified["notification"]) == (2, sent[0])
        # What SNS rejects fails the invocation, so that SQS delivers the batch again.
        topics.topics.clear()
        answer = notify.invoke({"Records": records})
        assert answer["errorType"] == "NotFoundException"
