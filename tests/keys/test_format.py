import pickle
import pprint
import re

import pytest
from django.test import RequestFactory
from django.views.debug import ExceptionReporter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from django_apikeys.exceptions import MalformedKey
from django_apikeys.keys.format import (
    ALPHABET,
    ParsedSecret,
    checksum,
    generate,
    looks_like_a_secret,
    mask,
    parse,
    pasted_public_id,
    scanner_pattern,
)
from django_apikeys.keys.masking import Secret

SAMPLE = "rak_live_7Fq2Lm9XcT0a_A3f2Kq9ZbYw0LrT7mVxD5sHnC8eJ1uGpQo4iRk6WtB20xFcJm"
LIVE_AND_TEST = ("live", "test")
one_second = settings(max_examples=200, deadline=None)

prefixes = st.from_regex(r"[a-z][a-z0-9]{1,15}", fullmatch=True)
environments = st.sampled_from(LIVE_AND_TEST)


class Leak(Exception):
    """Raised where a test wants a traceback."""


def test_the_alphabet_is_digits_upper_lower():
    assert ALPHABET == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("text", "crc"),
    [
        pytest.param("zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17", id="first vector"),
        pytest.param("qkJaB6MffYVzZXWqmcoF49yrUxP3wf", "0LsakP", id="second vector"),
        pytest.param(SAMPLE[:-6], "0xFcJm", id="sample"),
        pytest.param("", "000000", id="zero is padded"),
    ],
)
def test_checksum(text, crc):
    assert checksum(text) == crc


def test_sample_is_71_characters_and_parsed():
    parsed = parse(Secret(SAMPLE), ["rak"], LIVE_AND_TEST)

    assert len(SAMPLE) == 71
    assert parsed.prefix == "rak"
    assert parsed.environment == "live"
    assert parsed.public_id == "7Fq2Lm9XcT0a"
    assert parsed.last_four == "WtB2"
    assert parsed.secret.reveal() == SAMPLE


def test_masked_shows_four_characters_at_either_end():
    assert parse(Secret(SAMPLE), ["rak"], LIVE_AND_TEST).masked == "rak_live_7Fq2…WtB2"


def test_an_imported_secret_is_masked_without_prefix():
    assert mask("", "live", "7Fq2Lm9XcT0a", "WtB2") == "7Fq2…WtB2"


class TestScannerPattern:
    def test_is_the_one_of_the_contract(self):
        pattern = r"\brak_(?:live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b"

        assert scanner_pattern(["rak"], LIVE_AND_TEST) == pattern

    def test_names_every_prefix(self):
        pattern = r"\b(?:rak|old)_(?:live)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b"

        assert scanner_pattern(["rak", "old"], ["live"]) == pattern

    def test_finds_a_secret_in_text(self):
        found = re.findall(scanner_pattern(["rak"], LIVE_AND_TEST), f'key = "{SAMPLE}"\n')

        assert found == [SAMPLE]

    def test_leaves_a_longer_word_alone(self):
        assert not re.findall(scanner_pattern(["rak"], LIVE_AND_TEST), f"x{SAMPLE} {SAMPLE}x")


class TestGenerate:
    @one_second
    @given(prefixes, environments)
    def test_what_is_generated_is_parsed_to_the_same_parts(self, prefix, environment):
        made = generate(prefix, environment)

        parsed = parse(made.secret, [prefix], LIVE_AND_TEST)

        assert (parsed.prefix, parsed.environment) == (prefix, environment)
        assert (parsed.public_id, parsed.last_four) == (made.public_id, made.last_four)
        assert parsed.secret.reveal() == made.secret.reveal()

    def test_lengths_are_those_of_the_contract(self):
        prefix, environment, public_id, tail = generate("rak", "live").secret.reveal().split("_")

        assert (prefix, environment) == ("rak", "live")
        assert (len(public_id), len(tail)) == (12, 49)

    def test_no_two_are_alike(self):
        made = [generate("rak", "live") for _ in range(1000)]

        assert len({parts.public_id for parts in made}) == 1000
        assert len({parts.secret.reveal()[22:65] for parts in made}) == 1000

    def test_last_four_are_those_of_the_random_part(self):
        made = generate("rak", "live")

        assert made.last_four == made.secret.reveal()[61:65]


