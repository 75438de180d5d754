"""`bench`: what the function costs beside the least that a handler could do, in whole processes.

Each run is a process of its own, in turn one of the function and one of the bare handler, against
one RunTask endpoint on this machine: what else the machine does falls on both, and the ratios stay.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rehearsal import load_event
from rehearsal.cli import Parser, positive, run
from rehearsal.policies import POLICIES, USUAL_OUTAGE

HANDLERS = {"function": "retry_run_task.handler", "bare": "rehearsal.bare"}

EPILOG = """\
init_ratio        import and first invocation, the function's by the bare handler's
warm_overhead_ms  an invocation of a warm process, less the bare handler's, in milliseconds
memory_ratio      peak memory, the function's by the bare handler's
storm             as `rehearse --storm N --policy all --json`, for one outage
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns 0."""
    parser = Parser(
        prog="bench",
        description="Measure the function beside a bare boto3 handler, and a storm of jobs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--runs", type=positive, default=11, help="processes each (%(default)s)")
    parser.add_argument("--jobs", type=positive, default=1000, help="jobs in a storm (%(default)s)")
    options = parser.parse_args(argv)
    return run(parser.prog, lambda: bench(options))


def bench(options: argparse.Namespace) -> int:
    """Measure, and print it. Returns 0."""
    from rehearsal.report import report  # as in cli.py: these import boto3
    from rehearsal.storm import Storm
    from rehearsal.template import Stack

    runs = measure_all(options.runs, Stack().environment)
    result = figures(runs)
    event = load_event("launched.fargate-capacity-rule")
    storms = {
        name: Storm(event, Stack(), options.jobs, USUAL_OUTAGE, name).run() for name in POLICIES
    }
    if options.json:
        storm = {name: played.summary() for name, played in storms.items()}
        print(json.dumps(result | {"storm": storm}, indent=2))
    else:
        show(runs, result)
        print(f"\n{report(storms, {})}")
    return 0


def measure_all(runs: int, variables: dict[str, str]) -> dict[str, list[dict[str, float]]]:
    """What `runs` processes of each handler took, one after the other and in turn.

    `variables` are the function's environment.
    """
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in HANDLERS}
    with endpoint() as url:
        environment = (
            os.environ
            | variables
            | {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "none",
                "AWS_SECRET_ACCESS_KEY": "none",
                "HOME": os.devnull,  # has no ~/.aws/models
            }
        )
        for name in (*HANDLERS, *(name for _ in range(runs) for name in HANDLERS)):
            command = [sys.executable, "-m", "rehearsal.measure", HANDLERS[name]]
            process = subprocess.run(  # noqa: S603
                command, env=environment, stdout=subprocess.PIPE, check=True
            )
            measured[name].append(json.loads(process.stdout.splitlines()[-1]))
    # The first of each has filled the caches of files and of compiled modules.
    return {name: results[1:] for name, results in measured.items()}


def figures(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the pairs of neighbours: a slow moment of the machine falls on both of one."""
    pairs = list(zip(*(runs[name] for name in HANDLERS), strict=True))

    def ratio(key: str) -> float:
        return round(float(statistics.median(f[key] / bare[key] for f, bare in pairs)), 3)

    overhead = statistics.median(f["warm_ms"] - bare["warm_ms"] for f, bare in pairs)
    return {
        "init_ratio": ratio("init_ms"),
        "warm_overhead_ms": round(overhead, 3),
        "memory_ratio": ratio("memory_mb"),
        "runs": len(runs["function"]),
        "medians": {name: medians(results) for name, results in runs.items()},
    }


def medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(r[key] for r in results), 3) for key in results[0]}


def show(runs: dict[str, list[dict[str, float]]], result: dict[str, Any]) -> None:
    """A table, and a plot of each process's init: one column a run, in the order of the runs."""
    from rehearsal.show import BARS, can_show, number

    print(f"Medians of {number(result['runs'], 'process', 'processes')} each:\n")
    print(f"{'':10}{'init ms':>10}{'warm ms':>10}{'memory MB':>11}")
    for name, values in result["medians"].items():
        row = f"{values['init_ms']:>10.1f}{values['warm_ms']:>10.2f}{values['memory_mb']:>11.1f}"
        print(f"{name:10}{row}")
    init, warm, memory = (result[key] for key in ("init_ratio", "warm_overhead_ms", "memory_ratio"))
    print(f"{'':10}{f'x {init:.2f}':>10}{f'+ {warm:.2f}':>10}{f'x {memory:.2f}':>11}\n")
    print("Import and first invocation, each process:\n")
    block = BARS[-1] if can_show(BARS) else "#"
    longest = max(r["init_ms"] for results in runs.values() for r in results)
    for name, results in runs.items():
        for n, measured in enumerate(results):
            bar = block * round(measured["init_ms"] / longest * 50)
            print(f"{name if n == 0 else '':10}{bar} {measured['init_ms']:.0f}")


@contextmanager
def endpoint() -> Iterator[str]:
    """An ECS on this machine that places every task."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ecs)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Ecs(BaseHTTPRequestHandler):
    """Answers each RunTask with one task."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: two would wait for each other
    answer = json.dumps({"tasks": [{"taskArn": "arn:aws:ecs:task/1"}], "failures": []}).encode()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""
