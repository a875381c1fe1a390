"""Settings of the example project: what a deployment changes comes from the environment.

    DJANGO_DEBUG          1     0 in production; then DJANGO_SECRET_KEY is needed
    DJANGO_SECRET_KEY           50 random characters or more
    DJANGO_ALLOWED_HOSTS        names, with commas between; default: this machine
    DJANGO_HTTPS          0     1: all traffic by HTTPS, with HSTS and secure cookies
    DATABASE_URL                postgres://…, mysql://…, sqlite:///…; default: db.sqlite3 here
    REDIS_URL                   redis://…; default: a cache in each process
    APIKEYS_PEPPER              50 random characters; default: derived from the secret key

Nothing of it is needed to try the project.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dj_database_url
import django
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent


def _switch(name: str, *, default: bool) -> bool:
    text = os.environ.get(name, "").strip() or str(int(default))
    if text not in ("0", "1"):
        raise ImproperlyConfigured(f"{name} is 0 or 1, not {text!r}.")
    return text == "1"


def _secret_key() -> str:
    key = os.environ.get("DJANGO_SECRET_KEY", "")
    if key:
        return key
    if DEBUG:
        return "a-fixed-key-for-development-it-is-no-secret"
    raise ImproperlyConfigured("With DJANGO_DEBUG=0 set DJANGO_SECRET_KEY: 50 random characters.")


def _database() -> dict[str, Any]:
    url = os.environ.get("DATABASE_URL") or f"sqlite:///{quote(str(BASE_DIR / 'db.sqlite3'))}"
    # runserver makes a thread for each request, and would keep a connection for each.
    database: dict[str, Any] = {
        **dj_database_url.parse(url, conn_max_age=0 if DEBUG else 60, conn_health_checks=not DEBUG)
    }
    options: dict[str, Any] = {}
    if database["ENGINE"] == "django.db.backends.sqlite3":
        # A transaction that begins by reading and then writes would fail at once where
        # another one writes; this one waits for its turn from the start.
        options = {"transaction_mode": "IMMEDIATE", "timeout": 20}
    elif database["ENGINE"] == "django.db.backends.mysql":
        import pymysql  # noqa: PLC0415 - needed by this database alone

        pymysql.install_as_MySQLdb()
        options = {"charset": "utf8mb4"}
    database["OPTIONS"] = {**options, **database.get("OPTIONS", {})}
    return database


def _cache() -> dict[str, Any]:
    url = os.environ.get("REDIS_URL")
    if not url:
        return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    return {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": url,
        # Seconds: a Redis that does not answer must not hold up every request.
        "OPTIONS": {"socket_connect_timeout": 0.1, "socket_timeout": 0.1},
    }


DEBUG = _switch("DJANGO_DEBUG", default=True)
SECRET_KEY = _secret_key()
ALLOWED_HOSTS = [
    host.strip()
    for host in os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
    if host.strip()
]
DATABASES = {"default": _database()}
CACHES = {"default": _cache()}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_filters",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_apikeys",
    "example_project.crm",
]
MIDDLEWARE = [
    # First, to see the answer that the client gets.
    "django_apikeys.middleware.APIKeyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    # The language of the browser; behind the session, and before what answers with a page.
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Static files are served from where they lie: no collectstatic, also without DEBUG.
WHITENOISE_USE_FINDERS = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
# Those that django_apikeys speaks.
LANGUAGES = [("en", "English"), ("de", "Deutsch"), ("fr", "Français"), ("es", "Español")]
TIME_ZONE = "UTC"
USE_TZ = True
# Mails are printed where DEBUG is on; else a server on this machine takes them.
_MAILER = f"django.core.mail.backends.{'console' if DEBUG else 'smtp'}.EmailBackend"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": _MAILER}}
else:
    EMAIL_BACKEND = _MAILER
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    # Django's own is silent where DEBUG is off.
    "loggers": {"django": {"handlers": ["stderr"], "level": "INFO"}},
}

REST_FRAMEWORK = {
    # Keys first: a key decides alone, and no session beside it is looked at.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "django_apikeys.drf.authentication.APIKeyAuthentication",
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["django_apikeys.drf.permissions.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["django_apikeys.drf.throttling.APIKeyThrottle"],
    "DEFAULT_PARSER_CLASSES": [
        "django_apikeys.drf.parsers.JSONParser",
        "rest_framework.parsers.FormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": ["django_apikeys.drf.renderers.EnvelopeJSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "django_apikeys.drf.pagination.EnvelopePagination",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "EXCEPTION_HANDLER": "django_apikeys.drf.exceptions.exception_handler",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Example CRM",
    "DESCRIPTION": "Customers, jobs, invoices, the price book and webhooks; and the API's keys.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    # The schema is for everybody, and its views are no part of it.
    "SERVE_AUTHENTICATION": [],
    "SERVE_INCLUDE_SCHEMA": False,
    # From this server, by drf-spectacular-sidecar.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# Keys belong to organisations, and crm/policy.py says who may do what with them.
APIKEYS_OWNER_MODEL = "crm.Organisation"
APIKEYS_POLICY = "example_project.crm.policy.OrganisationPolicy"
APIKEYS_PREFIXES = ["rak"]
APIKEYS_SCOPES = {
    "customers:read": "Read customers",
    "customers:write": "Create, change and delete customers",
    "jobs:read": "Read jobs",
    "jobs:write": "Create, change and delete jobs",
    "invoices:read": "Read invoices",
    "invoices:write": "Create, change and delete invoices",
    "pricebook:read": "Read the price book",
    "webhooks:write": "Create and change webhook subscriptions",
}
# The limits of each plan, over all keys of an organisation.
APIKEYS_PLANS = {
    "free": {"rate": "60/m", "quota": 10_000},
    "pro": {"rate": "300/m", "quota": 100_000},
    "enterprise": {},
}
if os.environ.get("APIKEYS_PEPPER"):
    APIKEYS_PEPPERS = {"main": os.environ["APIKEYS_PEPPER"]}

if _switch("DJANGO_HTTPS", default=False):
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    # No SECURE_PROXY_SSL_HEADER: Django would believe the header of anybody. Behind a
    # proxy that ends TLS, gunicorn takes the scheme from X-Forwarded-Proto, and only of
    # the proxies in its --forwarded-allow-ips (by default those on this machine).
