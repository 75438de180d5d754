"""Whatever the user's shell and ~/.aws hold, commands and tests do the same and stay here."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.session import get_session

from conftest import NOW
from rehearsal import EVENTS, ROOT
from rehearsal.cli import main
from rehearsal.template import Stack
from rehearsal.world import World
from test_uncached import BENCH, HISTORY, REHEARSE

# An audit hook writes down where the process connects to, and what names it looks up.
WATCHER = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[:1]
        with open({log!r}, "a") as log:
            print(address[0] if isinstance(address, tuple) else address, file=log)
sys.addaudithook(watch)
"""


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address that everything is configured to use, and who came."""
    visitors: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    visitors.append(connection.recv(200).decode(errors="replace"))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        host, port = server.getsockname()
        yield f"http://{host}:{port}", visitors
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def hostile(listener: tuple[str, list[str]], tmp_path: Path) -> dict[str, str]:
    """A shell and a home directory in which the rehearsal must not find anything."""
    address, _ = listener
    aws = tmp_path / ".aws"
    (aws / "models" / "ecs" / "2014-11-13").mkdir(parents=True)
    (aws / "models" / "ecs" / "2014-11-13" / "service-2.json").write_text("{}")
    (aws / "config").write_text("[profile x\nthis is no config file")
    (aws / "credentials").write_text("[default\n")
    (tmp_path / "sitecustomize.py").write_text(WATCHER.format(log=str(tmp_path / "log")))
    proxies = {f"{kind}_proxy": address for kind in ("http", "https", "all")}
    return (
        os.environ
        | proxies
        | {name.upper(): address for name in proxies}
        | {
            "HOME": str(tmp_path),
            "PYTHONPATH": str(tmp_path),
            "AWS_CONFIG_FILE": str(aws / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(aws / "credentials"),
            "AWS_DATA_PATH": str(aws / "models"),
            "AWS_ENDPOINT_URL": address,
            "AWS_ENDPOINT_URL_ECS": address,
            "AWS_PROFILE": "none",
            "AWS_REGION": "mars-east-1",
            "AWS_DEFAULT_REGION": "mars-east-1",
            "AWS_USE_FIPS_ENDPOINT": "true",
            "AWS_USE_DUALSTACK_ENDPOINT": "true",
            "AWS_CA_BUNDLE": str(tmp_path / "none.pem"),
            "AWS_MAX_ATTEMPTS": "many",
            "AWS_ACCOUNT_ID": "1",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": address,
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": address,
            "MOTO_CALL_RESET_API": "true",
            "MOTO_ALLOW_NONEXISTENT_REGION": "false",
            "TEST_SERVER_MODE": "true",
            "TEST_SERVER_MODE_ENDPOINT": address,
            "TEST_PROXY_MODE": "true",
            "POWERTOOLS_LOG_LEVEL": "CRITICAL",
            "POWERTOOLS_METRICS_DISABLED": "true",
            "LOG_LEVEL": "CRITICAL",
        }
    )


def run(script: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, *script],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_nobody_left(listener: tuple[str, list[str]], tmp_path: Path) -> None:
    """Nobody came, and nobody asked for anything but this machine."""
    assert listener[1] == []
    log = tmp_path / "log"
    asked = set(log.read_text().split()) if log.exists() else set()
    assert asked <= {"127.0.0.1", "localhost"}


@pytest.mark.parametrize(
    "name", ["launched.hidden-environment-schedule", "launched.external-agent"]
)
def test_the_rehearsal_is_the_same_and_stays_here(
    name: str, hostile: dict[str, str], listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    command = ["-c", REHEARSE, str(EVENTS / f"{name}.json"), "--json", "--show-request"]
    here, there = run(command, {**os.environ}), run(command, hostile)
    assert (there.returncode, there.stdout, there.stderr) == (0, here.stdout, "")
    assert_nobody_left(listener, tmp_path)


@pytest.mark.parametrize("offline", [True, False])
def test_log_files_need_neither_a_profile_nor_a_network(
    offline: bool, hostile: dict[str, str], listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    """Whatever hides nothing is judged, though the profile cannot even be opened."""
    file = str(EVENTS / "launched.external-agent.json")
    command = ["-c", HISTORY, file, "--json", *(["--offline"] if offline else [])]
    here, there = run([*command, "--offline"], {**os.environ}), run(command, hostile)
    assert json.loads(here.stdout)["would_retry"] == 1
    assert (there.returncode, there.stdout, there.stderr) == (1, here.stdout, "")
    assert_nobody_left(listener, tmp_path)


def test_offline_nothing_is_looked_up_whatever_a_call_hides(
    hostile: dict[str, str], listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    file = str(EVENTS / "launched.hidden-environment-rule.json")
    done = run(["-c", HISTORY, file, "--json", "--offline"], hostile)
    assert json.loads(done.stdout)["jobs"][0]["verdicts"] == {"NOT_REPLAYABLE": 1}
    assert "(--offline)" in done.stderr
    assert_nobody_left(listener, tmp_path)


def test_the_benchmark_stays_here(
    hostile: dict[str, str], listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    done = run(["-c", BENCH, "--runs", "1", "--jobs", "2"], hostile)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Medians of 1 process each" in done.stdout
    assert_nobody_left(listener, tmp_path)


def test_the_tests_stay_here(
    hostile: dict[str, str], listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    some = ["tests/test_handler.py", "-k", "test_the_same_event_twice_starts_one_task"]
    done = run(["-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *some], hostile)
    assert done.returncode == 0, done.stdout
    assert_nobody_left(listener, tmp_path)


# One of each partition, and one that moto does not know.
PARTITIONS = [
    *("us-gov-west-1", "cn-north-1", "eusc-de-east-1"),
    *("us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "us-isof-south-1"),
]
REGIONS = [*PARTITIONS, "eu-south-9"]


@pytest.mark.parametrize("region", REGIONS)
def test_every_region_is_rehearsed_here(
    region: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("launched.fargate-capacity-rule", "launched.external-agent"):
        text = (EVENTS / f"{name}.json").read_text("utf-8").replace("eu-west-1", region)
        partition = get_session().get_partition_for_region(region)
        file = tmp_path / "event.json"
        file.write_text(text.replace("arn:aws:", f"arn:{partition}:"))
        with mock.patch("socket.getaddrinfo", side_effect=AssertionError):
            assert main([str(file), "--json"]) == 0
        (task,) = json.loads(capsys.readouterr().out)["tasks"]
        named = "aws" if partition in ("aws-iso-e", "aws-iso-f") else partition  # by moto
        assert task.startswith(f"arn:{named}:ecs:{region}:")


def test_what_moto_does_not_answer_goes_nowhere(listener: tuple[str, list[str]]) -> None:
    address, visitors = listener
    with World(Stack(), NOW), pytest.raises(EndpointConnectionError):
        boto3.client("ecs", endpoint_url=address).list_clusters()
    assert visitors == []
