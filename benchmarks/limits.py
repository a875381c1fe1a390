"""Whether limits are exact: of N + 200 requests at once on a limit of N, N pass.

    python benchmarks/limits.py                             local memory, 8 threads
    python benchmarks/limits.py --redis-url redis://…/5     and Redis, over 4 processes

Starts gunicorn on a free port of this machine, once for each kind of limit, and prints what
was answered. Exit code 1 where a count is not exact.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
TOO_MANY = 200
# A key's own rate, and what the plan has; by the day, so that no edge comes in between.
KINDS = {
    "key": ("{n}/d", {}),
    "plan": ("", {"rate": "{n}/d"}),
    "quota": ("", {"quota": "{n}"}),
}
MAKE_KEY = """
from benchmarks import limited_site
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django_apikeys import services
call_command("migrate", verbosity=0)
user = get_user_model().objects.create(username="ann")
rate = {rate!r} or None
print(services.create_key(owner=user, name="b", actor=user, rate_limit=rate).secret)
"""


def main() -> int:
    options = parsed()
    sites = [("local memory", ["--workers", "1", "--threads", "8"], "")]
    if options.redis_url:
        sites.append(("Redis", ["--workers", "4"], options.redis_url))
    exact = [
        measured(name, arguments, redis_url, kind, options)
        for name, arguments, redis_url in sites
        for kind in KINDS
    ]
    return 0 if all(exact) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis-url", default="", help="redis://…: counts there too")
    parser.add_argument("--limit", type=int, default=1000, help="N (1000)")
    parser.add_argument("--clients", type=int, default=16, help="requests at once (16)")
    return parser.parse_args()


def measured(
    name: str, arguments: list[str], redis_url: str, kind: str, options: argparse.Namespace
) -> bool:
    """Print what was answered on one kind of limit; tell whether N passed."""
    rate, plan = KINDS[kind]
    limit = options.limit
    with tempfile.TemporaryDirectory() as directory:
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "BENCHMARK_DATABASE": f"{directory}/db.sqlite3",
            "BENCHMARK_REDIS": redis_url,
            "BENCHMARK_PREFIX": uuid.uuid4().hex,
            "BENCHMARK_PLAN": json.dumps(
                {
                    field: limit if field == "quota" else text.format(n=limit)
                    for field, text in plan.items()
                }
            ),
        }
        secret = made_key(rate.format(n=limit), variables)
        with running(arguments, variables) as port:
            answered = sent(port, secret, limit + TOO_MANY, options.clients)
    is_exact = answered == {200: limit, 429: TOO_MANY}
    print(
        f"{name}, {' '.join(arguments)}, {kind}: limit {limit}, {limit + TOO_MANY} requests, "
        f"passed {answered[200]}, refused {answered[429]}: {'exact' if is_exact else 'NOT EXACT'}"
        + ("" if is_exact else f" {dict(answered)}"),
        flush=True,
    )
    return is_exact


def made_key(rate: str, variables: dict[str, str]) -> str:
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", MAKE_KEY.format(rate=rate)],
        env=variables,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@contextmanager
def running(arguments: list[str], variables: dict[str, str]) -> Iterator[int]:
    """Serve the project; the value is its port."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
    words = [sys.executable, "-m", "gunicorn", "--bind", f"{HOST}:{port}", "--log-level", "error"]
    gunicorn = subprocess.Popen(  # noqa: S603 - our own words
        [*words, *arguments, "benchmarks.limited_site:application"], env=variables, cwd=ROOT
    )
    try:
        wait_for(port)
        yield port
    finally:
        gunicorn.terminate()
        gunicorn.wait(30)


def wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("gunicorn did not start.")


def sent(port: int, secret: str, requests: int, clients: int) -> Counter[int]:
    """Send so many requests, from several clients at once; return the statuses."""
    answered: Counter[int] = Counter()
    lock, left = threading.Lock(), iter(range(requests))

    def work() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            status = status_of(port, secret)
            with lock:
                answered[status] += 1

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered


def status_of(port: int, secret: str) -> int:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request("GET", "/limited/", headers={"Authorization": f"Bearer {secret}"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
