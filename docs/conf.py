"""Sphinx configuration."""

from pathlib import Path

project = "django-apikeys"
author = "The django-apikeys developers"
copyright = "2026, the django-apikeys developers"
version = release = next(
    line.split('"')[1]
    for line in (Path(__file__).parent.parent / "django_apikeys" / "__init__.py")
    .read_text(encoding="utf-8")
    .splitlines()
    if line.startswith("__version__")
)

extensions = ["myst_parser"]
myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True
html_theme = "furo"
html_title = f"django-apikeys {version}"
