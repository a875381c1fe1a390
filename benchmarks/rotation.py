"""Whether rotation has no downtime: requests that move to each new secret, at any moment.

    python benchmarks/rotation.py --database-url postgres://…/an_empty_database

Sends a steady load to the example project behind gunicorn with one key, which is rotated
again and again; each client goes on with the old secret until a random moment within the
grace. Prints what was answered, and what was counted of current and previous secrets. Exit
code 1 where a request failed, or was counted for the wrong one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sites import HOST, Site

SELF = "/api/v1/keys/self/"
COUNTS = """
from django_apikeys.models import APIKeySecretTotals as T
rows = list(T.objects.order_by("pk").values_list("requests", "in_grace"))
print(sum(n - g for n, g in rows), sum(g for n, g in rows), len(rows))
"""


def main() -> int:
    options = parsed()
    site = Site(options.workers, options.database_url)
    site.manage("migrate", "--verbosity", "0")
    made = ("apikeys", "create", "--json", "--name", "b", "--scope", "self:rotate")
    first = json.loads(site.manage(*made))["secret"]
    with site.running():
        load = Load(site.port, first, options)
        load.run()
    current, previous, secrets = map(int, site.manage("shell", "-v", "0", "-c", COUNTS).split())
    print(f"{load.rotations} rotations, {secrets} secrets, {sum(load.statuses.values())} requests")
    print(f"answered: {dict(load.statuses)}, without an answer: {load.failed}")
    print(f"to the current secret: answered {load.current}, counted {current}")
    print(f"to the previous one: answered {load.previous}, counted {previous}")
    holds = (
        set(load.statuses) <= {200, 201}
        and not load.failed
        and (current, previous) == (load.current, load.previous)
    )
    print("holds" if holds else "FAILS")
    return 0 if holds else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url", required=True, help="an empty database")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--grace", type=int, default=2, help="seconds")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rate", type=float, default=20, help="requests a second of each client")
    return parser.parse_args()


class Load:
    """Requests of clients that each move to a new secret when they like."""

    def __init__(self, port: int, secret: str, options: argparse.Namespace) -> None:
        self.port, self.options = port, options
        self.statuses: Counter[int] = Counter()
        self.current = self.previous = self.failed = self.rotations = 0
        self._secrets = [secret] * options.clients
        self._newest = secret
        self._ends_at = time.monotonic() + options.seconds
        self._lock = threading.Lock()

    def run(self) -> None:
        works = [(self._client, place) for place in range(self.options.clients)]
        threads = [threading.Thread(target=work, args=(place,)) for work, place in works]
        for thread in threads:
            thread.start()
        # Between two rotations all have moved: the older of two secrets ends with the next.
        while time.monotonic() + 2 * self.options.grace < self._ends_at:
            self._rotate()
            time.sleep(self.options.grace * 1.25)
        for thread in threads:
            thread.join()

    def _rotate(self) -> None:
        starts = "first_use" if self.rotations % 2 else "now"
        body = {"grace_seconds": self.options.grace, "starts": starts}
        answer = self._call("POST", f"{SELF}rotate/", self._newest, json.dumps(body))
        self._newest = json.loads(answer)["data"]["secret"]
        self.rotations += 1
        for place in range(self.options.clients):
            wait = random.uniform(0, 0.9 * self.options.grace)  # noqa: S311 - no secret
            timer = threading.Timer(wait, self._move, (place, self._newest))
            timer.daemon = True
            timer.start()

    def _move(self, place: int, secret: str) -> None:
        self._secrets[place] = secret

    def _client(self, place: int) -> None:
        while time.monotonic() < self._ends_at:
            self._call("GET", SELF, self._secrets[place])
            time.sleep(random.expovariate(self.options.rate))

    def _call(self, method: str, path: str, secret: str, body: str | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.failed += 1
            return b""
        finally:
            connection.close()
        with self._lock:
            self.statuses[answer.status] += 1
            if answer.headers["X-API-Key-Rotated"] == "true":
                self.previous += 1
            else:
                self.current += 1
        return text


if __name__ == "__main__":
    sys.exit(main())
