"""What the tests of languages have in common: what a page says, and a language to find gaps by."""

import re
from functools import lru_cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import django
import polib

import django_apikeys

LOCALE = Path(django_apikeys.__file__).parent / "locale"
DJANGO = Path(django.__file__).parent
# English, but for what is marked: that stands in brackets of its own.
MARKING = "en-au"
_MARKED = re.compile("⟦[^⟦⟧]*⟧")
# Texts of a page that are for nobody to read, or are code.
_SILENT = ("script", "style", "pre", "code", "textarea")
_READ = ("title", "aria-label", "placeholder", "alt", "data-label", "data-copied")


def write_marking_catalogue(folder):
    """Write a catalogue of all texts of ours and of Django's, each in brackets."""
    files = [
        LOCALE / "de" / "LC_MESSAGES" / "django.po",
        *(
            DJANGO / app / "locale" / "en" / "LC_MESSAGES" / "django.po"
            for app in ("contrib/admin", "contrib/auth", "conf")
        ),
    ]
    catalogue = polib.POFile()
    catalogue.metadata = {
        "Content-Type": "text/plain; charset=UTF-8",
        "Plural-Forms": "nplurals=2; plural=(n != 1);",
    }
    known = set()
    for entry in (entry for path in files for entry in polib.pofile(str(path))):
        name = (entry.msgctxt, entry.msgid)
        if name in known:
            continue
        known.add(name)
        if entry.msgid_plural:
            entry.msgstr_plural = {0: _marked(entry.msgid), 1: _marked(entry.msgid_plural)}
        else:
            entry.msgstr = _marked(entry.msgid)
        entry.flags = []
        catalogue.append(entry)
    path = folder / "en_AU" / "LC_MESSAGES"
    path.mkdir(parents=True)
    catalogue.save_as_mofile(str(path / "django.mo"))


def _marked(text):
    return f"⟦{text}⟧"


def unmarked(answer, known=""):
    """Return the words of a page that stand outside the brackets, but for those of *known*.

    Words have two letters or more, and no digit beside them; codes are none.
    """
    page = answer.content.decode()
    while _MARKED.search(page):
        page = _MARKED.sub("", page)
    parser = _Said()
    parser.feed(page)
    words = re.findall(r"(?<![\w@./:_…-])[A-Za-z]{2,}(?![\w@:_…-])", " ".join(parser.said))
    return sorted({*words} - {*known.split()})


def said(answer):
    """Return what a page says, in one line, what is read out included."""
    parser = _Said()
    parser.feed(answer.content.decode())
    return " ".join(unescape(" ".join(parser.said)).split())


class _Said(HTMLParser):
    def __init__(self):
        super().__init__()
        self.said, self._silent = [], 0

    def handle_starttag(self, tag, attrs):
        self._silent += tag in _SILENT
        self.said += [value for name, value in attrs if name in _READ]

    def handle_endtag(self, tag):
        self._silent -= tag in _SILENT

    def handle_data(self, data):
        if not self._silent:
            self.said.append(data)


def english_in(answer, language):
    """Return what of the English texts stands in a page of *language*: four words or more."""
    page = said(answer)
    return [text for text in _long_texts(language) if text in page]


@lru_cache(maxsize=1)
def _long_texts(language):
    entries = polib.pofile(str(LOCALE / language / "LC_MESSAGES" / "django.po"))
    texts = [text for entry in entries for text in (entry.msgid, entry.msgid_plural)]
    parts = (re.split(r"%\(\w+\)[sd]|\{\w+\}|<[^>]+>", text) for text in texts)
    return [one.strip() for pieces in parts for one in pieces if one.strip().count(" ") >= 3]
