"""The rules of the layout: who may import what, read settings and write rows."""

import ast
from pathlib import Path

import pytest

import django_apikeys

PACKAGE = Path(django_apikeys.__file__).parent

# What a key as a value may know of the package: itself and the errors it raises.
KEYS_MAY_IMPORT = ("django_apikeys.keys", "django_apikeys.exceptions")
KEYS_MAY_NOT_IMPORT = ("django.db", "django.http", "django.conf", "rest_framework")

# Settings of Django's own that a module may read; those of the app are read in conf.
READABLE_SETTINGS = {
    "models.py": {"AUTH_USER_MODEL"},
    "users.py": {"AUTH_USER_MODEL"},
    "mails.py": {"LANGUAGE_CODE"},
    "migrations": {"AUTH_USER_MODEL"},
    "checks.py": {"MIDDLEWARE", "USE_TZ"},
    "decorator_checks.py": {"ROOT_URLCONF"},
    "drf/checks.py": {"ROOT_URLCONF"},
    "web/csp.py": {"LOGIN_URL"},
}

WRITERS = (
    "services/",
    "flushing.py",
    "upserts.py",
    "notices.py",
    "pruning.py",
    "migrations/",
)
# Nothing but a row, a queryset, a manager or a cursor has these.
WRITES_BY_NAME = {
    "save",
    "asave",
    "get_or_create",
    "aget_or_create",
    "update_or_create",
    "aupdate_or_create",
    "bulk_create",
    "abulk_create",
    "bulk_update",
    "abulk_update",
    "execute",
    "executemany",
}
# Dicts, sets, caches and serializers have these too, but take a positional argument.
WRITES_WITHOUT_POSITIONAL = {"create", "acreate", "update", "aupdate", "delete", "adelete"}


def violations(module, source):
    """Return what *source* does that *module*, a path in the package, may not."""
    tree = ast.parse(source)
    imported = set(_imported(tree, module))
    return [
        *_forbidden_imports(module, imported),
        *_read_settings(module, tree, imported),
        *_written_rows(module, tree),
    ]


def _forbidden_imports(module, imported):
    for name in sorted(imported):
        if module.startswith("keys/") and (
            _within(name, KEYS_MAY_NOT_IMPORT)
            or (_within(name, ("django_apikeys",)) and not _within(name, KEYS_MAY_IMPORT))
        ):
            yield f"keys/ imports {name}"
        if not module.startswith(("drf/", "contrib/")) and _within(
            name, ("rest_framework", "django_filters")
        ):
            yield f"outside drf/ and contrib/ imports {name}"
        if _within(name, ("django_apikeys.contrib",)) and not (
            module == "apps.py" or module.startswith("contrib/")
        ):
            yield f"imports {name}"


