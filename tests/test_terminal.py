"""Bars in a terminal."""

import io

import pytest
from django.core.management.base import OutputWrapper

from django_apikeys import terminal


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("value", "of", "expected"),
    [
        pytest.param(0, 8, "", id="nothing"),
        pytest.param(0, 0, "", id="nothing-of-nothing"),
        pytest.param(8, 8, "████", id="all"),
        pytest.param(4, 8, "██", id="half"),
        pytest.param(5, 8, "██▌", id="part-of-a-character"),
        pytest.param(31, 32, "███▉", id="almost-all"),
        pytest.param(1, 1_000_000, "▏", id="hardly-anything"),
        pytest.param(10**18, 10**18, "████", id="large-numbers"),
    ],
)
def test_bar_of_four_characters(value, of, expected):
    assert terminal.bar(value, of, 4) == expected


@pytest.mark.parametrize(
    ("value", "of", "expected"),
    [(0, 8, ""), (8, 8, "####"), (5, 8, "##"), (1, 1_000_000, "#")],
)
def test_plain_bar_of_four_characters(value, of, expected):
    assert terminal.bar(value, of, 4, plain=True) == expected


@pytest.mark.parametrize(
    ("encoding", "plain"), [("utf-8", False), ("ascii", True), ("latin-1", True)]
)
def test_stream_is_plain_by_its_encoding(encoding, plain):
    stream = OutputWrapper(io.TextIOWrapper(io.BytesIO(), encoding=encoding))

    assert terminal.is_plain(stream) is plain


def test_stream_that_is_no_file_is_not_plain():
    assert terminal.is_plain(OutputWrapper(io.StringIO())) is False


def test_progress_is_one_line_that_goes():
    stream = Terminal()
    progress = terminal.Progress(OutputWrapper(stream))

    progress.show("hours", 1000, 4000)
    progress.show("hours", 5000, 4000)
    progress.end()

    assert progress.is_shown
    assert stream.getvalue() == (
        "\r\x1b[Khours      |███████▌                      | 1,000 / 4,000"
        "\r\x1b[Khours      |██████████████████████████████| 5,000 / 5,000"
        "\r\x1b[K"
    )


def test_progress_is_not_shown_where_nobody_looks():
    assert not terminal.Progress(OutputWrapper(io.StringIO())).is_shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Bücher 日本 █▏", "Bücher 日本 █▏", id="text"),
        pytest.param("a\x1b[2Jb", "a\\x1b[2Jb", id="escape"),
        pytest.param("a\r\n\tb", "a\\r\\n\\tb", id="lines"),
        pytest.param("a\x9b\x7f", "a\\x9b\\x7f", id="C1"),
        pytest.param("a\u202eb", "a\\u202eb", id="from right to left"),
        pytest.param("a\ud800", "a\\ud800", id="half of a pair"),
    ],
)
def test_printable_text_has_no_control_characters(text, expected):
    assert terminal.printable(text) == expected


def test_what_is_dropped_is_not_written(tmp_path):
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        file.write("kept back")
        terminal.drop(OutputWrapper(file))

    assert (tmp_path / "out").read_text(encoding="utf-8") == ""


def test_what_is_no_file_is_left_alone():
    stream = io.StringIO("text")

    terminal.drop(OutputWrapper(stream))

    assert stream.getvalue() == "text"
