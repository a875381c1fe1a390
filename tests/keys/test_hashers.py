import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_apikeys.keys.hashers import HMACHasher, derive_pepper
from django_apikeys.keys.masking import Secret

SAMPLE = Secret("rak_live_7Fq2Lm9XcT0a_A3f2Kq9ZbYw0LrT7mVxD5sHnC8eJ1uGpQo4iRk6WtB20xFcJm")
HEX = "30d46dcc02d26ce28316a0c554dd0608d23b5d620c23f1183116783ccf4ae698"
HEX_OF_SECRET_KEY_1 = "394188ba71ab7dc4985b1a5c4b8fc4b894b167c23a3d9802caaa2bc8397aaf5d"


@pytest.fixture
def hasher():
    return HMACHasher({"one": b"pepper-1", "two": b"pepper-2"}, current="one")


class TestDigest:
    def test_with_a_listed_pepper_is_the_one_of_the_contract(self, hasher):
        assert hasher.digest(SAMPLE) == f"hmac-sha256$one${HEX}"

    def test_with_a_derived_pepper_is_the_one_of_the_contract(self):
        name, pepper = derive_pepper("secret-key-1")

        digest = HMACHasher({name: pepper}, current=name).digest(SAMPLE)

        assert digest == f"hmac-sha256$sk-b175a61f${HEX_OF_SECRET_KEY_1}"

    def test_is_made_with_the_current_pepper(self):
        hasher = HMACHasher({"one": b"pepper-1", "two": b"pepper-2"}, current="two")

        assert hasher.digest(SAMPLE).startswith("hmac-sha256$two$")

    def test_fits_its_column_with_the_longest_pepper_id(self):
        hasher = HMACHasher({"p" * 64: b"pepper"}, current="p" * 64)

        assert len(hasher.digest(SAMPLE)) == 141


class TestDerivePepper:
    def test_is_32_bytes_with_an_id_of_its_own(self):
        name, pepper = derive_pepper("secret-key-1")

        assert name == "sk-b175a61f"
        assert len(pepper) == 32

    def test_of_bytes_is_that_of_the_text(self):
        assert derive_pepper(b"secret-key-1") == derive_pepper("secret-key-1")

    def test_of_a_text_beyond_ascii_is_that_of_its_utf_8(self):
        assert derive_pepper("schlüssel") == derive_pepper(b"schl\xc3\xbcssel")

    def test_of_another_key_is_another(self):
        assert derive_pepper("secret-key-2") != derive_pepper("secret-key-1")


class TestVerify:
    @pytest.mark.parametrize(
        ("digest", "expected"),
        [
            pytest.param(f"hmac-sha256$one${HEX}", True, id="right"),
            pytest.param(f"hmac-sha256$two${HEX}", False, id="of another pepper"),
            pytest.param(f"hmac-sha256$three${HEX}", False, id="pepper unknown"),
            pytest.param(f"hmac-sha512$one${HEX}", False, id="algorithm unknown"),
            pytest.param(f"HMAC-SHA256$one${HEX}", False, id="algorithm in capitals"),
            pytest.param(f"hmac-sha256$one${HEX.upper()}", False, id="hex in capitals"),
            pytest.param(f"hmac-sha256$one${HEX[:-1]}", False, id="a digit short"),
            pytest.param(f"hmac-sha256$one${HEX}$", False, id="a part too many"),
            pytest.param(f"one${HEX}", False, id="a part too few"),
            pytest.param("hmac-sha256$one$", False, id="no hex"),
            pytest.param("hmac-sha256$one$é", False, id="not ASCII"),
            pytest.param("$$", False, id="empty parts"),
            pytest.param("", False, id="empty"),
        ],
    )
    def test_digest(self, hasher, digest, expected):
        assert hasher.verify(SAMPLE, digest) is expected

    def test_digest_of_a_pepper_that_is_no_longer_current(self):
        old = HMACHasher({"one": b"pepper-1"}, current="one").digest(SAMPLE)
        hasher = HMACHasher({"one": b"pepper-1", "two": b"pepper-2"}, current="two")

        assert hasher.verify(SAMPLE, old)

    def test_empty_parts_verify_nothing_even_with_a_pepper_of_no_name(self):
        hasher = HMACHasher({"": b"pepper"}, current="")

        assert not hasher.verify(SAMPLE, "$$")

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=100))
    def test_other_secrets_are_wrong(self, text):
        hasher = HMACHasher({"one": b"pepper-1"}, current="one")

        assert not hasher.verify(Secret(text), f"hmac-sha256$one${HEX}")

    @pytest.mark.parametrize(
        "digest",
        [
            pytest.param(f"hmac-sha256$one${HEX}", id="right"),
            pytest.param(f"hmac-sha256$three${HEX}", id="pepper unknown"),
            pytest.param(f"md5$one${HEX}", id="algorithm unknown"),
            pytest.param("", id="malformed"),
        ],
    )
    def test_takes_one_hmac_and_one_constant_time_comparison(self, hasher, digest, monkeypatch):
        calls: list[str] = []
        for name in ("digest", "compare_digest"):
            monkeypatch.setattr(hmac, name, _counted(calls, name, getattr(hmac, name)))

        hasher.verify(SAMPLE, digest)

        assert calls == ["digest", "compare_digest"]

    def test_a_burn_takes_the_same(self, hasher, monkeypatch):
        calls: list[str] = []
        for name in ("digest", "compare_digest"):
            monkeypatch.setattr(hmac, name, _counted(calls, name, getattr(hmac, name)))

        hasher.burn(SAMPLE)

        assert calls == ["digest", "compare_digest"]


@pytest.mark.parametrize(
    ("digest", "expected"),
    [
        pytest.param("hmac-sha256$one$00", True, id="current pepper"),
        pytest.param("hmac-sha256$two$00", True, id="other pepper"),
        pytest.param("hmac-sha256$three$00", False, id="pepper unknown"),
        pytest.param("md5$one$00", False, id="algorithm unknown"),
        pytest.param("hmac-sha256$one", False, id="malformed"),
        pytest.param("", False, id="empty"),
    ],
)
def test_knows(hasher, digest, expected):
    assert hasher.knows(digest) is expected


def _counted(calls, name, function):
    def counted(*args):
        calls.append(name)
        return function(*args)

    return counted
