import base64
import sys

import pytest
from django.test import RequestFactory
from django.views.debug import ExceptionReporter
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_apikeys.credentials import Credential, extract
from django_apikeys.exceptions import InvalidRequest, MalformedKey, Refused
from django_apikeys.keys.format import generate
from django_apikeys.keys.masking import Secret

SECRET = "rak_live_7Fq2Lm9XcT0a_A3f2Kq9ZbYw0LrT7mVxD5sHnC8eJ1uGpQo4iRk6WtB20xFcJm"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.2yTOTfMtMkoOiwPfAGo7VFxNp8bhRzdYnBpwlGF2ZAk"
DIGEST = 'Digest username="ann", realm="api", nonce="rak_1", uri="/", response="0"'
one_second = hypothesis_settings(max_examples=200, deadline=None)


def request(**meta):
    return RequestFactory().get("/", **meta)


def authorization(value, **meta):
    return request(HTTP_AUTHORIZATION=value, **meta)


def basic(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return f"Basic {base64.b64encode(raw).decode()}"


def outcome(request):
    """Return text and user name of what is found, None, or the class of the error."""
    try:
        credential = extract(request)
    except Refused as error:
        return type(error)
    return None if credential is None else (credential.secret.reveal(), credential.username)


class TestFourWays:
    @pytest.mark.parametrize(
        ("meta", "expected"),
        [
            pytest.param({}, None, id="nothing"),
            pytest.param({"HTTP_AUTHORIZATION": f"Bearer {SECRET}"}, (SECRET, None), id="Bearer"),
            pytest.param(
                {"HTTP_AUTHORIZATION": f"Api-Key {SECRET}"}, (SECRET, None), id="Api-Key"
            ),
            pytest.param({"HTTP_X_API_KEY": SECRET}, (SECRET, None), id="X-API-Key"),
            pytest.param(
                {"HTTP_AUTHORIZATION": basic(f"ann:{SECRET}")}, (SECRET, "ann"), id="Basic"
            ),
            pytest.param(
                {"HTTP_AUTHORIZATION": basic(f":{SECRET}")},
                (SECRET, ""),
                id="Basic without a user name",
            ),
            pytest.param({"QUERY_STRING": f"api_key={SECRET}"}, None, id="query parameter"),
            pytest.param({"HTTP_COOKIE": f"key={SECRET}"}, None, id="cookie"),
            pytest.param({"HTTP_PROXY_AUTHORIZATION": f"Bearer {SECRET}"}, None, id="for a proxy"),
        ],
    )
    def test_request(self, meta, expected):
        assert outcome(request(**meta)) == expected


class TestScheme:
    @pytest.mark.parametrize(
        "scheme", ["Bearer", "bearer", "BEARER", "bEaReR", "Api-Key", "api-key", "API-KEY"]
    )
    def test_case_does_not_matter(self, scheme):
        assert outcome(authorization(f"{scheme} {SECRET}")) == (SECRET, None)

    @pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
    def test_case_of_basic_does_not_matter(self, scheme):
        value = basic(f"ann:{SECRET}").removeprefix("Basic")

        assert outcome(authorization(scheme + value)) == (SECRET, "ann")

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(f"Bearer{SECRET}", id="no space"),
            pytest.param(f"Bearer:{SECRET}", id="colon"),
            pytest.param(f"Bearer: {SECRET}", id="colon and space"),
            pytest.param(f"Bearer={SECRET}", id="equals sign"),
            pytest.param(f"Bearers {SECRET}", id="longer"),
            pytest.param(f"Bear {SECRET}", id="shorter"),
            pytest.param(f"xBearer {SECRET}", id="letter before"),
            pytest.param(f"Api-Keys {SECRET}", id="longer Api-Key"),
            pytest.param(f"ApiKey {SECRET}", id="Api-Key without the dash"),
            pytest.param(f"Api_Key {SECRET}", id="Api-Key with an underscore"),
            pytest.param(f"Api Key {SECRET}", id="Api-Key in two words"),
            pytest.param(f"X-API-Key {SECRET}", id="name of the header"),
            pytest.param(f"Token {SECRET}", id="Token"),
            pytest.param(f"Bearer\xa0{SECRET}", id="no-break space"),
            pytest.param(f"Bearer\x00{SECRET}", id="NUL"),
            pytest.param(f'"Bearer" {SECRET}', id="quotes"),
            pytest.param("Bearer", id="Bearer alone"),
            pytest.param("Basic", id="Basic alone"),
            pytest.param("", id="empty"),
            pytest.param(" \t", id="blank"),
        ],
    )
    def test_is_matched_whole(self, value):
        assert outcome(authorization(value)) is None


