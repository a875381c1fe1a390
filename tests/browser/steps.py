"""What people do on the owner's page, one step each."""

import re
import time

from playwright.sync_api import expect

from example_project.crm.demo.data import PASSWORD, SUPERUSER
from tests.browser.site import PAGE

SECRET = re.compile(r"rak_(?:live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")
# Who is what in which organisation: as in tests/example_project/test_page.py.
USERNAMES = {
    "owner": "owner",
    "admin": "admin",
    "member": "member",
    "other": "rival",
    "nobody": "nobody",
    "staff": SUPERUSER,
}
# How long a count may take to be stored.
SECONDS = 20
# More than any page has that Tab goes to.
MOST_STOPS = 200


def log_in(page, role):
    page.goto("/accounts/login/")
    page.get_by_label("Username").fill(USERNAMES[role])
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def make_key(page, name, *scopes):
    """Make a key by the form, and return its secret, from the page that shows it."""
    page.goto(PAGE)
    page.get_by_role("link", name="Create API key", exact=True).click()
    page.get_by_label("Name", exact=True).fill(name)
    for scope in scopes:
        page.get_by_role("checkbox", name=scope).check()
    page.get_by_role("button", name="Create API key").click()
    return shown_secret(page)


def shown_secret(page):
    field = page.get_by_role("textbox", name="Secret")
    expect(field).to_have_value(SECRET)
    return field.input_value()


def open_key(page, name):
    page.goto(PAGE)
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)


def requests_of(page, name):
    """Return the cell of the list with the count of *name*."""
    return row_of(page, name).locator(".apikeys-usage > span").first


def row_of(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def reload_until(page, locator, text):
    """Reload *page* until *locator* says *text*: usage is stored a moment after the answer."""
    deadline = time.monotonic() + SECONDS
    while locator.inner_text() != text and time.monotonic() < deadline:
        page.reload()
    assert locator.inner_text() == text


def tab_to(page, target):
    """Press Tab until *target* has the focus."""
    expect(target).to_be_visible()
    for _step in range(MOST_STOPS):
        if target.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab never reaches {target}.")


def copied(page):
    """Return what is in the clipboard; the context needs the permission to read it."""
    return page.evaluate("navigator.clipboard.readText()")
