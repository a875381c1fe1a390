"""The example project as browsers are shown it: usage is stored soon, for tests to see it."""

import os

from example_project.settings import *  # noqa: F403 - the project, and what tests need
from tests.example_project.children import SECRET_KEY  # noqa: F401 - that of the servers

APIKEYS_USAGE_FLUSH_SECONDS = 0.1
if os.environ.get("BROWSER_RETRIEVABLE"):
    # Of ``Fernet.generate_key()``, for tests alone.
    APIKEYS_RETRIEVABLE = True
    APIKEYS_ENCRYPTION_KEYS = ["ZmVybmV0LWtleS1vZi10aGUtdGVzdHMtMzItYnl0ZXM="]