class TestWhiteSpace:
    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(f"  Bearer {SECRET}", id="before"),
            pytest.param(f"Bearer {SECRET}  ", id="after"),
            pytest.param(f"Bearer    {SECRET}", id="several between"),
            pytest.param(f"Bearer\t{SECRET}", id="tab between"),
            pytest.param(f"\tBearer \t {SECRET}\t", id="tabs everywhere"),
            pytest.param(f"Bearer {SECRET}\n", id="line feed after"),
            pytest.param(f"Bearer {SECRET}\r\n", id="line break after"),
            pytest.param(f"\r\nBearer {SECRET}", id="line break before"),
            pytest.param(f"Bearer\r\n {SECRET}", id="line break between"),
            pytest.param(f"Api-Key \t{SECRET}\r\n", id="Api-Key"),
        ],
    )
    def test_around_is_trimmed(self, value):
        assert outcome(authorization(value)) == (SECRET, None)

    @pytest.mark.parametrize("value", [f" {SECRET}", f"{SECRET}\r\n", f"\t{SECRET} \n"])
    def test_around_x_api_key_is_trimmed(self, value):
        assert outcome(request(HTTP_X_API_KEY=value)) == (SECRET, None)

    def test_around_the_base64_is_trimmed(self):
        value = basic(f"ann:{SECRET}").replace(" ", " \t ")

        assert outcome(authorization(f"  {value}\r\n")) == (SECRET, "ann")

    def test_around_the_password_is_trimmed(self):
        assert outcome(authorization(basic(f"ann: {SECRET} "))) == (SECRET, "ann")

    def test_within_stays_and_makes_the_secret_malformed_later(self):
        assert outcome(authorization("Bearer rak_live_ 7Fq2")) == ("rak_live_ 7Fq2", None)


class TestWhatIsOurs:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            pytest.param("Bearer rak_", ("rak_", None), id="prefix alone"),
            pytest.param("Bearer rak_x", ("rak_x", None), id="prefix and rubbish"),
            pytest.param("Bearer rak_live_\xff", ("rak_live_\xff", None), id="not UTF-8"),
            pytest.param("Bearer rak_\x00", ("rak_\x00", None), id="NUL"),
            pytest.param("Api-Key x", ("x", None), id="all under Api-Key"),
            pytest.param("Api-Key", ("", None), id="Api-Key alone"),
            pytest.param(f"Api-Key {JWT}", (JWT, None), id="a JWT under Api-Key"),
            pytest.param("Api-Key a b", ("a b", None), id="two words under Api-Key"),
        ],
    )
    def test_taken(self, value, expected):
        assert outcome(authorization(value)) == expected

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(f"Bearer {JWT}", id="JWT"),
            pytest.param("Bearer 9c1185a5c5e9fc54612808977ee8f548b2258d31", id="opaque token"),
            pytest.param("Bearer rak", id="prefix without underscore"),
            pytest.param("Bearer rakx_live_7Fq2", id="longer prefix"),
            pytest.param("Bearer RAK_live_7Fq2", id="prefix in capitals"),
            pytest.param("Bearer key_live_7Fq2", id="prefix of another project"),
            pytest.param(f'Bearer "{SECRET}"', id="in quotes"),
            pytest.param("Token 9c1185a5c5e9fc54612808977ee8f548b2258d31", id="Token"),
            pytest.param("Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+gJDAi", id="Negotiate"),
            pytest.param(DIGEST, id="Digest, which has commas"),
            pytest.param(f"Unknown {SECRET}", id="unknown scheme"),
            pytest.param(basic("ann:password"), id="password"),
            pytest.param(basic("ann:"), id="empty password"),
            pytest.param(basic(":"), id="colon alone"),
            pytest.param(basic(""), id="nothing in base64"),
            pytest.param(basic("ann"), id="no colon"),
            pytest.param(basic("ann:pass:rak_word"), id="colon in a password"),
            pytest.param(basic("änn:pässwörd"), id="beyond ASCII"),
            pytest.param(basic(b"ann:p\xe4ssword"), id="Latin-1"),
            pytest.param(basic("ann:rak"), id="password like a prefix"),
            pytest.param(basic("ann:xrak_live"), id="password with a prefix within"),
        ],
    )
    def test_left_to_the_next_class(self, value):
        assert outcome(authorization(value)) is None

    @pytest.mark.parametrize("name", ["key_master", "key_", "key_live_x", "key_live_7Fq2Lm9XcT0a"])
    def test_a_user_name_that_begins_like_a_secret(self, settings, name):
        settings.APIKEYS_PREFIXES = ["key"]

        assert outcome(authorization(basic(f"{name}:password"))) is None

    def test_every_prefix_counts(self, settings):
        settings.APIKEYS_PREFIXES = ["new", "rak"]

        assert outcome(authorization(f"Bearer {SECRET}")) == (SECRET, None)
        assert outcome(authorization("Bearer new_x")) == ("new_x", None)


