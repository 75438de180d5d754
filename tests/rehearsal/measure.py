"""One process of the benchmark: a handler's import, its invocations, and its memory, as JSON.

It imports nothing before the clock runs, and only what the handlers import as well.
"""

import time

START = time.perf_counter()

import contextlib  # noqa: E402 - after the clock has started
import io  # noqa: E402
import json  # noqa: E402
import re  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402

from rehearsal import load_event  # noqa: E402

WARM_INVOCATIONS = 300


def main() -> None:
    handler = import_module(sys.argv[1]).handler
    event = load_event("launched.fargate-capacity-rule")
    arn = f"arn:aws:lambda:{event['region']}:{event['account']}:function:retry-run-task"
    context = SimpleNamespace(
        function_name="retry-run-task",
        memory_limit_in_mb=256,
        invoked_function_arn=arn,
        aws_request_id="1",
        get_remaining_time_in_millis=lambda: 180_000,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        handler(event, context)
        init = time.perf_counter() - START
        times = []
        for _ in range(WARM_INVOCATIONS):
            start = time.perf_counter()
            handler(event, context)
            times.append(time.perf_counter() - start)
    measured = {
        "init_ms": init * 1000,
        "warm_ms": sorted(times)[len(times) // 2] * 1000,
        "memory_mb": peak_memory_mb(),
    }
    print(json.dumps(measured))


def peak_memory_mb() -> float:
    """Of this process alone: getrusage would count what the process that started it had."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = re.search(r"VmHWM:\s+([0-9]+) kB", status.read_text("utf-8"))
        assert peak is not None
        return int(peak[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts in bytes


if __name__ == "__main__":
    main()
