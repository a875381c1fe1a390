"""The calls that the page shows are pasted and run, against a server that listens."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from django_apikeys.conf import CREDENTIALS
from django_apikeys.web.samples import samples

RUN = {
    "curl": ["bash", "-c"],
    "javascript": ["node", "--input-type=module", "--eval"],
    "python": [sys.executable, "-c"],
}


@pytest.mark.parametrize("way", CREDENTIALS)
@pytest.mark.parametrize("name", RUN)
def test_a_sample_calls_with_the_secret(*, name, way, live_server, issue, rf, settings):
    if not all(map(shutil.which, [RUN[name][0], *(["curl"] * (name == "curl"))])):
        pytest.skip(f"Nothing runs {name} here.")  # pragma: no cover - as the machine is
    settings.APIKEYS_CREDENTIALS = [way]
    settings.ALLOWED_HOSTS = ["*"]
    issued = issue(name="Sampled")
    request = rf.get("/page/", HTTP_HOST=live_server.url.removeprefix("http://"))
    [text] = [text for named, _title, text in samples(request) if named == name]

    done = subprocess.run(  # noqa: S603 - our own text
        [*RUN[name], text],
        env={**os.environ, "API_KEY": issued.secret},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    answer = done.stdout.removeprefix("200 ")
    assert json.loads(answer)["name"] == "Sampled"
