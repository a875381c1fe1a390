"""Check that the catalogues have every text of the sources, and no other.

Reads a copy of the package with Django's makemessages, which needs GNU gettext. Prints what
differs; the exit status is 1 where anything does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import django
import polib
from django.conf import settings
from django.core.management import call_command

PACKAGE = Path(__file__).resolve().parent.parent / "django_apikeys"
Name = tuple[str | None, str, str]


def names(catalogue: Path) -> set[Name]:
    """Return context, text and plural of each entry that is in use."""
    entries = (entry for entry in polib.pofile(str(catalogue)) if not entry.obsolete)
    return {(entry.msgctxt, entry.msgid, entry.msgid_plural) for entry in entries}


def extracted(languages: list[str], folder: Path) -> dict[str, set[Name]]:
    """Return what makemessages finds in a copy of the package, by language."""
    copy = folder / PACKAGE.name
    shutil.copytree(PACKAGE, copy)
    with contextlib.chdir(copy), open(os.devnull, "w") as silence:  # noqa: PTH123 - a device
        call_command("makemessages", locale=languages, no_obsolete=True, stdout=silence)
    return {language: names(_path(copy, language)) for language in languages}


def _path(package: Path, language: str) -> Path:
    return package / "locale" / language / "LC_MESSAGES" / "django.po"


def main() -> int:
    """Return the exit status."""
    if missing := [name for name in ("xgettext", "msgmerge") if not shutil.which(name)]:
        print(f"GNU gettext is needed: there is no {missing[0]}.", file=sys.stderr)
        return 1
    settings.configure()
    django.setup()
    languages = sorted(path.name for path in (PACKAGE / "locale").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        found = extracted(languages, Path(folder))
    problems = 0
    for language in languages:
        known = names(_path(PACKAGE, language))
        for what, left in (
            ("missing", found[language] - known),
            ("unused", known - found[language]),
        ):
            for context, text, _plural in sorted(left, key=str):
                print(f"{language}: {what}: {text!r}{f' ({context})' if context else ''}")
                problems += 1
    if problems:
        print("CONTRIBUTING.md says how the catalogues are updated.", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