class TestBasic:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param(f"ann@example.com:{SECRET}", (SECRET, "ann@example.com"), id="e-mail"),
            pytest.param(f"änn:{SECRET}", (SECRET, "änn"), id="user name beyond ASCII"),
            pytest.param(
                f"key_master:{SECRET}", (SECRET, "key_master"), id="user name like a key"
            ),
            pytest.param("ann:rak_x", ("rak_x", "ann"), id="rubbish of ours"),
            pytest.param(f"ann:{SECRET}:x", (f"{SECRET}:x", "ann"), id="colon in the password"),
            pytest.param(f"a b:{SECRET}", (SECRET, "a b"), id="space in the user name"),
            pytest.param(b"\xe4nn:rak_x", ("rak_x", "\udce4nn"), id="user name not UTF-8"),
            pytest.param(b"ann:rak_\xff", ("rak_\udcff", "ann"), id="password not UTF-8"),
        ],
    )
    def test_taken(self, text, expected):
        assert outcome(authorization(basic(text))) == expected

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(f"{SECRET}:", id="empty password"),
            pytest.param(f"{SECRET}:password", id="password"),
            pytest.param(f"{SECRET}:{SECRET}", id="and as password"),
            pytest.param(SECRET, id="no colon"),
            pytest.param(f" {SECRET} :", id="white space around"),
            pytest.param(f"{SECRET[:-6]}000000:", id="wrong checksum"),
        ],
    )
    def test_secret_as_user_name_is_refused(self, text):
        """Servers log user names."""
        assert outcome(authorization(basic(text))) is MalformedKey

    def test_secret_that_is_not_encoded_is_refused(self):
        assert outcome(authorization(f"Basic {SECRET}")) is MalformedKey

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(f"ann:{SECRET}\n", id="line break after the secret"),
            pytest.param(f"ann:\t{SECRET}", id="tab before the secret"),
            pytest.param(f"an\x00n:{SECRET}", id="NUL in the user name"),
            pytest.param(f"ann:{SECRET}\x7f", id="delete"),
            pytest.param("ann:pass\x00word", id="NUL in a password"),
            pytest.param("ann\r\n:password", id="line break in a user name"),
            pytest.param("\x1f", id="nothing else"),
        ],
    )
    def test_control_characters_are_refused(self, text):
        assert outcome(authorization(basic(text))) is MalformedKey

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda text: text.rstrip("="), id="unpadded"),
            pytest.param(lambda text: text + "=", id="padded too far"),
            pytest.param(lambda text: text[:9] + " " + text[9:], id="space within"),
            pytest.param(lambda text: text[:9] + "\r\n" + text[9:], id="line break within"),
            pytest.param(lambda text: text[:9] + "é" + text[9:], id="not ASCII"),
            pytest.param(lambda text: text[:9] + "\x00" + text[9:], id="NUL within"),
            pytest.param(lambda text: "=" + text, id="equals sign first"),
            pytest.param(lambda text: text.rstrip("=") + "A", id="half a digit more"),
            pytest.param(lambda text: text[:41], id="cut"),
        ],
    )
    def test_ours_in_broken_base64_is_refused(self, change):
        broken = change(basic(f"ann1:{SECRET}").removeprefix("Basic "))

        assert outcome(authorization(f"Basic {broken}")) is MalformedKey

    def test_ours_in_url_safe_base64_is_refused(self):
        text = base64.urlsafe_b64encode(f"ann~~~???:{SECRET}".encode()).decode()

        assert {"-", "_"} & set(text)
        assert outcome(authorization(f"Basic {text}")) is MalformedKey

    def test_secret_as_user_name_in_broken_base64_is_refused(self):
        value = basic(f"{SECRET}:x").rstrip("=")

        assert outcome(authorization(value)) is MalformedKey

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(basic("ann:password").rstrip("="), id="unpadded"),
            pytest.param(basic("ann:password") + "=", id="padded too far"),
            pytest.param(
                basic("ann:password")[:12] + " " + basic("ann:password")[12:], id="space"
            ),
            pytest.param("Basic A", id="one digit"),
            pytest.param("Basic =", id="padding alone"),
            pytest.param("Basic !!!!", id="no digits"),
            pytest.param("Basic é", id="not ASCII"),
            pytest.param("Basic \x00", id="NUL"),
            pytest.param("Basic ann:password", id="not encoded"),
        ],
    )
    def test_broken_base64_of_others_is_left_to_the_next_class(self, value):
        assert outcome(authorization(value)) is None


