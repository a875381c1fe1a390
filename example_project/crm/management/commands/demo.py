"""``manage.py demo``: fill the site and say how to try it, serve it, or play its story."""

from __future__ import annotations

import json
import socket
import sys
from io import TextIOWrapper
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from example_project.crm.demo import data, guide, story
from example_project.crm.demo.client import Client
from example_project.crm.demo.server import HOST, ServerFailed, filled_server

ADDRPORT = "127.0.0.1:8000"


class Command(BaseCommand):
    """Exit code 0; 1 where the story does not go as it is told; 2 for wrong usage."""

    help = "Fill the example project with data, accounts and a key; print how to try it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--serve",
            nargs="?",
            const=ADDRPORT,
            metavar="ADDRPORT",
            help=f"Then serve the site, by default at {ADDRPORT}.",
        )
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument("--json", action="store_true", help="Print one JSON object instead.")
        instead.add_argument(
            "--check",
            action="store_true",
            help="Play the story of a key instead, against a server and a database of its own.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["check"]:
            self._check()
            return
        if options["serve"]:
            _require_free(options["serve"])
        self._fill(options["serve"] or ADDRPORT, as_json=options["json"])
        if options["serve"]:
            # The server has things to say too: where JSON is read, elsewhere.
            stdout = sys.stderr if options["json"] else self.stdout
            call_command("runserver", options["serve"], use_reloader=False, stdout=stdout)

    def _fill(self, addrport: str, *, as_json: bool) -> None:
        if not settings.DEBUG:
            self.stderr.write(
                f"Warning: DJANGO_DEBUG is 0, and the demo's accounts (a superuser among them) "
                f"have a password that everybody knows: {data.PASSWORD}"
            )
        call_command("migrate", verbosity=0)
        demo = data.fill()
        site = guide.site_of(addrport)
        if as_json:
            self.stdout.write(json.dumps(guide.facts(demo, site), indent=2))
        else:
            self.stdout.write(guide.text(demo, site))
        self.stdout.flush()

    def _check(self) -> None:
        if isinstance(sys.stdout, TextIOWrapper):
            # A terminal that has no ✓ shows something else, rather than failing.
            sys.stdout.reconfigure(errors="replace")
        try:
            with filled_server() as (server, facts):
                world = story.World(Client(HOST, server.port), server, facts)
                passed = story.play(story.STEPS, world, self._say)
        except ServerFailed as error:
            self._say("✗ The server answers")
            raise CommandError(str(error)) from error
        if not passed:
            raise CommandError("The story did not go as it is told.")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _require_free(addrport: str) -> None:
    # Before anything is made: runserver says it only after the key was printed.
    host, _, port = addrport.rpartition(":")
    with socket.socket() as probe:
        if probe.connect_ex((host or HOST, int(port) if port.isdigit() else 0)) == 0:
            raise CommandError(
                f"Port {port} is taken. Name another behind the command: -- {HOST}:8001"
            )
