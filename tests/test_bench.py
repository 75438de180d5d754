"""The benchmark: it measures what it says, and the function is not far from the bare handler."""

import json

import pytest

from rehearsal.bench import main
from rehearsal.storm import POLICIES


def test_it_prints_ratios_of_whole_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "1", "--jobs", "5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    # Loose, because one run of each on a busy machine tells little: what is meant is in the README.
    assert 0.3 < result["init_ratio"] < 3
    assert 0.5 < result["memory_ratio"] < 1.5
    assert isinstance(result["warm_overhead_ms"], float)
    assert list(result["storm"]) == list(POLICIES)


def test_the_table_shows_both_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "1", "--jobs", "5"]) == 0
    shown = capsys.readouterr().out
    assert "function" in shown
    assert "bare" in shown
    with pytest.raises(SystemExit):
        main(["--runs", "0"])
