"""`bench-history`: how long `history` takes for a directory of log files, beside `gzip -dc`.

Each run is a process of its own, in turn one of each, over the same files: what else the machine
does falls on both, and the ratio stays.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rehearsal.cli import Parser, positive, run
from rehearsal.records import BadInput

COMMAND = "import sys; from account.history import main; sys.exit(main())"


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns 0."""
    parser = Parser(
        prog="bench-history",
        description=(
            "Make CloudTrail log files, 1 % of whose records are RunTask calls, and read them with "
            "`history` and with `gzip -dc`, in turn."
        ),
    )
    parser.add_argument(
        "--megabytes", type=positive, default=1000, help="uncompressed (%(default)s)"
    )
    parser.add_argument("--runs", type=positive, default=3, help="of each (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args(argv)
    return run(parser.prog, lambda: bench(options))


def bench(options: argparse.Namespace) -> int:
    """Measure, and print it. Returns 0; raises BadInput without gzip."""
    gzip = shutil.which("gzip")
    if gzip is None:
        raise BadInput("gzip is not installed, beside which it is measured")
    with tempfile.TemporaryDirectory() as name:
        from account.generate import write_logs  # imports boto3

        contents = write_logs(Path(name), options.megabytes * 10**6)
        history = [sys.executable, "-c", COMMAND, name, "--offline", "--json"]
        decompress = [gzip, "-dcr", name]
        pairs = [(took(decompress), took(history)) for _ in range(options.runs + 1)][1:]
        found = json.loads(subprocess.run(history, capture_output=True, check=False).stdout)  # noqa: S603
    assert contents == {key: found[key] for key in contents}, "history has miscounted"
    result = figures(pairs) | {"megabytes": options.megabytes, "contents": dict(contents)}
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(
            f"{options.megabytes:,} MB of log files, {contents['records']:,} RunTask records, "
            f"medians of {options.runs}:\n\n"
            f"gzip -dc  {result['gzip_seconds']:>6.2f} s\n"
            f"history   {result['history_seconds']:>6.2f} s   x {result['ratio']:.2f}   "
            f"{result['memory_mb']:.0f} MB at most"
        )
    return 0


def took(command: Sequence[str]) -> dict[str, float]:
    """How many seconds a process took, and how much memory at most."""
    start = time.perf_counter()
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere)  # noqa: S603
        _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # it has been waited for
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": time.perf_counter() - start, "memory_mb": usage.ru_maxrss * unit / 10**6}


def figures(pairs: Sequence[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """Medians over the pairs: a slow moment of the machine falls on both of one."""
    median = statistics.median
    return {
        "ratio": round(median(ours["seconds"] / other["seconds"] for other, ours in pairs), 3),
        "gzip_seconds": round(median(other["seconds"] for other, _ in pairs), 3),
        "history_seconds": round(median(ours["seconds"] for _, ours in pairs), 3),
        "memory_mb": round(max(ours["memory_mb"] for _, ours in pairs), 1),
        "runs": len(pairs),
    }
