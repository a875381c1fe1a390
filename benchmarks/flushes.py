"""A thousand rounds of flushers that flush the same keys at once, and die.

    DATABASE_URL=postgres://… DJANGO_SETTINGS_MODULE=tests.settings python benchmarks/flushes.py

Prints what happened and what was counted; exits 1 where anything was lost or doubled. It
makes a test database of its own on that server, and drops it. What a round is stands in
tests/flush_rounds.py.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main():
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from django.db import connection

    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        connection.close()
        rounds = [sys.executable, "-m", "tests.flush_rounds", "--database", name, *sys.argv[1:]]
        return subprocess.run(rounds, cwd=ROOT, check=False).returncode  # noqa: S603 - this very project
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)


if __name__ == "__main__":
    sys.exit(main())
