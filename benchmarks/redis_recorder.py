"""What a killed worker takes with it: the recorder in Redis beside the one in memory.

    python benchmarks/redis_recorder.py --database-url postgres://…/an_empty_database \
        --redis-url redis://127.0.0.1:6379/7

Sends requests to the example project behind gunicorn, kills one worker by SIGKILL half-way,
flushes, and compares what is stored with what was answered. Then the same with Redis, where
every process is killed at the end. Exit code 1 where a claim does not hold.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sites import HOST, Site, workers_of

if TYPE_CHECKING:
    import subprocess

INTERVAL = 5  # seconds between two flushes of the recorder in memory, by default
FLUSH = 1  # seconds that one may take


def main() -> int:
    options = parsed()
    claims = [
        measured(options, "redis", kill_all=False),
        measured(options, "redis", kill_all=True),
        measured(options, "memory", kill_all=False),
    ]
    return 0 if all(claims) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url", required=True, help="an empty PostgreSQL database")
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=8)
    return parser.parse_args()


def measured(options: argparse.Namespace, recorder: str, *, kill_all: bool) -> bool:
    """Print what was answered and what was stored; tell whether the claim holds."""
    site = Site(
        options.workers,
        options.database_url,
        DJANGO_SETTINGS_MODULE="benchmarks.redis_recorder_settings",
        REDIS_URL=options.redis_url,
        BENCHMARK_RECORDER=recorder,
    )
    site.manage("migrate", "--verbosity", "0")
    key = json.loads(
        site.manage("apikeys", "create", "--json", "--name", "b", "--rate-limit", "1000000/m")
    )
    load = Load(site.port, key["secret"], options.requests)
    with site.running() as gunicorn:
        load.run(options.clients, lambda: kill_one(gunicorn))
        seconds = load.seconds
        if kill_all:
            for pid in [gunicorn.pid, *workers_of(gunicorn)]:
                os.kill(pid, signal.SIGKILL)
    site.manage("apikeys", "flush")
    stored = json.loads(site.manage("apikeys", "show", "--json", key["id"]))["usage_count"]
    lost = 0 if recorder == "redis" else load.answered_lately()
    holds = load.answered - lost <= stored <= load.answered + load.failed
    if set(load.statuses) != {http.HTTPStatus.OK}:
        raise SystemExit(f"Not all was answered 200: {dict(load.statuses)}")
    print(
        f"{recorder}{', all killed at the end' if kill_all else ''}: "
        f"answered {load.answered}, without an answer {load.failed}, stored {stored} "
        f"({stored - load.answered:+}; may lack {lost}), "
        f"{options.requests / seconds:.0f} requests/s: {'holds' if holds else 'FAILS'}"
    )
    return holds


def kill_one(gunicorn: subprocess.Popen[bytes]) -> int:
    """Kill a worker; return its process id."""
    pid = workers_of(gunicorn)[0]
    os.kill(pid, signal.SIGKILL)
    return pid


class Load:
    """Requests, and what became of each."""

    def __init__(self, port: int, secret: str, requests: int) -> None:
        self.port, self.requests = port, requests
        self.headers = {"Authorization": f"Bearer {secret}"}
        self.answers: list[tuple[float, str]] = []  # when, and by which worker
        self.statuses: Counter[int] = Counter()
        self.failed = 0
        self.killed_at, self.killed = 0.0, ""
        self.seconds = 0.0
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @property
    def answered(self) -> int:
        return len(self.answers)

    def answered_lately(self) -> int:
        """Return what the killed worker answered in its last interval."""
        workers = Counter(
            worker
            for at, worker in self.answers
            if at > self.killed_at - INTERVAL - FLUSH and worker == self.killed
        )
        return workers[self.killed]

    def run(self, clients: int, kill) -> None:
        begun = time.monotonic()
        threads = [threading.Thread(target=self._client, args=(kill,)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds = time.monotonic() - begun

    def _client(self, kill) -> None:
        while (number := next(self._numbers)) < self.requests:
            if number == self.requests // 2:
                self.killed_at, self.killed = time.monotonic(), str(kill())
            self._call()

    def _call(self) -> None:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("GET", "/api/v1/keys/self/", headers=self.headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.failed += 1
        else:
            self.statuses[answer.status] += 1
            self.answers.append((time.monotonic(), answer.headers["X-Worker"]))
        finally:
            connection.close()


if __name__ == "__main__":
    sys.exit(main())
