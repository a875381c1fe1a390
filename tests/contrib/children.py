"""What a test starts as a process of its own, to kill it.

The cache comes from REDIS_LOCATION and REDIS_PREFIX, the database from DATABASE_URL.
"""

import os
import signal
import sys
import uuid
from datetime import UTC, date, datetime

import django
from django.conf import settings

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
KEY_ID = uuid.UUID("5f1c3c5e-0000-4000-8000-000000000000")


def configure():
    from tests import settings as of_tests  # noqa: PLC0415 - only where nobody has configured

    values = {name: getattr(of_tests, name) for name in dir(of_tests) if name.isupper()}
    values["CACHES"] = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": os.environ["REDIS_LOCATION"],
            "KEY_PREFIX": os.environ["REDIS_PREFIX"],
        }
    }
    values["APIKEYS_CACHE_TIMEOUT"] = 5
    values["APIKEYS_LIMITER"] = "django_apikeys.contrib.redis.RedisLimiter"
    values["APIKEYS_USAGE_RECORDER"] = "django_apikeys.contrib.redis.RedisRecorder"
    settings.configure(**values)
    django.setup()


def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)


def count(requests):
    """Count *requests*, of a quota too, and be killed."""
    from django_apikeys.conf import conf  # noqa: PLC0415 - configured by now
    from django_apikeys.limits import Demand  # noqa: PLC0415
    from django_apikeys.quotas import Month  # noqa: PLC0415
    from django_apikeys.recording import Use  # noqa: PLC0415

    month = Month(date(2026, 11, 1), datetime(2026, 12, 1, tzinfo=UTC), "7")
    for _ in range(int(requests)):
        use = Use(KEY_ID, 1, "7", NOW, None)
        conf.limiter.spend_and_count([Demand("quota", "units", 1000, month, 2)], use, NOW)
    kill()


def flush(step):
    """Flush, and be killed behind *step*."""
    from django_apikeys.conf import conf  # noqa: PLC0415
    from django_apikeys.contrib.redis import connection, recorder  # noqa: PLC0415

    if step == "listed":
        recorder.apply = kill
    elif step == "applied":
        connection.Link.delete = kill
    conf.usage_recorder.flush()


if __name__ == "__main__":
    configure()
    {"count": count, "flush": flush}[sys.argv[1]](sys.argv[2])
