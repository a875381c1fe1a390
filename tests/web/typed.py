"""What a browser sends: the form of a page as it came, with what somebody typed."""

import re
from html.parser import HTMLParser

LIST = "/page/"
NEW = "/page/new/"
SECRET = re.compile(r"rak_(?:live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")


def url(key, page=""):
    return f"{LIST}{key.pk}/{page}"


class _Forms(HTMLParser):
    def __init__(self):
        super().__init__()
        self.fields, self._posts, self._area, self._select = {}, False, None, None

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "form":
            self._posts = found.get("method") == "post"
        if not self._posts:
            return
        name = found.get("name")
        if tag == "textarea":
            self._area = name
            self.fields[name] = ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            # Of a select in which nothing is chosen a browser sends the first.
            if "selected" in found or self._select not in self.fields:
                self.fields[self._select] = found.get("value", "")
        elif tag == "input" and name:
            kind = found.get("type")
            if kind == "checkbox" and "checked" not in found:
                return
            value = found.get("value", "on" if kind == "checkbox" else "")
            if name in self.fields:
                earlier = self.fields[name]
                value = [*(earlier if isinstance(earlier, list) else [earlier]), value]
            self.fields[name] = value

    def handle_data(self, data):
        if self._area:
            self.fields[self._area] += data

    def handle_endtag(self, tag):
        if tag == "textarea":
            # A browser takes the first line break of a textarea away.
            text = self.fields[self._area]
            self.fields[self._area] = text.removeprefix("\r\n").removeprefix("\n")
            self._area = None
        elif tag == "select":
            self._select = None
        elif tag == "form":
            self._posts = False


def form_of(answer):
    """Return what the POST form of a page says by itself."""
    parser = _Forms()
    parser.feed(answer.content.decode())
    return parser.fields


def submit(browser, path, page=None, **typed):
    """Load *path*, type over its form, and send it; None leaves a field out."""
    fields = {**form_of(browser.get(page or path)), **typed}
    sent = {name: value for name, value in fields.items() if value is not None}
    return browser.post(path, sent)


def secret_in(answer):
    return SECRET.search(answer.content.decode())[0]


def ticked(answer):
    return re.findall(r'name="scopes" value="([^"]+)"[^>]* checked', answer.content.decode())
