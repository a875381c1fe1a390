import pytest
from django.core.exceptions import ValidationError

from django_apikeys import exceptions
from django_apikeys.exceptions import (
    AddressNotAllowed,
    APIKeyError,
    BeyondCeiling,
    ChangeRefused,
    Conflict,
    InsufficientScope,
    InvalidInput,
    InvalidKey,
    InvalidRequest,
    KeyRefused,
    LimitsUnavailable,
    MalformedKey,
    NotAuthenticated,
    NotPermitted,
    PasswordRequired,
    PasswordUnavailable,
    Refused,
    TooManyPasswords,
    Unavailable,
    UnknownKey,
    WrongSecret,
)

INVALID_TOKEN = (
    'Bearer realm="api", error="invalid_token", error_description="Invalid or expired API key."'
)
CODES_OF_DEAD_KEYS = (
    "retired_secret",
    "revoked_key",
    "disabled_key",
    "expired_key",
    "inactive_owner",
)


@pytest.mark.parametrize(
    ("error", "status", "code", "challenge"),
    [
        pytest.param(
            NotAuthenticated(), 401, "not_authenticated", 'Bearer realm="api"', id="no credential"
        ),
        pytest.param(MalformedKey(), 401, "invalid_key", INVALID_TOKEN, id="malformed"),
        pytest.param(UnknownKey(), 401, "invalid_key", INVALID_TOKEN, id="unknown"),
        pytest.param(
            WrongSecret("7Fq2Lm9XcT0a"), 401, "invalid_key", INVALID_TOKEN, id="wrong digest"
        ),
        *(
            pytest.param(KeyRefused(code, "7Fq2"), 401, code, INVALID_TOKEN, id=code)
            for code in CODES_OF_DEAD_KEYS
        ),
        pytest.param(
            InvalidRequest(),
            400,
            "invalid_request",
            'Bearer realm="api", error="invalid_request"',
            id="two credentials",
        ),
        pytest.param(
            AddressNotAllowed("7Fq2"), 403, "address_not_allowed", None, id="address not allowed"
        ),
        pytest.param(
            InsufficientScope(["jobs:write"]),
            403,
            "insufficient_scope",
            'Bearer realm="api", error="insufficient_scope", scope="jobs:write"',
            id="scope missing",
        ),
        pytest.param(
            InsufficientScope(None),
            403,
            "insufficient_scope",
            'Bearer realm="api", error="insufficient_scope"',
            id="a view that declares none",
        ),
        pytest.param(TooManyPasswords(5), 429, "rate_limited", None, id="too many passwords"),
        pytest.param(LimitsUnavailable(), 503, "unavailable", None, id="limits"),
        pytest.param(PasswordUnavailable(), 503, "unavailable", None, id="passwords"),
        pytest.param(Unavailable(), 503, "unavailable", None, id="we cannot know"),
    ],
)
def test_answer_to_a_request(error, status, code, challenge):
    assert isinstance(error, Refused)
    assert (error.status, error.code, error.challenge) == (status, code, challenge)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        pytest.param(InvalidInput({"name": ["x"]}), 400, "invalid", id="bad input"),
        pytest.param(NotPermitted("x"), 403, "permission_denied", id="the policy forbids it"),
        pytest.param(
            BeyondCeiling({"scopes": ["a:b"]}), 403, "beyond_ceiling", id="beyond the ceiling"
        ),
        pytest.param(PasswordRequired("x"), 403, "password_required", id="an old login"),
        pytest.param(Conflict("x"), 409, "conflict", id="state does not allow it"),
    ],
)
def test_answer_to_a_change(error, status, code):
    assert isinstance(error, ChangeRefused)
    assert (error.status, error.code) == (status, code)


@pytest.mark.parametrize(
    "error",
    [
        MalformedKey(),
        UnknownKey(),
        WrongSecret("7Fq2Lm9XcT0a"),
        *(KeyRefused(c, "7") for c in CODES_OF_DEAD_KEYS),
    ],
    ids=repr,
)
def test_the_message_of_every_401_to_a_key_is_the_same(error):
    assert error.message == "Invalid or expired API key."


def test_invalid_keys_do_not_tell_which_they_are():
    answers = {
        (error.status, error.code, error.challenge, str(error))
        for error in (MalformedKey(), UnknownKey(), WrongSecret("7Fq2Lm9XcT0a"))
    }

    assert len(answers) == 1
    assert all(issubclass(cls, InvalidKey) for cls in (MalformedKey, UnknownKey, WrongSecret))


def test_every_error_belongs_to_the_tree():
    errors = {
        value
        for value in vars(exceptions).values()
        if isinstance(value, type) and value.__module__ == "django_apikeys.exceptions"
    }

    assert len(errors) == 23
    assert all(issubclass(error, APIKeyError) for error in errors)


class TestRefused:
    def test_text_is_code_and_message(self):
        assert str(KeyRefused("revoked_key", "7Fq2")) == "revoked_key: Invalid or expired API key."

    @pytest.mark.parametrize(
        "error",
        [
            KeyRefused("revoked_key", "7Fq2"),
            AddressNotAllowed("7Fq2"),
            InsufficientScope(["jobs:read"], public_id="7Fq2"),
        ],
        ids=repr,
    )
    def test_names_the_key_that_was_found(self, error):
        assert error.public_id == "7Fq2"

    def test_a_code_of_one_refusal_is_not_that_of_the_next(self):
        KeyRefused("revoked_key", "7Fq2")

        assert KeyRefused.code == "invalid_key"
        assert KeyRefused("expired_key", "x").code == "expired_key"


class TestInsufficientScope:
    def test_names_all_that_is_asked_for_in_order(self):
        error = InsufficientScope({"jobs:write", "customers:read"})

        assert error.required == ("customers:read", "jobs:write")
        assert error.message == "This API key lacks a scope: customers:read, jobs:write."
        assert error.challenge == (
            'Bearer realm="api", error="insufficient_scope", scope="customers:read jobs:write"'
        )

    def test_says_what_to_declare_where_a_view_declares_nothing(self):
        error = InsufficientScope(None)

        assert error.required is None
        assert "required_scopes, scope_resource or" in error.message
        assert "HasScope(…) in permission_classes" in error.message


class TestUnavailable:
    def test_says_when_to_come_again(self):
        assert Unavailable().retry_after == 5
        assert Unavailable(retry_after=2).retry_after == 2

    def test_no_other_refusal_does(self):
        assert NotAuthenticated().retry_after is None


class TestChangeRefused:
    def test_text_is_the_message(self):
        assert str(Conflict("This key is revoked.")) == "This key is revoked."
        assert Conflict("This key is revoked.").message == "This key is revoked."


class TestInvalidInput:
    def test_names_every_bad_field(self):
        error = InvalidInput({"name": ["too long", "odd"], "scopes": ValidationError("unknown")})

        assert error.message_dict == {"name": ["too long", "odd"], "scopes": ["unknown"]}
        assert str(error) == "name: too long odd scopes: unknown"

    def test_is_what_forms_understand(self):
        assert issubclass(InvalidInput, ValidationError)
