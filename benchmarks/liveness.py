"""How soon `serve-health` says that it lives during a sync of 100,000 skills: `python benchmarks/liveness.py [RUNS]`.

The sandbox, the sync, `serve-health` and what asks it are four processes. The sync is one that a person starts, and
then one with the priorities that the units in `systemd/` give. Each probe is a connection of its own, as Kubernetes
makes them; measured is from before `connect` until the answer has come whole. On two processors much of a slow answer
is waiting for one, on either side; a last measurement gives the two sides real-time priority: what is left is the
program's own. For the latter two one must be root.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection

from bench import PYTHON, environment_of

from atom_saas_sync.sandbox import Sandbox

SKILLS = 100_000
# So that the probes do not load the server; they are measured, and nothing waits for the time to pass.
BETWEEN_PROBES = 0.01
PRIORITIES: dict[str, tuple[list[str], list[str]]] = {
    "as a person starts them": ([], []),
    "as the units have it": (["nice", "-n", "-5"], ["nice", "-n", "10"]),
    "real time": (["chrt", "--rr", "1"], []),
}


def serve() -> None:
    with Sandbox(skills=SKILLS) as sandbox:
        sandbox.warm()
        print(sandbox.url, sandbox.token, flush=True)
        sys.stdin.readline()


def probe(port: int) -> float:
    """Ask once, and return how many milliseconds that took."""
    started = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/health/live")
    answer = connection.getresponse()
    answer.read()
    took = 1000 * (time.perf_counter() - started)
    connection.close()
    assert answer.status == 200
    return took


def measure(url: str, token: str, priorities: tuple[list[str], list[str]]) -> list[float]:
    """Synchronise once, and return what each probe took meanwhile."""
    of_health, of_sync = priorities
    times = []
    with tempfile.TemporaryDirectory() as directory:
        environment = environment_of(url, token, directory)
        atom_sync = [PYTHON, "-m", "atom_saas_sync"]
        with subprocess.Popen(
            [*of_health, *atom_sync, "serve-health", "--port", "0"], env=environment, stderr=subprocess.PIPE, text=True
        ) as health:
            assert health.stderr is not None
            try:
                port = int(health.stderr.readline().partition("127.0.0.1:")[2].partition(";")[0])
                with subprocess.Popen(
                    [*of_sync, *atom_sync, "sync", "skills"], env=environment, stdout=subprocess.DEVNULL
                ) as sync:
                    while sync.poll() is None:
                        times.append(probe(port))
                        time.sleep(BETWEEN_PROBES)
            finally:
                health.terminate()
    return times


def main(runs: int) -> None:
    command = [PYTHON, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, token = server.stdout.readline().split()
        for name, priorities in PRIORITIES.items():
            if priorities != ([], []) and os.geteuid() != 0:
                continue
            if name == "real time":
                os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
            times = [each for _ in range(runs) for each in measure(url, token, priorities)]
            over = sum(each >= 5 for each in times)
            p99 = statistics.quantiles(times, n=100)[98]
            print(
                f"{name}: {len(times)} probes: median {statistics.median(times):.2f} ms, p99 {p99:.2f} ms, "
                f"slowest {max(times):.2f} ms, {over} of 5 ms or more",
                flush=True,
            )
        server.communicate("\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
