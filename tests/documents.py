"""Reads the fenced blocks of Markdown, and does what their curl lines say."""

import re
import shlex
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from string import Template

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(
    r"(?:<!-- (?P<directive>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """directive: the comment right above it, or None."""

    language: str
    text: str
    directive: str | None

    def commands(self):
        """Each line that begins with ``$``, and what is printed after it."""
        text = self.text.replace("\\\n", " ")
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            yield command, printed.rstrip("\n")


def blocks(path):
    return [
        Block(match["language"], match["text"], match["directive"])
        for match in _BLOCK.finditer((ROOT / path).read_text(encoding="utf-8"))
    ]


def curl(command, variables, server):
    """Return the status and the body of a curl command, sent to *server*."""
    words = shlex.split(Template(command).safe_substitute(variables))
    headers, data, method, url = {}, None, None, ""
    arguments = iter(words[1:])
    for word in arguments:
        if word == "-H":
            name, _, value = next(arguments).partition(": ")
            headers[name] = value
        elif word == "-u":
            headers["Authorization"] = "Basic " + b64encode(next(arguments).encode()).decode()
        elif word == "-d":
            data = next(arguments).encode()
        elif word == "-X":
            method = next(arguments)
        else:
            url = word
    url = url.replace("http://127.0.0.1:8000", server)
    request = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310 - our own server
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
