"""What the default recorder adds to a request, in process: the median in microseconds.

    python benchmarks/recorder.py

That is what the middleware does of it: note what is verified, make a hit of it, add it up.
100 keys from 50 addresses, 20 routes; nothing is flushed meanwhile. Exits 1 beyond 10 µs.
"""

import ipaddress
import os
import statistics
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

REQUESTS = 100_000
MOST = 10.0  # microseconds


def main():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from django.conf import settings
    from django.test import RequestFactory
    from django.utils import timezone

    from django_apikeys.middleware import APIKeyMiddleware
    from django_apikeys.recording import Use, note
    from django_apikeys.testing import reset_usage

    settings.APIKEYS_USAGE_FLUSH_SECONDS = None
    response = SimpleNamespace(status_code=200)
    bare, counting = (lambda request: response), APIKeyMiddleware(lambda request: response)
    request = RequestFactory().get("/customers/")
    seconds = {"without": [], "with": []}
    for number in range(REQUESTS):
        request.__dict__.pop("apikeys_use", None)
        request.resolver_match = SimpleNamespace(route=f"customers/{number % 20}/<int:pk>/")
        # New objects each time, as a request has them.
        use = Use(
            uuid.UUID(int=number % 100),
            number % 100,
            "7",
            timezone.now(),
            ipaddress.ip_address(f"192.0.2.{number % 50}"),
        )
        started = time.perf_counter()
        bare(request)
        between = time.perf_counter()
        note(request, use)
        counting(request)
        ended = time.perf_counter()
        seconds["without"].append(between - started)
        seconds["with"].append(ended - between)
    added = (statistics.median(seconds["with"]) - statistics.median(seconds["without"])) * 1e6
    print(f"{REQUESTS} requests, Python {sys.version.split()[0]}: {added:.1f} µs a request")
    reset_usage()  # nothing of it is to be stored at exit
    return added > MOST


if __name__ == "__main__":
    sys.exit(main())
