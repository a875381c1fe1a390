"""The settings of ``pages_site``: the example project, and somebody who sees all owners."""

from example_project.settings import *  # noqa: F403 - the project, and what is measured
from example_project.settings import MIDDLEWARE

MIDDLEWARE = ["benchmarks.pages_site.counts_statements", *MIDDLEWARE]
APIKEYS_POLICY = "benchmarks.pages_site.SomeSeeAll"
