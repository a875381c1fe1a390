"""A secret is shown once, and stands nowhere else: not even where everything goes wrong."""

import base64
import copy
import importlib
import inspect
import logging
import pickle
import pkgutil
import pprint
import random
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import got_request_exception
from django.db import connection, transaction
from django.views.debug import ExceptionReporter

import django_apikeys
from django_apikeys import credentials, services, verification
from django_apikeys.actors import Actor
from django_apikeys.conf import conf
from django_apikeys.exceptions import APIKeyError
from django_apikeys.keys import format as secret_format
from django_apikeys.keys.format import ALPHABET, checksum
from django_apikeys.keys.masking import Secret
from django_apikeys.models import APIKeyEvent
from tests.conftest import FERNET_KEY, bearer

PACKAGE = Path(django_apikeys.__file__).parent
# Part of no request: other faces of the package, and what stands apart from the two doors.
APART = ("admin", "checks", "management", "migrations", "apps", "models", "signals", "conf")

# No steps of a request: objects as text, and how a middleware is made, before there is one.
NO_STEPS = ("__repr__", "__str__", "__hash__")
MADE_BEFORE = ("middleware", "asgi")


def pieces(secret):
    """Every 12 characters in a row of the part that nobody may know."""
    hidden = secret.split("_")[3][:43]
    return [hidden[start : start + 12] for start in range(len(hidden) - 11)]


def leaks(text, secret):
    return any(piece in text for piece in pieces(secret))


def basic(secret):
    return {"Authorization": f"Basic {base64.b64encode(f'ann:{secret}'.encode()).decode()}"}


def forged(secret):
    body = secret[:22] + secret[22:65][::-1]
    return body + checksum(body)


# --- What is stored, logged and printed ---------------------------------------------------


def whole_database():
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608
            for row in cursor.fetchall():
                yield table, repr([bytes(v) if isinstance(v, memoryview) else v for v in row])