class TestParse:
    @one_second
    @given(st.integers(0, 70), st.sampled_from(ALPHABET + "_-. \n\x00é"))
    def test_every_change_of_one_character_is_refused(self, position, character):
        changed = SAMPLE[:position] + character + SAMPLE[position + 1 :]

        assume(changed != SAMPLE)

        with pytest.raises(MalformedKey):
            parse(Secret(changed), ["rak"], LIVE_AND_TEST)

    @one_second
    @given(st.text(st.characters(codec=None), max_size=200))
    def test_no_text_raises_anything_else(self, text):
        with pytest.raises(MalformedKey):
            parse(Secret(f"rak_{text}"), ["rak"], LIVE_AND_TEST)

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("", id="empty"),
            pytest.param("rak_", id="prefix alone"),
            pytest.param(SAMPLE[:-1], id="a character short"),
            pytest.param(SAMPLE + "0", id="a character long"),
            pytest.param(SAMPLE + "\n", id="trailing line break"),
            pytest.param(" " + SAMPLE, id="leading space"),
            pytest.param(SAMPLE + "\x00", id="trailing NUL"),
            pytest.param(SAMPLE.replace("7Fq2", "7F\x002"), id="NUL within"),
            pytest.param(SAMPLE.replace("7Fq2", "7Fq\uff12"), id="full-width digit"),
            pytest.param(SAMPLE.replace("7Fq2", "7Fq\udcff"), id="lone surrogate"),
            pytest.param(SAMPLE.replace("rak", "key"), id="wrong prefix"),
            pytest.param(SAMPLE.replace("rak", "RAK"), id="prefix in capitals"),
            pytest.param(SAMPLE.replace("live", "prod"), id="wrong environment"),
            pytest.param(SAMPLE[:-6] + "000000", id="wrong checksum"),
            pytest.param(SAMPLE[:-6] + "0XfCjM", id="checksum in the wrong case"),
            pytest.param(SAMPLE * 2, id="twice"),
            pytest.param("rak_live_" + "A" * 100_000, id="100 kB"),
        ],
    )
    def test_refused(self, text):
        with pytest.raises(MalformedKey):
            parse(Secret(text), ["rak"], LIVE_AND_TEST)

    def test_every_configured_prefix_is_accepted(self):
        assert parse(Secret(SAMPLE), ["new", "rak"], LIVE_AND_TEST).prefix == "rak"

    def test_repr_shows_no_more_than_the_public_parts(self):
        shown = repr(parse(Secret(SAMPLE), ["rak"], LIVE_AND_TEST))

        assert "A3f2" not in shown
        assert "WtB2" not in shown
        assert "public_id='7Fq2Lm9XcT0a'" in shown

    def test_the_longest_prefix_and_environment_fit(self):
        made = generate("a" * 16, "b" * 16)

        assert isinstance(parse(made.secret, ["a" * 16], ["b" * 16]), ParsedSecret)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(SAMPLE, True, id="a secret"),
        pytest.param(SAMPLE[:-6] + "000000", True, id="whatever the checksum"),
        pytest.param("rak_master", False, id="a name that begins alike"),
        pytest.param(SAMPLE + "x", False, id="a character long"),
        pytest.param(SAMPLE.replace("live", "prod"), False, id="wrong environment"),
        pytest.param("rak_live_" + "A" * 100_000, False, id="100 kB"),
    ],
)
def test_looks_like_a_secret(text, expected):
    assert looks_like_a_secret(Secret(text), ["rak"], LIVE_AND_TEST) is expected


PASTED = {
    "whole": (SAMPLE, "7Fq2Lm9XcT0a"),
    "cut off": ("rak_live_7Fq2Lm9XcT0a_A3f2", "7Fq2Lm9XcT0a"),
    "of another prefix": ("key_test_7Fq2Lm9XcT0a_A3f2", "7Fq2Lm9XcT0a"),
    "public id alone": ("7Fq2Lm9XcT0a", None),
    "masked": ("rak_live_7Fq2…WtB2", None),
    "within a sentence": (f"it is {SAMPLE}, I think", "7Fq2Lm9XcT0a"),
    "for a shell": (f"export API_KEY={SAMPLE}", "7Fq2Lm9XcT0a"),
    "in quotation marks": (f'"{SAMPLE}"', "7Fq2Lm9XcT0a"),
    "a name within a sentence": ("our data_sync_subscription_2", None),
}