def _read_settings(module, tree, imported):
    if module == "conf.py":
        return
    if "django.conf" in imported and "django.conf.settings" not in imported:
        yield "imports django.conf by another name"
    if "django.conf.settings" not in imported:
        return
    readable = next(
        (names for start, names in READABLE_SETTINGS.items() if module.startswith(start)), set()
    )
    read = {id(name): setting for name, setting in _settings_by_name(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.alias) and node.name == "settings" and node.asname:
            yield "imports settings by another name"
        if isinstance(node, ast.Name) and node.id == "settings":
            setting = read.get(id(node), "as a whole")
            if setting not in readable:
                yield f"reads settings: {setting}"


def _settings_by_name(tree):
    """Return each use of ``settings.NAME`` and ``getattr(settings, "NAME", …)``."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="settings") as name, attr=setting):
                yield name, setting
            case ast.Call(
                func=ast.Name(id="getattr"),
                args=[ast.Name(id="settings") as name, ast.Constant(value=setting), *_],
            ):
                yield name, setting


def _written_rows(module, tree):
    if module.startswith(WRITERS):
        return
    for node in ast.walk(tree):
        match node:
            # An override writes nothing of its own: who calls it does.
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr=name) if name in WRITES_BY_NAME:
                yield f"writes rows: {name}"
            case ast.Call(func=ast.Attribute(attr=name), args=[]) if (
                name in WRITES_WITHOUT_POSITIONAL
            ):
                yield f"writes rows: {name}"


def _imported(tree, module):
    package = ["django_apikeys", *module.split("/")[:-1]]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                start = package[: len(package) - level + 1] if level else []
                origin = ".".join([*start, *filter(None, [base])])
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in names)


def _within(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _modules():
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", _modules())
def test_module_keeps_the_rules(module):
    source = (PACKAGE / module).read_text(encoding="utf-8")

    assert violations(module, source) == []


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        pytest.param(
            "keys/format.py", "import django.db", "keys/ imports django.db", id="keys, import"
        ),
        pytest.param(
            "keys/format.py",
            "from django import db as d",
            "keys/ imports django.db",
            id="keys, from import",
        ),
        pytest.param(
            "keys/format.py",
            "if TYPE_CHECKING:\n    from django.http import HttpRequest",
            "keys/ imports django.http",
            id="keys, for the type checker",
        ),
        pytest.param(
            "keys/format.py",
            "def later():\n    import django.db.models",
            "keys/ imports django.db.models",
            id="keys, late",
        ),
        pytest.param(
            "keys/format.py",
            "from django_apikeys.conf import conf",
            "keys/ imports django_apikeys.conf",
            id="keys, the settings",
        ),
        pytest.param(
            "keys/format.py",
            "from ..models import APIKey",
            "keys/ imports django_apikeys.models",
            id="keys, relative",
        ),
        pytest.param(
            "keys/format.py",
            "from .. import models",
            "keys/ imports django_apikeys.models",
            id="keys, relative module",
        ),
        pytest.param(
            "keys/format.py",
            "from django.conf import settings",
            "keys/ imports django.conf",
            id="keys, Django's settings",
        ),
        pytest.param(
            "keys/scopes.py",
            "import rest_framework",
            "outside drf/ and contrib/ imports rest_framework",
            id="keys, REST framework",
        ),
        pytest.param(
            "services/keys.py",
            "from rest_framework.exceptions import APIException",
            "outside drf/ and contrib/ imports rest_framework.exceptions",
            id="REST framework",
        ),
        pytest.param(
            "policy.py",
            "import django_filters",
            "outside drf/ and contrib/ imports django_filters",
            id="django-filter",
        ),
        pytest.param(
            "verification.py",
            "from django.conf import settings\nsettings.DEBUG",
            "reads settings: DEBUG",
            id="settings",
        ),
        pytest.param(
            "verification.py",
            "from django.conf import settings\nsettings.AUTH_USER_MODEL",
            "reads settings: AUTH_USER_MODEL",
            id="settings, the user model elsewhere",
        ),
        pytest.param(
            "models.py",
            "from django.conf import settings\nsettings.APIKEYS_SCOPES",
            "reads settings: APIKEYS_SCOPES",
            id="settings, of the app in models",
        ),
        pytest.param(
            "models.py",
            "from django.conf import settings\ngetattr(settings, 'APIKEYS_SCOPES', {})",
            "reads settings: APIKEYS_SCOPES",
            id="settings by getattr",
        ),
        pytest.param(
            "models.py",
            "from django.conf import settings\ngetattr(settings, name)",
            "reads settings: as a whole",
            id="settings by a name that varies",
        ),
        pytest.param(
            "models.py",
            "from django.conf import settings\nvars(settings)",
            "reads settings: as a whole",
            id="settings handed on",
        ),
        pytest.param(
            "models.py",
            "from django.conf import settings as s",
            "imports settings by another name",
            id="settings renamed",
        ),
        pytest.param(
            "models.py",
            "import django.conf",
            "imports django.conf by another name",
            id="settings by their module",
        ),
        pytest.param("verification.py", "key.save()", "writes rows: save", id="save"),
        pytest.param(
            "verification.py",
            "key.save(update_fields=['digest'])",
            "writes rows: save",
            id="save of a field",
        ),
        pytest.param("verification.py", "key.delete()", "writes rows: delete", id="delete"),
        pytest.param(
            "admin.py",
            "APIKey.objects.filter(pk=1).update(enabled=False)",
            "writes rows: update",
            id="update",
        ),
        pytest.param(
            "admin.py", "keys.update(**values)", "writes rows: update", id="update by a dict"
        ),
        pytest.param(
            "policy.py", "APIKey.objects.create(name='x')", "writes rows: create", id="create"
        ),
        pytest.param(
            "policy.py", "list(map(keys.bulk_create, rows))", "writes rows: bulk_create", id="bulk"
        ),
        pytest.param(
            "drf/views.py",
            "async def view(key):\n    await key.asave()",
            "writes rows: asave",
            id="asynchronously",
        ),
        pytest.param(
            "models.py", "cursor.execute('UPDATE …')", "writes rows: execute", id="by SQL"
        ),
        pytest.param(
            "drf/views.py",
            "from django_apikeys.contrib import ninja",
            "imports django_apikeys.contrib",
            id="contrib",
        ),
        pytest.param(
            "models.py",
            "from .contrib.redis import Limiter",
            "imports django_apikeys.contrib.redis",
            id="contrib, relative",
        ),
    ],
)
def test_a_violation_is_found(module, source, expected):
    assert expected in violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param(
            "keys/format.py", "import re\nfrom typing import Any", id="keys, the library"
        ),
        pytest.param(
            "keys/format.py",
            "from django_apikeys.exceptions import MalformedKey\nfrom . import scopes",
            id="keys, errors and keys",
        ),
        pytest.param("drf/views.py", "from rest_framework.views import APIView", id="drf"),
        pytest.param("contrib/ninja.py", "import rest_framework", id="contrib, its framework"),
        pytest.param("contrib/ninja.py", "from . import redis", id="contrib, itself"),
        pytest.param("apps.py", "from django_apikeys.contrib import ninja", id="apps, contrib"),
        pytest.param("conf.py", "from django.conf import settings\nvars(settings)", id="conf"),
        pytest.param(
            "models.py",
            "from django.conf import settings\nsettings.AUTH_USER_MODEL",
            id="models, the user model",
        ),
        pytest.param(
            "drf/checks.py",
            "from django.conf import settings\ngetattr(settings, 'ROOT_URLCONF', None)",
            id="checks, the URLs",
        ),
        pytest.param("policy.py", "settings = {}\nsettings['a']", id="a name that is alike"),
        pytest.param("services/keys.py", "key.save(force_insert=True)", id="services, save"),
        pytest.param("flushing.py", "totals.update(requests=1)", id="flushing, update"),
        pytest.param("pruning.py", "hours.delete()", id="pruning, delete"),
        pytest.param("notices.py", "claim.update(sent_at=now)", id="notices, update"),
        pytest.param(
            "migrations/0002_more.py", "keys.update(enabled=True)", id="migrations, update"
        ),
        pytest.param("policy.py", "found.update(other)", id="update of a dict"),
        pytest.param("limits.py", "cache.delete(name)", id="delete from a cache"),
        pytest.param(
            "models.py", "def save(self):\n    super().save(force_insert=True)", id="override"
        ),
    ],
)
def test_what_is_allowed_is_let_alone(module, source):
    assert violations(module, source) == []
