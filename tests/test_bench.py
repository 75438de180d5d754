"""The benchmark: it measures what it says, and the function is not far from the bare handler."""

import io
import json
from contextlib import redirect_stdout
from typing import Any

import pytest

from rehearsal import bench
from rehearsal.policies import POLICIES
from rehearsal.template import Stack

Runs = dict[str, list[dict[str, float]]]


@pytest.fixture(scope="module")
def measured() -> Runs:
    """One process of each handler, and one before it that fills the caches: they take seconds."""
    return bench.measure_all(1, Stack().environment)


@pytest.fixture
def _no_processes(measured: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bench, "measure_all", lambda runs, _: {k: v * runs for k, v in measured.items()}
    )


@pytest.mark.usefixtures("_no_processes")
def test_it_prints_ratios_of_whole_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--runs", "3", "--jobs", "5", "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    # Loose, because one run of each on a busy machine tells little: what is meant is in the README.
    assert 0.3 < result["init_ratio"] < 3
    assert 0.5 < result["memory_ratio"] < 1.5
    assert isinstance(result["warm_overhead_ms"], float)
    assert result["runs"] == 3
    assert list(result["storm"]) == list(POLICIES)


@pytest.mark.usefixtures("_no_processes")
def test_the_table_shows_both_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--runs", "2", "--jobs", "5"]) == 0
    shown = capsys.readouterr().out
    assert "Medians of 2 processes each:" in shown
    assert "\nfunction " in shown
    assert "\nbare " in shown
    with pytest.raises(SystemExit):
        bench.main(["--runs", "0"])


@pytest.mark.usefixtures("_no_processes")
def test_a_terminal_that_knows_no_blocks_gets_other_bars() -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    with redirect_stdout(out):
        assert bench.main(["--runs", "1", "--jobs", "2"]) == 0
    out.seek(0)
    shown = out.read()
    assert "bare      ###" in shown
    assert "^ capacity is back" in shown
