import pytest
from cryptography.fernet import Fernet, MultiFernet

from django_apikeys.keys.ciphers import FernetCipher
from django_apikeys.keys.masking import MaskedText, Secret
from tests.conftest import FERNET_KEY, OTHER_FERNET_KEY

SAMPLE = "rak_live_7Fq2Lm9XcT0a_A3f2Kq9ZbYw0LrT7mVxD5sHnC8eJ1uGpQo4iRk6WtB20xFcJm"


def cipher(*keys):
    return FernetCipher(tuple(map(MaskedText, keys)))


def test_text_comes_back():
    kept = cipher(FERNET_KEY).encrypt(Secret(SAMPLE))

    assert cipher(FERNET_KEY).decrypt(kept).reveal() == SAMPLE


def test_what_is_kept_names_its_key_and_is_a_token_of_fernet():
    name, _, token = cipher(FERNET_KEY).encrypt(Secret(SAMPLE)).partition("$")

    assert name == "21d477c8"
    assert MultiFernet([Fernet(FERNET_KEY)]).decrypt(token) == SAMPLE.encode()
    assert SAMPLE not in token


def test_the_same_secret_is_never_kept_the_same():
    made = cipher(FERNET_KEY)

    assert made.encrypt(Secret(SAMPLE)) != made.encrypt(Secret(SAMPLE))


def test_the_first_key_encrypts_and_all_decrypt():
    old, both = cipher(FERNET_KEY), cipher(OTHER_FERNET_KEY, FERNET_KEY)

    assert both.decrypt(old.encrypt(Secret(SAMPLE))).reveal() == SAMPLE
    assert old.decrypt(both.encrypt(Secret(SAMPLE))) is None


@pytest.mark.parametrize(
    "text",
    ["", "$", "21d477c8$", "21d477c8$gAAAAA", "é", "21d477c8$é", "\x00$\x00", "A" * 100_000],
    ids=["empty", "dollar", "no token", "a piece", "é", "é for a token", "NUL", "100 kB"],
)
def test_what_is_no_text_of_ours_is_none(text):
    assert cipher(FERNET_KEY).decrypt(text) is None
    assert cipher(FERNET_KEY).reencrypt(text) is None


def test_a_text_that_was_changed_is_none():
    kept = cipher(FERNET_KEY).encrypt(Secret(SAMPLE))
    letter = "A" if kept[40] != "A" else "B"

    assert cipher(FERNET_KEY).decrypt(kept[:40] + letter + kept[41:]) is None


def test_bytes_of_others_under_the_same_key_raise_nothing():
    token = Fernet(FERNET_KEY).encrypt(b"\xff\xfe").decode()

    assert cipher(FERNET_KEY).decrypt(f"21d477c8${token}").reveal() == "��"


def test_it_is_encrypted_anew_with_the_first_key():
    both = cipher(OTHER_FERNET_KEY, FERNET_KEY)

    anew = both.reencrypt(cipher(FERNET_KEY).encrypt(Secret(SAMPLE)))

    assert anew.startswith(f"{both.current}$")
    assert cipher(OTHER_FERNET_KEY).decrypt(anew).reveal() == SAMPLE


def test_its_keys_are_known_by_name():
    made = cipher(OTHER_FERNET_KEY, FERNET_KEY)

    assert made.current != "21d477c8"
    assert [made.knows(name) for name in (made.current, "21d477c8", "00000000")] == [
        True,
        True,
        False,
    ]


def test_no_repr_shows_a_key_or_a_secret():
    made = cipher(FERNET_KEY)

    shown = f"{made!r} {vars(made)!r} {made.decrypt(made.encrypt(Secret(SAMPLE)))!r}"

    assert FERNET_KEY not in shown
    assert SAMPLE not in shown