class TestTwoCredentials:
    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(f"Bearer {SECRET}, Bearer {SECRET}", id="Bearer twice"),
            pytest.param(f"Bearer {SECRET},Bearer {SECRET}", id="Bearer twice without space"),
            pytest.param(f"Bearer {JWT}, Bearer {SECRET}", id="JWT, then ours"),
            pytest.param(f"Bearer {SECRET}, Bearer {JWT}", id="ours, then JWT"),
            pytest.param(f"{basic('ann:password')}, Bearer {SECRET}", id="Basic, then ours"),
            pytest.param(f"{basic(f'ann:{SECRET}')}, {basic('a:b')}", id="ours in Basic, Basic"),
            pytest.param(
                f"{basic(f'{SECRET}:')}, {basic('a:b')}", id="secret as user name, Basic"
            ),
            pytest.param(f"Api-Key {SECRET}, Api-Key {SECRET}", id="Api-Key twice"),
            pytest.param(f"{DIGEST}, Bearer {SECRET}", id="Digest, then ours"),
            pytest.param(f"Bearer {SECRET},", id="comma after"),
            pytest.param(f",Bearer {SECRET}", id="comma before"),
            pytest.param(f"Bearer {SECRET},\r\n\tBearer {JWT}", id="folded"),
            pytest.param("Api-Key a,b", id="comma under Api-Key"),
        ],
    )
    def test_a_header_that_arrived_twice(self, value):
        assert outcome(authorization(value)) is InvalidRequest

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(f"Bearer {JWT}, Bearer {JWT}", id="JWT twice"),
            pytest.param(f"{basic('a:b')}, {basic('a:b')}", id="Basic twice"),
            pytest.param(DIGEST, id="Digest"),
            pytest.param('Digest username="Bearer", realm="Api-Key"', id="schemes in Digest"),
            pytest.param(",", id="comma"),
            pytest.param(", ,", id="commas"),
        ],
    )
    def test_commas_of_others_are_left_alone(self, value):
        assert outcome(authorization(value)) is None

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(f"{SECRET}, {SECRET}", id="with space"),
            pytest.param(f"{SECRET},{SECRET}", id="without space"),
            pytest.param(f"{SECRET},", id="comma after"),
            pytest.param(",", id="comma alone"),
        ],
    )
    def test_x_api_key_that_arrived_twice(self, value):
        assert outcome(request(HTTP_X_API_KEY=value)) is InvalidRequest

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(f"Bearer {SECRET}", id="Bearer"),
            pytest.param("Bearer rak_x", id="rubbish of ours"),
            pytest.param("Api-Key x", id="Api-Key"),
            pytest.param(basic(f"ann:{SECRET}"), id="Basic"),
            pytest.param(basic(f"{SECRET}:"), id="secret as user name"),
            pytest.param(basic(f"ann:{SECRET}").rstrip("="), id="broken base64"),
            pytest.param(f"Bearer {JWT}, Bearer {SECRET}", id="joined"),
        ],
    )
    def test_x_api_key_beside_a_key_of_ours(self, value):
        assert outcome(authorization(value, HTTP_X_API_KEY=SECRET)) is InvalidRequest

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param("", id="empty"),
            pytest.param(f"Bearer {JWT}", id="JWT"),
            pytest.param(basic("ann:password"), id="password"),
            pytest.param(f"{basic('a:b')}, Bearer {JWT}", id="two of others"),
            pytest.param(DIGEST, id="Digest"),
            pytest.param("Token 9c1185a5", id="Token"),
            pytest.param("rubbish", id="rubbish"),
        ],
    )
    def test_x_api_key_beside_another_credential_counts(self, value):
        assert outcome(authorization(value, HTTP_X_API_KEY=SECRET)) == (SECRET, None)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            pytest.param("", ("", None), id="empty"),
            pytest.param("   ", ("", None), id="blank"),
            pytest.param(JWT, (JWT, None), id="JWT"),
            pytest.param("\x00", ("\x00", None), id="NUL"),
            pytest.param(f"Bearer {SECRET}", (f"Bearer {SECRET}", None), id="with a scheme"),
        ],
    )
    def test_everything_in_x_api_key_is_ours(self, value, expected):
        assert outcome(request(HTTP_X_API_KEY=value)) == expected

    def test_an_empty_x_api_key_beside_a_key_of_ours(self):
        assert outcome(authorization(f"Bearer {SECRET}", HTTP_X_API_KEY="")) is InvalidRequest


