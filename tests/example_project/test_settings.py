"""The settings, as the environment makes them."""

import json

import pytest

from tests.example_project.children import MANAGE, ROOT, SECRET_KEY, manage, python

PRINT = "import json, example_project.settings as s; print(json.dumps({}, default=str))"
IN_PRODUCTION = {
    "DJANGO_DEBUG": "0",
    "DJANGO_HTTPS": "1",
    "DJANGO_SECRET_KEY": SECRET_KEY,
    "DJANGO_ALLOWED_HOSTS": "example.com",
    "APIKEYS_PEPPER": "a pepper",
    "REDIS_URL": "redis://127.0.0.1:6379/0",
}


def setting(expression, **variables):
    """Return *expression* over the settings, which are ``s``, under these variables."""
    done = python("-c", PRINT.format(expression), **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_project_starts_with_nothing_set():
    assert setting("[s.DEBUG, s.ALLOWED_HOSTS, s.CACHES['default']['BACKEND']]") == [
        True,
        ["localhost", "127.0.0.1", "[::1]"],
        "django.core.cache.backends.locmem.LocMemCache",
    ]


def test_the_database_is_a_file_of_the_project_and_waits_for_its_turn_to_write():
    database = setting("s.DATABASES['default']")

    assert database["ENGINE"] == "django.db.backends.sqlite3"
    assert database["NAME"] == str(ROOT / "example_project" / "db.sqlite3")
    assert database["OPTIONS"] == {"transaction_mode": "IMMEDIATE", "timeout": 20}


@pytest.mark.parametrize(
    ("url", "engine", "options"),
    [
        ("postgres://me:pw@db:5432/crm", "postgresql", {}),
        ("mysql://me:pw@db:3306/crm", "mysql", {"charset": "utf8mb4"}),
        ("sqlite:////tmp/x?timeout=5", "sqlite3", {"transaction_mode": "IMMEDIATE", "timeout": 5}),
    ],
)
def test_a_url_names_another_database(url, engine, options):
    database = setting("s.DATABASES['default']", DATABASE_URL=url)

    assert database["ENGINE"] == f"django.db.backends.{engine}"
    assert database["OPTIONS"] == options


def test_connections_are_kept_where_debug_is_off():
    expression = "s.DATABASES['default']['CONN_MAX_AGE']"

    assert setting(expression) == 0
    assert setting(expression, DJANGO_DEBUG="0", DJANGO_SECRET_KEY=SECRET_KEY) == 60


def test_redis_is_given_a_tenth_of_a_second():
    assert setting("s.CACHES['default']", REDIS_URL="redis://cache:6379/1") == {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://cache:6379/1",
        "OPTIONS": {"socket_connect_timeout": 0.1, "socket_timeout": 0.1},
    }


@pytest.mark.parametrize(
    ("variables", "expression", "value"),
    [
        ({"DJANGO_ALLOWED_HOSTS": "a.org, b.org,"}, "s.ALLOWED_HOSTS", ["a.org", "b.org"]),
        ({"DJANGO_SECRET_KEY": "k"}, "s.SECRET_KEY", "k"),
        ({}, "hasattr(s, 'APIKEYS_PEPPERS')", False),
        ({"APIKEYS_PEPPER": "p"}, "s.APIKEYS_PEPPERS", {"main": "p"}),
        ({}, "s._MAILER", "django.core.mail.backends.console.EmailBackend"),
        (
            {"DJANGO_DEBUG": "0", "DJANGO_SECRET_KEY": "k"},
            "s._MAILER",
            "django.core.mail.backends.smtp.EmailBackend",
        ),
        ({}, "hasattr(s, 'SECURE_SSL_REDIRECT')", False),
        ({"DJANGO_HTTPS": "1"}, "s.SECURE_SSL_REDIRECT", True),
        ({"DJANGO_HTTPS": "1"}, "[s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE]", [True, True]),
        ({"DJANGO_HTTPS": "1"}, "hasattr(s, 'SECURE_PROXY_SSL_HEADER')", False),
    ],
)
def test_a_variable_makes_a_setting(variables, expression, value):
    assert setting(expression, **variables) == value


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"DJANGO_DEBUG": "0"},
            "With DJANGO_DEBUG=0 set DJANGO_SECRET_KEY: 50 random characters.",
        ),
        ({"DJANGO_DEBUG": "maybe"}, "DJANGO_DEBUG is 0 or 1, not 'maybe'."),
        ({"DJANGO_HTTPS": "yes"}, "DJANGO_HTTPS is 0 or 1, not 'yes'."),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(variables, message):
    done = manage("check", **variables)

    assert done.returncode == 1
    assert done.stderr.strip().endswith(f"ImproperlyConfigured: {message}")


def test_the_deployment_check_finds_nothing():
    done = manage("check", "--deploy", "--fail-level", "WARNING", **IN_PRODUCTION)

    assert (done.returncode, done.stdout.strip()) == (
        0,
        "System check identified no issues (0 silenced).",
    ), done.stderr


def test_manage_works_from_any_directory(tmp_path):
    """By its path, and with files beside it that have its modules' names."""
    (tmp_path / "example_project.py").write_text("raise SystemExit('the wrong one')")

    done = python(MANAGE, "makemigrations", "--check", "--dry-run", cwd=tmp_path)

    assert (done.returncode, done.stdout.strip()) == (0, "No changes detected"), done.stderr
