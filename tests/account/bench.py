"""`bench-history`: how long `history` takes for a directory of log files, beside `gzip -dc`.

Each run is a process of its own, in turn one of each, over the same files: what else the machine
does falls on both, and the ratio stays.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rehearsal.cli import Parser, positive, run
from rehearsal.records import BadInput

COMMAND = """
import sys
from account.history import main
main()
from rehearsal.measure import peak_memory_mb
print(peak_memory_mb(), file=sys.stderr)
"""


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
        once = subprocess.run(history, capture_output=True, check=True)  # noqa: S603
    found = json.loads(once.stdout)
    assert contents == {key: found[key] for key in contents}, "history has miscounted"
    result = figures(pairs) | {
        "memory_mb": round(float(once.stderr), 1),
        "runs": options.runs,
        "megabytes": options.megabytes,
        "contents": dict(contents),
    }
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


def took(command: Sequence[str]) -> float:
    """How many seconds a process took; its output goes nowhere."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)  # noqa: S603
    return time.perf_counter() - start


def figures(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Medians over the pairs: a slow moment of the machine falls on both of one."""
    return {
        "ratio": round(statistics.median(ours / gzip for gzip, ours in pairs), 3),
        "gzip_seconds": round(statistics.median(gzip for gzip, _ in pairs), 3),
        "history_seconds": round(statistics.median(ours for _, ours in pairs), 3),
    }
