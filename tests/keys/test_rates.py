import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_apikeys.keys.rates import Rate, parse_rate, read_stored

one_second = settings(max_examples=100, deadline=None)

rates = st.builds(Rate, st.integers(1, 100), st.sampled_from([1, 60, 3600, 86_400]))


@pytest.mark.parametrize(
    ("text", "limit", "seconds"),
    [
        pytest.param("1/s", 1, 1, id="second"),
        pytest.param("300/m", 300, 60, id="minute"),
        pytest.param("60/h", 60, 3600, id="hour"),
        pytest.param("10000/d", 10_000, 86_400, id="day"),
        pytest.param("999999999/m", 999_999_999, 60, id="largest"),
    ],
)
def test_parse_rate(text, limit, seconds):
    assert parse_rate(text) == Rate(limit=limit, seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("300", id="no window"),
        pytest.param("/m", id="no number"),
        pytest.param("0/m", id="zero"),
        pytest.param("007/m", id="leading zeros"),
        pytest.param("-1/m", id="negative"),
        pytest.param("1.5/m", id="fraction"),
        pytest.param("1e3/m", id="exponent"),
        pytest.param("1000000000/m", id="too large"),
        pytest.param("9" * 10_000 + "/m", id="10 kB"),
        pytest.param("300/M", id="window in capitals"),
        pytest.param("300/min", id="window spelt out"),
        pytest.param("300/w", id="week"),
        pytest.param("300 / m", id="spaces"),
        pytest.param("300/m\n", id="line break"),
        pytest.param("300/m 5/s", id="two"),
        pytest.param("٣٠٠/m", id="other digits"),
        pytest.param("300/m\x00", id="NUL"),
    ],
)
def test_refused(text):
    with pytest.raises(ValueError, match="for instance 300/m"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["1/s", "300/m", "60/h", "10000/d", "999999999/m"])
def test_rate_as_text_is_what_it_was_read_from(text):
    assert str(parse_rate(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("300/m", Rate(limit=300, seconds=60), id="rate"),
        pytest.param("", None, id="none"),
        pytest.param(None, None, id="null"),
        pytest.param("rubbish", None, id="rubbish"),
        pytest.param("0/m", None, id="zero"),
        pytest.param("300/m ", None, id="white space"),
        pytest.param(300, None, id="number"),
        pytest.param(b"300/m", None, id="bytes"),
        pytest.param(["300/m"], None, id="list"),
    ],
)
def test_read_stored(text, expected):
    assert read_stored(text) == expected


class TestLiesWithin:
    @pytest.mark.parametrize(
        ("text", "other", "expected"),
        [
            pytest.param("60/m", "60/m", True, id="the same"),
            pytest.param("59/m", "60/m", True, id="fewer"),
            pytest.param("61/m", "60/m", False, id="more"),
            pytest.param("1/s", "60/m", True, id="seconds of a minute"),
            pytest.param("1/s", "59/m", False, id="seconds of a minute, one too few"),
            pytest.param("1/s", "3600/h", True, id="seconds of an hour"),
            pytest.param("1/s", "86400/d", True, id="seconds of a day"),
            pytest.param("1/m", "60/h", True, id="minutes of an hour"),
            pytest.param("1/m", "1440/d", True, id="minutes of a day"),
            pytest.param("1/h", "24/d", True, id="hours of a day"),
            pytest.param("1/h", "23/d", False, id="hours of a day, one too few"),
            pytest.param("60/m", "1/s", False, id="a minute's at once"),
            pytest.param("60/m", "60/s", True, id="a minute's in a second"),
            pytest.param("3600/h", "60/m", False, id="an hour's at once"),
            pytest.param("24/d", "1/h", False, id="a day's at once"),
            pytest.param("1/d", "1/s", True, id="one"),
            pytest.param("999999999/s", "999999999/d", False, id="largest"),
        ],
    )
    def test_rate(self, text, other, expected):
        assert parse_rate(text).lies_within(parse_rate(other)) is expected

    @one_second
    @given(rates, rates)
    def test_what_lets_through_less_in_one_window_lies_within(self, rate, other):
        """Of the same window the numbers decide; a rate lies within itself."""
        same_window = Rate(limit=other.limit, seconds=rate.seconds)

        assert rate.lies_within(rate)
        assert rate.lies_within(same_window) is (rate.limit <= other.limit)

    @one_second
    @given(rates, rates)
    def test_two_that_lie_within_each_other_are_one(self, rate, other):
        within_each_other = rate.lies_within(other) and other.lies_within(rate)

        assert within_each_other is (rate == other)