class TestBytes:
    """Test clients put bytes into META."""

    @pytest.mark.parametrize(
        ("meta", "expected"),
        [
            pytest.param(
                {"HTTP_AUTHORIZATION": f" Bearer {SECRET}\n".encode()}, (SECRET, None), id="Bearer"
            ),
            pytest.param({"HTTP_X_API_KEY": SECRET.encode()}, (SECRET, None), id="X-API-Key"),
            pytest.param(
                {"HTTP_AUTHORIZATION": b"Bearer rak_\xff\xfe"},
                ("rak_\xff\xfe", None),
                id="no UTF-8",
            ),
            pytest.param({"HTTP_AUTHORIZATION": b"\xff\xfe"}, None, id="no UTF-8, not ours"),
        ],
    )
    def test_are_read_one_character_each(self, meta, expected):
        assert outcome(request(**meta)) == expected


class TestSwitches:
    WAYS = {
        "bearer": {"HTTP_AUTHORIZATION": f"Bearer {SECRET}"},
        "api-key": {"HTTP_AUTHORIZATION": f"Api-Key {SECRET}"},
        "x-api-key": {"HTTP_X_API_KEY": SECRET},
        "basic": {"HTTP_AUTHORIZATION": basic(f":{SECRET}")},
    }

    @pytest.mark.parametrize("way", WAYS)
    def test_a_way_that_is_off_is_not_looked_at(self, settings, way):
        settings.APIKEYS_CREDENTIALS = [other for other in self.WAYS if other != way]

        found = {name: outcome(request(**meta)) is not None for name, meta in self.WAYS.items()}

        assert found == {name: name != way for name in self.WAYS}

    @pytest.mark.parametrize("way", WAYS)
    def test_a_way_that_is_on_alone_is_found_alone(self, settings, way):
        settings.APIKEYS_CREDENTIALS = [way]

        found = {name: outcome(request(**meta)) is not None for name, meta in self.WAYS.items()}

        assert found == {name: name == way for name in self.WAYS}

    @pytest.mark.parametrize("way", ["bearer", "api-key", "basic"])
    def test_a_way_that_is_off_is_no_second_credential_beside_x_api_key(self, settings, way):
        settings.APIKEYS_CREDENTIALS = [other for other in self.WAYS if other != way]

        assert outcome(request(**self.WAYS[way], HTTP_X_API_KEY=SECRET)) == (SECRET, None)

    def test_x_api_key_that_is_off_is_no_second_credential(self, settings):
        settings.APIKEYS_CREDENTIALS = ["bearer"]

        for value in (SECRET, "", "a,b"):
            found = outcome(authorization(f"Bearer {SECRET}", HTTP_X_API_KEY=value))
            assert found == (SECRET, None)

    def test_basic_that_is_off_refuses_no_user_name(self, settings):
        settings.APIKEYS_CREDENTIALS = ["bearer"]

        assert outcome(authorization(basic(f"{SECRET}:"))) is None

    def test_a_way_that_is_off_is_no_second_part_of_a_header(self, settings):
        settings.APIKEYS_CREDENTIALS = ["bearer"]

        assert outcome(authorization(f"Api-Key {SECRET}, Api-Key {SECRET}")) is None