@pytest.fixture
def life(as_user, client, caplog):
    """The answers to all calls in the life of a key, with its secret."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "django")
    connection.force_debug_cursor = True
    created = as_user.post("/api/keys/", {"name": "x", "scopes": ["customers:read"]})
    secret, path = created.json()["secret"], f"/api/keys/{created.json()['id']}/"
    answers = [
        client.get("/customers/", headers=bearer(secret)),
        client.get("/customers/", headers=basic(secret)),
        client.get("/customers/", headers={"X-API-Key": secret}),
        client.post("/customers/", headers=bearer(secret)),
        client.get("/undeclared/", headers=bearer(secret)),
        client.get("/customers/", headers=bearer(secret[:-1])),
        client.get("/customers/", headers=bearer(forged(secret))),
        client.get("/customers/", headers={**bearer(secret), "X-API-Key": secret}),
        client.get("/api/keys/self/", headers=bearer(secret)),
        as_user.get("/api/keys/"),
        as_user.get(path),
        as_user.patch(path, {"name": "y"}),
        as_user.post(f"{path}revoke/"),
        client.get("/customers/", headers=bearer(secret)),
        as_user.delete(path),
    ]
    yield secret, answers
    connection.force_debug_cursor = False


def test_secret_is_in_no_column(life):
    secret, _answers = life

    rows = list(whole_database())

    assert {"django_apikeys_apikey", "django_apikeys_apikeysecret", "django_session"} <= {
        table for table, _row in rows
    }
    assert [table for table, row in rows if leaks(row, secret)] == []


def test_secret_is_in_no_later_answer(life):
    secret, answers = life

    shown = [
        answer
        for answer in answers
        if leaks(answer.content.decode() + str(answer.headers) + str(answer.cookies), secret)
    ]

    assert shown == []


def test_secret_is_in_no_log_line_and_no_query(life, caplog):
    secret, _answers = life

    lines = [f"{record.getMessage()} {vars(record)!r}" for record in caplog.get_records("setup")]

    assert any("SELECT" in line for line in lines)
    assert [line for line in lines if leaks(line, secret)] == []
    assert [query for query in connection.queries_log if leaks(str(query), secret)] == []


def test_secret_is_in_no_session_and_no_cookie(life, as_user):
    secret, _answers = life

    kept = repr(dict(as_user.session.items())) + str(as_user.cookies)

    assert not leaks(kept, secret)


def everything_made_of(issued, rf):
    request = rf.get("/", headers=bearer(issued.secret))
    yield issued
    yield issued.secret
    yield issued.key
    yield issued.key.current_secret
    yield vars(issued.key)
    yield vars(issued.key.current_secret)
    yield APIKeyEvent.objects.get()
    yield vars(APIKeyEvent.objects.get())
    credential = credentials.extract(request)
    yield credential
    yield credentials.extract(rf.get("/", headers=basic(issued.secret)))
    yield credential.secret
    yield credential.secret.reveal()
    yield credential.secret.reveal()[22:]
    yield credential.secret.reveal()[30]
    yield secret_format.parse(credential.secret, ["rak"], ["live"])
    yield verification.verify(request)
    yield Actor.of(verification.verify(request))
    yield {"secret": issued.secret, "list": [issued.secret]}
    yield copy.deepcopy(issued.secret)


def test_secret_is_in_no_repr(issued, rf):
    hidden = issued.secret

    shown = [
        thing
        for thing in everything_made_of(issued, rf)
        if leaks(repr(thing) + pprint.pformat(thing), hidden)
    ]

    assert shown == []


def test_secret_is_in_no_text_but_the_secret_itself(issued, rf):
    hidden = issued.secret

    shown = [
        thing
        for thing in everything_made_of(issued, rf)
        if not isinstance(thing, str) and leaks(f"{thing} {thing!s} {thing!r}", hidden)
    ]

    assert shown == []


@pytest.mark.parametrize(
    ("headers", "prepare"),
    [
        pytest.param(lambda text: bearer(text[:-1]), None, id="malformed"),
        pytest.param(lambda text: bearer(forged(text)), None, id="wrong"),
        pytest.param(lambda text: {**bearer(text), "X-API-Key": text}, None, id="twice"),
        pytest.param(bearer, services.revoke_key, id="revoked"),
    ],
)
def test_secret_is_in_no_error(headers, prepare, issued, rf):
    if prepare:
        prepare(key=issued.key)

    with pytest.raises(APIKeyError) as error:
        verification.verify(rf.get("/", headers=headers(issued.secret)))

    text = f"{error.value} {error.value!r} {vars(error.value)!r} {error.value.args!r}"
    assert not leaks(text, issued.secret)


def test_secret_is_not_pickled(issued):
    with pytest.raises(TypeError, match="A Secret is not pickled"):
        pickle.dumps(Secret(issued.secret))


# --- Where a step raises ------------------------------------------------------------------


class Fault(RuntimeError):
    """What a broken step raises."""


def broken(*args, **kwargs):
    # The page shows the variables of this frame too.
    del args, kwargs
    raise Fault


def modules():
    for found in pkgutil.walk_packages([str(PACKAGE)], "django_apikeys."):
        if found.name.split(".")[1] not in APART and not found.name.endswith(".checks"):
            yield importlib.import_module(found.name)


def is_ours(function):
    return inspect.isfunction(function) and function.__code__.co_filename.startswith(str(PACKAGE))


def steps():
    """Every function of the two doors and their faces, as (holder, name)."""
    for module in modules():
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            if is_ours(inspect.unwrap(thing)) if callable(thing) else False:
                yield module, name
            if inspect.isclass(thing):
                for inner, attribute in vars(thing).items():
                    function = getattr(
                        attribute, "fget", getattr(attribute, "__func__", attribute)
                    )
                    made_before = (
                        inner == "__init__" and module.__name__.split(".")[1] in MADE_BEFORE
                    )
                    if is_ours(function) and inner not in NO_STEPS and not made_before:
                        yield thing, inner


def label(step):
    holder, name = step
    return f"{holder.__name__.removeprefix('django_apikeys.')}.{name}"


def code_of(step):
    holder, name = step
    thing = vars(holder)[name]
    function = getattr(thing, "fget", getattr(thing, "__func__", thing))
    return inspect.unwrap(function).__code__


def called_by(scenario):
    """The steps that *scenario* goes through: to break another changes nothing of it."""
    codes = set()
    for holder, name in STEPS:
        # What is remembered is not called a second time.
        getattr(vars(holder)[name], "cache_clear", lambda: None)()

    def note(frame, event, _argument):  # pragma: no cover - no tracer looks on within a profile
        if event == "call":
            codes.add(frame.f_code)

    sys.setprofile(note)
    threading.setprofile(note)  # of the thread of an event loop
    try:
        scenario()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return [step for step in STEPS if code_of(step) in codes]


def each_broken(scenario, raised):
    """Go through *scenario* once for each of its steps, which raises; undo it each time.

    Yield the name of the step, the answers, and the errors.
    """
    with undone():
        called = called_by(scenario)
    for step in called:
        raised.clear()
        with undone(), broken_step(*step):
            answers = scenario()
        yield label(step), answers, raised


@contextmanager
def undone():
    """Whatever is written while this lasts is not."""
    # Not atomic(): a request within is to be in no transaction that it knows of.
    before = transaction.savepoint()
    yield
    transaction.savepoint_rollback(before)


STEPS = list(steps())


@contextmanager
def broken_step(holder, name):
    """Let a function raise, in whatever module it was imported."""
    whole = vars(holder)[name]
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(whole, property):
            patch.setattr(holder, name, property(broken))
        elif isinstance(whole, (staticmethod, classmethod)):
            patch.setattr(holder, name, staticmethod(broken))
        elif inspect.isclass(holder):
            patch.setattr(holder, name, broken)
        else:
            for module in list(sys.modules.values()):
                of_ours = getattr(module, "__name__", "").startswith("django_apikeys")
                if of_ours and vars(module).get(name) is whole:
                    patch.setattr(module, name, broken)
        yield


@pytest.fixture
def raised(settings, client, as_user):
    """The errors that leave the views of a site that shows them."""
    errors = []

    def receiver(**facts):
        errors.append(sys.exception())

    settings.DEBUG = True
    client.raise_request_exception = as_user.raise_request_exception = False
    got_request_exception.connect(receiver)
    yield errors
    got_request_exception.disconnect(receiver)


def variables(error):
    """Yield the local variables of all frames of ours that *error* and its causes went by."""
    seen = set()
    pending = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        pending += [one.__cause__, one.__context__]
        trace = one.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if code.co_filename.startswith(str(PACKAGE)):
                for name, value in trace.tb_frame.f_locals.items():
                    yield f"{Path(code.co_filename).name}:{code.co_name}:{name}", value
            trace = trace.tb_next


def shown_variables(errors, secret):
    return [
        name
        for error in errors
        for name, value in variables(error)
        if leaks(f"{value!r} {pprint.pformat(value)}", secret)
    ]


WAYS = {
    "bearer": bearer,
    "x-api-key": lambda text: {"X-API-Key": text},
    "basic": basic,
    "basic-without-padding": lambda text: {
        "Authorization": basic(text)["Authorization"].rstrip("=") + "!"
    },
    "wrong-checksum": lambda text: bearer(text[:-6] + "000000"),
    "unknown": lambda text: bearer(forged(text[:9] + text[9:21][::-1] + text[21:])),
    "wrong-digest": lambda text: bearer(forged(text)),
    "twice": lambda text: {"Authorization": f"Bearer {text}, Bearer {text}"},
}


def in_the_page(content, secret):
    header = basic(secret)["Authorization"]
    encoded = [header[start : start + 16] for start in range(14, len(header) - 16)]
    return leaks(content, secret) or any(piece in content for piece in encoded)


STEPS_OF_EVERY_FACE = {
    "credentials.extract",
    "credentials._header",
    "credentials._read",
    "credentials._read_basic",
    "credentials._decode",
    "credentials._whole",
    "credentials._begins_as_ours",
    "keys.format.parse",
    "keys.format.checksum",
    "keys.format.mask",
    "Secret.__init__",
    "Secret.reveal",
    "verification.verify",
    "verification._verify",
    "verification._look_up",
    "verification._check_secret",
    "verification._check_restrictions",
    "verification._grant",
    "HMACHasher.verify",
    "HMACHasher.burn",
    "HMACHasher._hex",
    "HMACHasher.knows",
    "keys.restrictions.refusal",
    "keys.networks.contains",
    "keys.networks.parse_address",
    "Grant.has_scope",
    "users.request_user",
    "UserPolicy.is_active",
    "UserPolicy.basic_usernames",
    "declarations.declared_scopes",
    "caching.patch_guarded",
    "caching.never_store",
    "Answer.patch",
}
STEPS_OF_FACES = {
    "/customers/": {
        "APIKeyAuthentication.authenticate",
        "HasScope.has_permission",
        "drf.exceptions.as_api_exception",
    },
    "/plain/": {
        "admission.admit",
        "admission._act_for",
        "answers.refusal_response",
        "decorators._headed",
        "limits.spend",
    },
    "/async-plain/": {
        "admission.aadmit",
        "admission.admit",
        "admission._in_a_thread",
        "answers.refusal_response",
        "decorators._headed",
        "limits.spend",
    },
}


@pytest.mark.parametrize("path", STEPS_OF_FACES)
def test_each_step_of_verification_that_raises_shows_nothing(path, issued, client, raised):
    services.update_key(key=issued.key, allowed_ips=["127.0.0.1"])
    secret = issued.secret
    requests = [headers(secret) for headers in WAYS.values()]
    raising, shown = set(), {}

    def ask():
        return [client.get(path, headers=one).content.decode() for one in requests]

    for name, pages, errors in each_broken(ask, raised):
        raising |= {name} if errors else set()
        shown[name] = shown_variables(errors, secret)
        shown[name] += [page for page in pages if in_the_page(page, secret)]

    assert raising >= STEPS_OF_EVERY_FACE | STEPS_OF_FACES[path]
    assert {name: found for name, found in shown.items() if found} == {}


STEPS_OF_CREATE = {
    "APIKeyViewSet.create",
    "services.keys.create_key",
    "services.changes.record",
    "services.changes.announce",
    "services.changes.in_transaction",
    "keys.format.generate",
    "keys.format._random_text",
    "keys.format.checksum",
    "keys.format.mask",
    "Secret.__init__",
    "Secret.reveal",
    "IssuedSecret.secret",
    "HMACHasher.digest",
    "HMACHasher._hex",
    "validation.clean",
    "Actor.from_request",
    "representation.key_as_dict",
    "representation.moment",
    "UserPolicy.owner_name",
    "NewKeyInput.validate_owner",
}


def foresee(monkeypatch):
    """Return the secret of the next key, whose 256 bits are not left to chance."""
    monkeypatch.setattr("secrets.choice", random.Random(5).choice)  # noqa: S311 - on purpose
    foretold = random.Random(5)  # noqa: S311 - the same
    public_id = "".join(foretold.choice(ALPHABET) for _ in range(12))
    return f"rak_live_{public_id}_{''.join(foretold.choice(ALPHABET) for _ in range(43))}000000"


@pytest.fixture
def foreseen(as_user, monkeypatch):
    """The secret of the next key."""
    return foresee(monkeypatch)


def test_secret_is_foreseen(foreseen, as_user):
    response = as_user.post("/api/keys/", {"name": "x"})

    assert response.json()["secret"][:-6] == foreseen[:-6]


def test_each_step_of_create_that_raises_shows_nothing(monkeypatch, as_user, raised):
    raising, shown = set(), {}

    def create():
        foresee(monkeypatch)
        return as_user.post("/api/keys/", {"name": "x", "scopes": ["customers:read"]})

    foreseen = foresee(monkeypatch)
    for name, answer, errors in each_broken(create, raised):
        raising |= {name} if errors else set()
        shown[name] = shown_variables(errors, foreseen)
        has_it = answer.status_code == 500 and leaks(answer.content.decode(), foreseen)
        shown[name] += ["the page"] * has_it

    assert raising >= STEPS_OF_CREATE
    assert {name: found for name, found in shown.items() if found} == {}


@pytest.mark.parametrize(
    "target",
    [
        "rest_framework.renderers.JSONRenderer.render",
        "rest_framework.response.Response.__init__",
        "django_apikeys.models.APIKeySecret.objects.create",
        "django_apikeys.models.APIKeyEvent.objects.create",
        "django.contrib.messages.middleware.MessageMiddleware.process_response",
        "hmac.digest",
        "zlib.crc32",
    ],
)
def test_foreign_step_of_create_that_raises_shows_nothing(target, foreseen, as_user, raised):
    form = "application/x-www-form-urlencoded"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, broken)
        response = as_user.post("/api/keys/", "name=x", content_type=form)

    assert response.status_code == 500
    assert not leaks(response.content.decode(), foreseen)
    assert raised
    assert shown_variables(raised, foreseen) == []


@pytest.mark.usefixtures("raised")
@pytest.mark.parametrize("path", ["/failing/runtime-error/", "/nowhere/"])
@pytest.mark.parametrize("way", WAYS)
def test_error_page_of_the_host_shows_nothing(path, way, issued, client):

    response = client.get(path, headers=WAYS[way](issued.secret))

    assert not in_the_page(response.content.decode(), issued.secret)


@pytest.mark.usefixtures("raised")
def test_error_page_shows_variables_of_ours(issued, client):
    with broken_step(verification, "_look_up"):
        page = client.get("/customers/", headers=bearer(issued.secret)).content.decode()

    assert "&lt;Secret ***&gt;" in page


# --- Where a step of a reveal raises ------------------------------------------------------

PASSWORD = "a-password-that-nobody-may-see"
STEPS_OF_REVEAL = {
    "APIKeyViewSet.reveal",
    "APIKeyViewSet._permitted",
    "drf.serializers.masked_data",
    "_Password.to_internal_value",
    "StrictSerializer.to_internal_value",
    "logins.require_fresh",
    "logins._confirm",
    "logins._session_of",
    "logins._stamp",
    "services.retrieval.require_revealable",
    "services.retrieval.reveal_secret",
    "services.retrieval._read",
    "services.retrieval._is_of",
    "FernetCipher.decrypt",
    "keys.ciphers._token",
    "keys.format.parse",
    "keys.format.checksum",
    "HMACHasher.verify",
    "HMACHasher._hex",
    "Secret.__init__",
    "Secret.reveal",
    "IssuedSecret.secret",
    "services.changes.record",
    "services.changes.announce",
    "representation.key_as_dict",
}


@pytest.fixture
def retrieved(retrievable, no_guesses, issued, user, as_user):
    """A secret that is kept; its owner has the password that nobody may see."""
    user.set_password(PASSWORD)
    user.save()
    as_user.force_login(user)
    return issued.secret


def reveal(client, issued, *, by_form=False):
    body = f"password={PASSWORD}" if by_form else f'{{"password": "{PASSWORD}"}}'
    kind = "x-www-form-urlencoded" if by_form else "json"
    path = f"/api/keys/{issued.key.pk}/reveal/"
    return client.post(path, body, content_type=f"application/{kind}")


def test_what_is_retrieved_is_the_secret(retrieved, issued, as_user):
    assert reveal(as_user, issued).json()["secret"] == retrieved


def test_each_step_of_a_reveal_that_raises_shows_nothing(retrieved, issued, as_user, raised):
    raising, shown = set(), {}

    for name, answer, errors in each_broken(lambda: reveal(as_user, issued), raised):
        page = answer.content.decode()
        raising |= {name} if errors else set()
        shown[name] = shown_variables(errors, retrieved)
        shown[name] += [
            at for e in errors for at, value in variables(e) if PASSWORD in repr(value)
        ]
        has_it = PASSWORD in page or (answer.status_code != 200 and leaks(page, retrieved))
        shown[name] += ["the page"] * has_it

    assert raising >= STEPS_OF_REVEAL
    assert {name: found for name, found in shown.items() if found} == {}


@pytest.mark.parametrize(
    "target",
    [
        "cryptography.fernet.MultiFernet.decrypt",
        "django.contrib.auth.backends.ModelBackend.authenticate",
        "django.core.cache.backends.locmem.LocMemCache.decr",
        "django.contrib.sessions.backends.base.SessionBase.__setitem__",
        "rest_framework.renderers.JSONRenderer.render",
        "rest_framework.response.Response.__init__",
        "rest_framework.serializers.Serializer.run_validation",
        "django_apikeys.models.APIKeyEvent.objects.create",
        "hmac.digest",
        "zlib.crc32",
    ],
)
def test_foreign_step_of_a_reveal_that_raises_shows_nothing(
    target, retrieved, issued, as_user, raised
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, broken)
        answer = reveal(as_user, issued)

    assert raised or target.endswith("decr")
    assert answer.status_code == 200 or not leaks(answer.content.decode(), retrieved)
    assert PASSWORD not in answer.content.decode()
    assert shown_variables(raised, retrieved) == []
    assert [name for e in raised for name, value in variables(e) if PASSWORD in repr(value)] == []


def test_a_reveal_that_is_refused_logs_no_password(retrieved, issued, as_user, user, caplog):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "django")
    user.set_password("another")
    user.save()
    as_user.force_login(user)

    answer = reveal(as_user, issued)

    assert answer.status_code == 403
    assert caplog.records
    assert PASSWORD not in answer.content.decode() + str(dict(as_user.session))
    assert [line for line in caplog.records if PASSWORD in repr(vars(line))] == []


@pytest.mark.usefixtures("retrieved", "raised")
def test_a_report_of_an_error_has_no_password_of_a_form(issued, as_user, settings):
    """What is sent to ADMINS where a site shows nothing itself."""
    reports = []

    def report(request, **facts):
        reports.append(ExceptionReporter(request, *sys.exc_info()).get_traceback_text())

    settings.DEBUG = False
    got_request_exception.connect(report)

    with broken_step(services.retrieval, "_read"):
        reveal(as_user, issued, by_form=True)

    assert [("password = " in text, PASSWORD in text) for text in reports] == [(True, False)]


# --- Where a setting is wrong -------------------------------------------------------------

PEPPER = "a pepper that nobody may see"


@pytest.mark.parametrize("name", ["PEPPERS", "PEPPER_CURRENT", "hasher"])
@pytest.mark.parametrize(
    "peppers",
    [
        pytest.param([PEPPER], id="list"),
        pytest.param(PEPPER, id="text"),
        pytest.param({1: PEPPER}, id="number for an id"),
        pytest.param({"a b": PEPPER}, id="space in the id"),
        pytest.param({"a": PEPPER.encode()}, id="bytes"),
        pytest.param({"a": PEPPER, "b": ""}, id="empty beside it"),
    ],
)
def test_pepper_that_is_set_wrongly_is_in_no_frame(name, peppers, settings):
    settings.APIKEYS_PEPPERS = peppers

    with pytest.raises(ImproperlyConfigured) as error:
        getattr(conf, name)

    shown = dict(variables(error.value))
    assert "conf.py:PEPPERS:problem" in shown
    assert [where for where, value in shown.items() if PEPPER in repr(value)] == []
    assert PEPPER not in str(error.value)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(FERNET_KEY, id="text"),
        pytest.param({"one": FERNET_KEY}, id="dict"),
        pytest.param([FERNET_KEY, ""], id="empty beside it"),
        pytest.param([FERNET_KEY.encode()], id="bytes"),
    ],
)
def test_encryption_key_that_is_set_wrongly_is_in_no_frame(keys, settings):
    settings.APIKEYS_ENCRYPTION_KEYS = keys

    with pytest.raises(ImproperlyConfigured) as error:
        _ = conf.ENCRYPTION_KEYS

    shown = dict(variables(error.value))
    assert "conf.py:ENCRYPTION_KEYS:problem" in shown
    assert [where for where, value in shown.items() if FERNET_KEY in repr(value)] == []
    assert FERNET_KEY not in str(error.value)
