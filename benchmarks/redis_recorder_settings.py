"""The example project, counted by the recorder that BENCHMARK_RECORDER names."""

import os

from example_project.settings import *  # noqa: F403 - the project, and what is measured
from example_project.settings import MIDDLEWARE, REST_FRAMEWORK

_COUNTS = "django_apikeys.middleware.APIKeyMiddleware"
MIDDLEWARE = [
    "benchmarks.redis_recorder_settings.names_its_worker",
    _COUNTS,
    *(name for name in MIDDLEWARE if name != _COUNTS),
]
REST_FRAMEWORK = {
    **REST_FRAMEWORK,
    "DEFAULT_THROTTLE_CLASSES": ["django_apikeys.drf.throttling.APIKeyThrottle"],
}
if os.environ.get("BENCHMARK_RECORDER") == "redis":
    APIKEYS_LIMITER = "django_apikeys.contrib.redis.RedisLimiter"
    APIKEYS_USAGE_RECORDER = "django_apikeys.contrib.redis.RedisRecorder"


def names_its_worker(get_response):
    """Say which process has answered."""

    def answer(request):
        response = get_response(request)
        response["X-Worker"] = str(os.getpid())
        return response

    return answer