class TestManyParts:
    def test_are_refused(self):
        """No scheme has as many; each of them would have to be looked at."""
        assert outcome(authorization("x," * 32)) is InvalidRequest

    def test_of_another_scheme_are_left_alone(self):
        assert outcome(authorization("x," * 31)) is None


class TestNoScheme:
    def test_of_ours_is_refused(self):
        """“Bearer” was forgotten: it is not left to a session beside it."""
        assert outcome(authorization(SECRET)) is MalformedKey

    def test_is_not_looked_at_where_bearer_is_off(self, settings):
        settings.APIKEYS_CREDENTIALS = ["basic"]

        assert outcome(authorization(SECRET)) is None


class TestGarbage:
    BIG = 100_000

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            pytest.param("x" * BIG, None, id="letters"),
            pytest.param(" " * BIG, None, id="spaces"),
            pytest.param("," * BIG, InvalidRequest, id="commas"),
            pytest.param(", " * BIG, InvalidRequest, id="commas and spaces"),
            pytest.param("Bearer " + "x" * BIG, None, id="Bearer of others"),
            pytest.param("Bearer" + " " * BIG + "x", None, id="Bearer, spaces"),
            pytest.param(basic("a" * BIG), None, id="Basic of others"),
            pytest.param("Basic " + "!" * BIG, None, id="Basic, no digits"),
            pytest.param("Basic " + "=" * BIG, None, id="Basic, padding"),
            pytest.param("Basic " + "," * BIG, InvalidRequest, id="Basic, commas"),
            pytest.param("Api-Key " + "," * BIG, InvalidRequest, id="Api-Key, commas"),
            pytest.param("Bearer x," * 10_000, InvalidRequest, id="Bearer many times"),
            pytest.param(f"Bearer {SECRET}," * 1000, InvalidRequest, id="ours many times"),
        ],
    )
    def test_of_100_kilobytes_takes_a_bounded_number_of_steps(self, value, expected):
        steps: list[int] = []

        found = _traced(steps, outcome, authorization(value))

        assert found is expected
        assert len(steps) < 5000

    @pytest.mark.parametrize("scheme", ["Bearer", "Api-Key"])
    def test_of_ours_is_taken_as_it_is(self, scheme):
        text = "rak_" + "x" * self.BIG

        assert outcome(authorization(f"{scheme} {text}")) == (text, None)

    def test_of_ours_in_basic_is_taken_as_it_is(self):
        text = "rak_" + "x" * self.BIG

        assert outcome(authorization(basic(f"ann:{text}"))) == (text, "ann")

    @one_second
    @given(
        st.text(st.characters(codec=None), max_size=80),
        st.sampled_from(["", "Bearer ", "bearer rak_", "Api-Key ", "Basic ", "Basic x, Bearer "]),
    )
    def test_no_header_raises_anything_but_a_refusal(self, text, start):
        found = outcome(authorization(start + text))

        assert found in (None, InvalidRequest, MalformedKey) or isinstance(found, tuple)

    @one_second
    @given(st.binary(max_size=60), st.sampled_from([b"", b"ann:rak_", SECRET.encode()]))
    def test_no_bytes_in_basic_raise_anything_but_a_refusal(self, raw, start):
        found = outcome(authorization(basic(start + raw)))

        assert found in (None, MalformedKey) or isinstance(found, tuple)

    @one_second
    @given(st.text("AZaz09+/=-_ \r\n,.é", max_size=60))
    def test_no_odd_base64_raises_anything_but_a_refusal(self, text):
        found = outcome(authorization(f"Basic {text}"))

        assert found in (None, InvalidRequest, MalformedKey) or isinstance(found, tuple)

    @one_second
    @given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
    def test_no_pair_of_headers_raises_anything_but_a_refusal(self, value, key):
        found = outcome(authorization(value, HTTP_X_API_KEY=key))

        assert found is InvalidRequest or isinstance(found, tuple)

    @one_second
    @given(st.text(st.characters(codec="ascii", exclude_characters=":", categories=["L", "N"])))
    def test_every_user_name_comes_out_as_it_was_sent(self, username):
        assert outcome(authorization(basic(f"{username}:{SECRET}"))) == (SECRET, username)


