import pytest

from django_apikeys.keys.rates import Rate, parse_rate


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
