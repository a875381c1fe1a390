"""Django's command line for the example project."""

import os
import sys
from pathlib import Path


def main() -> None:
    # Python puts the directory of a script first on its path. The project is a package,
    # and is found from the directory above, wherever the command is called from.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

    from django.core.management import execute_from_command_line  # noqa: PLC0415 - needs the path

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
