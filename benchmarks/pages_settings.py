"""The settings of ``pages_site``: the example project, and somebody who sees all owners.

Where the environment has PAGES_WITHOUT_PLANS no owner has a quota.
"""

import os

from example_project.settings import *  # noqa: F403 - the project, and what is measured
from example_project.settings import MIDDLEWARE

MIDDLEWARE = ["benchmarks.pages_site.counts_statements", *MIDDLEWARE]
if os.environ.get("PAGES_WITHOUT_PLANS"):
    APIKEYS_PLANS = {}
APIKEYS_POLICY = "benchmarks.pages_site.SomeSeeAll"
