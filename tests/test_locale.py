"""The catalogues: whole, in the plural forms of their language, and compiled as they are read."""

import re
from collections import Counter
from pathlib import Path

import django
import polib
import pytest

import django_apikeys

LOCALE = Path(django_apikeys.__file__).parent / "locale"
LANGUAGES = ("de", "es", "fr")
# As Django 5.2 has them: in Spanish the second one is for whole millions.
PLURALS = {
    "de": "nplurals=2; plural=(n != 1);",
    "es": "nplurals=3; plural=n == 1 ? 0 : n != 0 && n % 1000000 == 0 ? 1 : 2;",
    "fr": "nplurals=2; plural=(n > 1);",
}
FORMS = {"de": 2, "es": 3, "fr": 2}
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|\{\w+\}")
TAG = re.compile(r"</?\w+>")


def folder(language):
    return LOCALE / language / "LC_MESSAGES"


@pytest.fixture(params=LANGUAGES)
def language(request):
    return request.param


@pytest.fixture
def catalogue(language):
    return polib.pofile(str(folder(language) / "django.po"))


def texts(entry):
    """Return what *entry* is translated by, one text or one for each plural form."""
    return [*entry.msgstr_plural.values()] if entry.msgid_plural else [entry.msgstr]


def both(entry):
    """Yield each translation of *entry* with the English text that it stands for."""
    for text in texts(entry):
        yield entry.msgid_plural or entry.msgid, text


def test_there_is_a_catalogue_of_each_language():
    assert sorted(path.name for path in LOCALE.iterdir()) == sorted(LANGUAGES)


def test_every_message_is_translated(catalogue, language):
    left = [entry.msgid for entry in catalogue if not all(texts(entry))]
    forms = {len(texts(entry)) for entry in catalogue if entry.msgid_plural}

    assert len(catalogue) > 500
    assert left == []
    assert forms == {FORMS[language]}


def test_nothing_is_guessed_or_left_behind(catalogue):
    assert [entry.msgid for entry in catalogue.fuzzy_entries()] == []
    assert [entry.msgid for entry in catalogue.obsolete_entries()] == []


def test_plural_forms_are_those_of_django(catalogue, language):
    assert catalogue.metadata["Plural-Forms"] == PLURALS[language]


def test_terms_of_the_language_stand_at_its_head(catalogue):
    """Whoever translates on finds the words that were chosen."""
    for term in ("API key", "secret", "scope", "rotate", "revoke", "retire", "grace"):
        assert re.search(rf"\b{term} +\w", catalogue.header), term


def test_placeholders_and_tags_are_kept(catalogue):
    wrong = [
        (english, text)
        for entry in catalogue
        for english, text in both(entry)
        for pattern in (PLACEHOLDER, TAG)
        if Counter(pattern.findall(english)) != Counter(pattern.findall(text))
    ]

    assert wrong == []


def test_no_translation_has_markup_of_its_own(catalogue):
    wrong = [
        text
        for entry in catalogue
        for english, text in both(entry)
        if {*re.findall("[<>&%{}]", text)} - {*re.findall("[<>&%{}]", english)}
    ]

    assert wrong == []


def test_edges_are_kept(catalogue):
    """A space at an end, a colon and a full stop hold together what stands beside."""
    wrong = [
        (english, text)
        for entry in catalogue
        for english, text in both(entry)
        if (english[0].isspace(), english[-1] in ":. ") != (text[0].isspace(), text[-1] in ":. ")
        or (english[-1] in ":." and english[-1] != text[-1])
    ]

    assert wrong == []


@pytest.mark.parametrize(
    ("language", "wrong"),
    [
        # A narrow no-break space stands there instead.
        pytest.param("fr", r"(?<=\S)[ \xa0](?=[:;!?»])|«[ \xa0]|(?<=[^\s\u202f])[;!?»]", id="fr"),
        pytest.param("fr", r"'|[“”\"]", id="fr, quotes"),
        pytest.param("de", r"'|[”\"]|“(?=[\w%{])", id="de, quotes"),
        pytest.param("es", r"'|[“”„\"]", id="es, quotes"),
        pytest.param("es", r"^[^¿]*\?", id="es, a question begins as one"),
    ],
)
def test_typography_is_of_the_language(wrong, language):
    catalogue = polib.pofile(str(folder(language) / "django.po"))

    assert [text for e in catalogue for text in texts(e) if re.search(wrong, text)] == []


def test_compiled_catalogue_says_the_same(catalogue, language):
    compiled = polib.mofile(str(folder(language) / "django.mo"))

    def said(entries):
        return {(e.msgctxt, e.msgid, e.msgid_plural): texts(e) for e in entries}

    assert said(compiled) == said(catalogue)
    assert compiled.metadata["Plural-Forms"] == catalogue.metadata["Plural-Forms"]


@pytest.mark.parametrize("app", ["conf", "contrib/admin", "contrib/auth"])
def test_what_django_says_too_is_said_as_django_does(catalogue, language, app):
    """Catalogues are merged: ours is read in Django's places, and Django's in ours."""
    path = Path(django.__file__).parent / app / "locale" / language / "LC_MESSAGES" / "django.po"
    ours = {(e.msgctxt, e.msgid): texts(e) for e in catalogue if not e.msgid_plural}
    theirs = {(e.msgctxt, e.msgid): texts(e) for e in polib.pofile(str(path)) if e.translated()}

    assert {name: ours[name] for name in ours.keys() & theirs.keys()} == {
        name: theirs[name] for name in ours.keys() & theirs.keys()
    }


def test_no_path_of_a_machine_is_in_it(catalogue):
    """Where a text stands is said without its line, which would differ with each change."""
    places = {place for entry in catalogue for place in entry.occurrences}

    assert {line for _path, line in places} == {""}
    assert not any(path.startswith(("/", "..")) for path, _line in places)
