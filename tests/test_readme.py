"""The README's five minutes, followed to the letter in a project of their own."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from string import Template

import pytest

from tests.documents import ROOT, blocks, curl

README = blocks("README.md")


class Project:
    """A project as ``startproject`` makes it, and a shell in its folder."""

    def __init__(self, folder):
        self.folder = folder
        self.variables = {}
        self.shell("django-admin startproject mysite .", module="django")

    def write(self, block):
        how, *_to, name = block.directive.split()
        with (self.folder / name).open("a" if how == "append" else "w", encoding="utf-8") as file:
            file.write(block.text)

    def shell(self, command, module=None):
        words = shlex.split(Template(command).safe_substitute(self.variables))
        program = ["-m", module] if module else ["manage.py"]
        result = subprocess.run(  # noqa: S603 - the README's own words
            [sys.executable, *program, *words[1 if module else 2 :]],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    @property
    def environment(self):
        outer = {
            name: text for name, text in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"
        }
        return {**outer, "PYTHONPATH": str(ROOT), "DJANGO_SUPERUSER_PASSWORD": "not-asked-for"}


def _listens(address):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address.partition(":")[2]))) == 0


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    for block in README:
        if block.directive:
            project.write(block)
    return project


@pytest.fixture
def serve(project):
    """Start the project's server on a free port; it is ended with the test."""
    servers = []

    def serve():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        servers.append(
            subprocess.Popen(  # noqa: S603 - our own server
                [sys.executable, "manage.py", "runserver", "--noreload", address],
                cwd=project.folder,
                env=project.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        while servers[-1].poll() is None and not _listens(address):
            time.sleep(0.1)
        return f"http://{address}"

    yield serve
    for server in servers:
        server.terminate()
        server.wait()


def test_the_five_minutes_work_as_written(project, serve):
    """Each command succeeds, and each call prints what the README says."""
    server = ""
    calls = 0

    # After the two commands of the example, startproject and pip: this very package is on
    # the path.
    for block in README[4:]:
        for command, printed in block.commands() if block.language == "console" else ():
            if command.startswith("curl"):
                calls += 1
                assert curl(command, project.variables, server)[1] == printed
            elif "runserver" in command:
                server = serve()
            elif "createsuperuser" in command:
                project.shell(command + " --noinput")
            elif command.startswith("SECRET="):
                project.variables["SECRET"] = project.shell(command[len("SECRET=$(") : -1]).strip()
            elif command.startswith("PUBLIC_ID="):
                assert command == 'PUBLIC_ID=$(echo "$SECRET" | cut -d _ -f 3)'
                project.variables["PUBLIC_ID"] = project.variables["SECRET"].split("_")[2]
            else:
                project.shell(command)

    assert calls == 3


def test_the_project_of_the_readme_passes_its_checks(project):
    assert "no issues" in project.shell("python manage.py check")


def test_the_two_commands_stand_in_the_readme():
    """The gate runs them; here they are kept from being reworded."""
    commands = [command for block in README for command, _ in block.commands()]

    setup = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"
    assert commands[:2] == [f"{setup} run -e demo", setup]


def test_no_link_of_the_readme_leads_nowhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    targets = re.findall(r"\]\(([^)]+)\)", text)

    assert [target for target in targets if not (ROOT / target).exists()] == []
    assert len(targets) > 5