@pytest.mark.parametrize(("text", "expected"), PASTED.values(), ids=PASTED.keys())
def test_public_id_of_a_secret_that_was_pasted(text, expected):
    assert pasted_public_id(text) == expected


class TestSecretIsMasked:
    @pytest.mark.parametrize(
        "shown",
        [
            pytest.param(repr, id="repr"),
            pytest.param(str, id="str"),
            pytest.param(format, id="format"),
            pytest.param("{}".format, id="str.format"),
            pytest.param("%s".__mod__, id="percent s"),
            pytest.param("%r".__mod__, id="percent r"),
            pytest.param(lambda secret: f"{secret}", id="f-string"),
            pytest.param(lambda secret: f"{secret!r}", id="f-string repr"),
            pytest.param(lambda secret: str({"secret": secret}), id="in a dict"),
            pytest.param(lambda secret: str([secret]), id="in a list"),
            pytest.param(pprint.pformat, id="pprint"),
            pytest.param(lambda secret: pprint.pformat({"a": [secret]}), id="pprint of a dict"),
        ],
    )
    def test_shown(self, shown):
        text = shown(Secret(SAMPLE))

        assert "<Secret ***>" in text
        assert "7Fq2" not in text

    @pytest.mark.parametrize(
        "shown",
        [
            pytest.param(repr, id="repr"),
            pytest.param("{!r}".format, id="str.format"),
            pytest.param("%r".__mod__, id="percent r"),
            pytest.param(lambda text: str({"text": text}), id="in a dict"),
            pytest.param(pprint.pformat, id="pprint"),
            pytest.param(lambda text: pprint.pformat([text]), id="pprint of a list"),
        ],
    )
    @pytest.mark.parametrize(
        "part",
        [
            pytest.param(slice(None), id="whole"),
            pytest.param(slice(9, 21), id="slice"),
            pytest.param(slice(-6, None), id="end"),
            pytest.param(0, id="character"),
        ],
    )
    def test_the_repr_of_what_reveal_gives_back_and_of_its_slices(self, shown, part):
        text = shown(Secret(SAMPLE).reveal()[part])

        assert "'***'" in text
        assert "7Fq2" not in text
        assert "FcJm" not in text

    def test_reveal_gives_the_text_back(self):
        revealed = Secret(SAMPLE).reveal()

        assert revealed == SAMPLE
        assert isinstance(revealed, str)
        assert revealed[9:21] == "7Fq2Lm9XcT0a"
        assert hash(revealed) == hash(SAMPLE)

    def test_length_is_told(self):
        assert len(Secret(SAMPLE)) == 71

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickling_is_refused(self, protocol):
        with pytest.raises(TypeError, match="not pickled") as caught:
            pickle.dumps(Secret(SAMPLE), protocol)

        assert "7Fq2" not in str(caught.value)

    def test_has_no_dict_to_look_into(self):
        with pytest.raises(TypeError):
            vars(Secret(SAMPLE))

    def test_debug_page_shows_neither_the_secret_nor_its_parts(self):
        # A new one: the page quotes this file, where the sample stands.
        made = generate("rak", "live")
        reporter = ExceptionReporter(RequestFactory().get("/"), *_traceback_with(made.secret))

        page = reporter.get_traceback_html() + reporter.get_traceback_text()

        assert "&lt;Secret ***&gt;" in page
        assert str(made.public_id) not in page
        assert made.secret.reveal()[-6:] not in page


def _traceback_with(secret):
    try:
        _fail(secret)
    except Leak as error:
        return type(error), error, error.__traceback__


def _fail(secret):
    revealed = secret.reveal()
    tail = revealed[-6:]
    parts = {"revealed": revealed, "tail": tail}
    raise Leak(f"{parts} of {secret}")
