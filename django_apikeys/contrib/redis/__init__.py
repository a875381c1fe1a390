"""Limits and usage in Redis, both in the one trip of a request.

``RedisLimiter`` counts the windows that django-ratelimit counts, all that a request asks
for by one script. ``RedisRecorder`` has the same script add up how often keys, secrets
and addresses were used: what a request was counted for is in Redis before its view runs,
and outlives every web process. How it was answered (route, method, outcome) waits in the
process for its next trip.

Redis holds a live hash of counters. It gets the id of its batch with its first count, so
that one that comes back from an old snapshot is known. A flush renames it to
``batch:<id>`` and lists it, in one script; applies it under that id, in one transaction;
then deletes it. It may end behind any of these steps: the next one goes on.
"""

from django_apikeys.contrib.redis.limiter import RedisLimiter
from django_apikeys.contrib.redis.recorder import RedisRecorder

__all__ = ["RedisLimiter", "RedisRecorder"]