class TestMasking:
    def test_credential_shows_neither_secret_nor_user_name(self):
        shown = repr(Credential(Secret(SECRET), "ann"))

        assert shown == "Credential(secret=<Secret ***>)"

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param("Bearer {}", id="Bearer"),
            pytest.param("Api-Key {}", id="Api-Key"),
            pytest.param("Bearer x, Bearer {}", id="joined"),
            pytest.param("basic", id="Basic"),
            pytest.param("broken", id="broken base64"),
            pytest.param("misplaced", id="secret as user name"),
        ],
    )
    def test_no_frame_has_the_text_in_a_variable(self, value):
        # A new one, which no source line quotes.
        secret = generate("rak", "live").secret
        request = authorization(_filled(value, secret))
        shown: list[str] = []

        _traced_locals(shown, outcome, request)

        assert shown
        assert not [text for text in shown if secret.reveal()[9:40] in text]

    def test_no_error_page_shows_it(self):
        secret = generate("rak", "live").secret
        request = authorization(basic(f"{secret.reveal()}:"))

        with pytest.raises(MalformedKey) as caught:
            extract(request)

        # Without the request, whose headers Django's own filter hides by their names.
        reporter = ExceptionReporter(None, caught.type, caught.value, caught.tb)
        page = reporter.get_traceback_html()
        assert "credentials.py" in page
        assert str(secret.reveal()[9:40]) not in page


def _filled(value, secret):
    return {
        "basic": basic(f"ann:{secret.reveal()}"),
        "broken": basic(f"ann:{secret.reveal()}").rstrip("=") + "!",
        "misplaced": basic(f"{secret.reveal()}:"),
    }.get(value) or value.format(secret.reveal())


def _traced(steps, function, *args):
    """Call *function* and note every line of the package that it runs."""

    def trace(frame, event, arg):  # pragma: no cover - coverage is such a function itself
        if "django_apikeys" not in frame.f_code.co_filename:
            return None
        steps.append(frame.f_lineno)
        return trace

    return _with_trace(trace, function, *args)


def _traced_locals(shown, function, *args):
    """Call *function* and note what every line of credentials.py has in its variables."""

    def trace(frame, event, arg):  # pragma: no cover - coverage is such a function itself
        if not frame.f_code.co_filename.endswith("credentials.py"):
            return None
        shown.extend(f"{value!r}" for value in frame.f_locals.values())
        return trace

    return _with_trace(trace, function, *args)


def _with_trace(trace, function, *args):
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return function(*args)
    finally:
        sys.settrace(before)
