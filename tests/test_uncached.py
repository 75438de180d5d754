"""`sam deploy` after a desk command ships what is in git: nothing compiled is beside the code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal import ROOT

REHEARSE = "from rehearsal.cli import main; raise SystemExit(main())"
HISTORY = "from account.history import main; raise SystemExit(main())"
BENCH = "from rehearsal.bench import main; raise SystemExit(main())"
DESK = {
    "uv run rehearse": ["-c", REHEARSE, "events/launched.fargate-capacity-rule.json"],
    "uv run history": ["-c", HISTORY, "events/unmatched.success.json", "--offline"],
    # What plays these two needs an account; what it imports does not.
    "uv run check": ["-c", "from account import check, checkup"],
    "uv run drill": ["-c", "from account import drill, fire_drill, probe"],
    "uv run bench": ["-c", BENCH, "--runs", "1", "--jobs", "1"],
    "uv run pytest": ["-m", "pytest", "tests/test_backoff.py", "tests/test_handler.py"],
    "coverage run": ["-m", "coverage", "run", "-m", "pytest", "-n", "0", "tests/test_backoff.py"],
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the desk commands need, without what other commands left in it."""
    for name in ("functions", "tests", "events"):
        left = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left)
    for name in ("template.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", DESK)
def test_a_desk_command_leaves_nothing_beside_the_deployed_code(
    command: str, project: Path
) -> None:
    def files() -> set[Path]:
        # The installed project is where a process of a test finds the code that has no PYTHONPATH.
        return {file for root in (project, ROOT) for file in (root / "functions").rglob("*")}

    before = files()
    environment = {key: v for key, v in os.environ.items() if not key.startswith("PYTHON")}
    path = os.pathsep.join(str(project / name) for name in ("functions", "tests"))
    done = subprocess.run(  # noqa: S603
        [sys.executable, *DESK[command]],
        cwd=project,
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert files() == before
    # Python does write compiled modules here: where it may.
    assert list((project / "tests").rglob("__pycache__"))
