"""The main path on the owner's page, with script, without, and by the keyboard alone."""

import pytest
from playwright.sync_api import expect

from tests.browser.site import PAGE
from tests.browser.steps import (
    copied,
    make_key,
    open_key,
    reload_until,
    requests_of,
    row_of,
    shown_secret,
    tab_to,
)

TO_COPY = ["clipboard-read", "clipboard-write"]


@pytest.fixture(params=[True, False], ids=["with-script", "without-script"])
def page(visit, request):
    return visit("owner", java_script_enabled=request.param)


def test_a_key_lives_from_its_form_to_its_end(page, site, unique):
    """Made, used, counted, rotated, retired, revoked and deleted; the API knows at once."""
    secret = make_key(page, unique, "customers:read")
    assert site.call(secret) == 200

    page.get_by_role("link", name="To all keys").click()
    reload_until(page, requests_of(page, unique), "1")

    open_key(page, unique)
    page.get_by_role("link", name="Rotate").click()
    page.get_by_role("link", name="It is planned").click()
    page.get_by_label("The old secret works for").select_option("1 hour")
    page.get_by_role("button", name="Rotate").click()
    new = shown_secret(page)
    assert new != secret
    assert (site.call(new), site.call(secret)) == (200, 200)

    open_key(page, unique)
    reload_until(page, page.locator(".apikeys-previous strong").first, "1 use")
    page.get_by_role("link", name="Retire the old secret").click()
    page.get_by_role("button", name="Retire").click()
    done = page.locator(".apikeys-message")
    expect(done).to_have_text("The old secret is retired.")
    assert (site.call(new), site.call(secret)) == (200, 401)

    page.get_by_role("link", name="Revoke").click()
    page.get_by_label("Reason").fill("The program is gone")
    page.get_by_role("button", name="Revoke").click()
    expect(done).to_have_text("The key is revoked.")
    expect(page.get_by_text("Revoked by owner")).to_contain_text("The program is gone")
    assert site.call(new) == 401

    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    expect(done).to_have_text("The key is deleted.")
    expect(page).to_have_url(site.page())
    expect(row_of(page, unique)).to_have_count(0)


def test_a_leaked_secret_ends_at_once(page, site, unique):
    secret = make_key(page, unique, "customers:read")
    open_key(page, unique)

    page.get_by_role("link", name="Rotate").click()
    page.get_by_role("link", name="This secret has leaked").click()
    page.get_by_role("button", name="End it and make a new secret").click()

    assert (site.call(shown_secret(page)), site.call(secret)) == (200, 401)


def test_settings_are_changed(page, site, unique):
    secret = make_key(page, unique, "customers:read")
    open_key(page, unique)

    page.get_by_role("link", name="Settings", exact=True).click()
    page.get_by_label("Allowed addresses").fill("192.0.2.1")
    page.get_by_role("button", name="Save changes").click()

    expect(page.locator(".apikeys-message")).to_have_text("The changes are saved.")
    expect(page.get_by_label("Allowed addresses")).to_have_value("192.0.2.1")
    assert site.call(secret) == 403
    page.get_by_role("link", name="History").click()
    expect(page.locator(".apikeys-events > li").first).to_contain_text("192.0.2.1")


def test_what_is_wrong_is_said_beside_its_field(page, unique):
    page.goto(f"{PAGE}new/")
    page.get_by_label("Name", exact=True).fill(unique)
    page.get_by_label("Allowed addresses").fill("not an address")

    page.get_by_role("button", name="Create API key").click()

    alert = page.get_by_role("alert")
    expect(alert.get_by_role("link")).to_have_text(["Allowed addresses"])
    expect(page.get_by_label("Name", exact=True)).to_have_value(unique)
    expect(page.get_by_label("Allowed addresses")).to_have_attribute("aria-invalid", "true")


def test_the_list_is_searched_narrowed_and_sorted(page):
    page.goto(PAGE)

    page.get_by_role("searchbox", name="Search").fill("much to show")
    page.keyboard.press("Enter")
    expect(row_of(page, "Busy")).to_be_visible()
    expect(row_of(page, "Rotated")).to_have_count(0)

    page.get_by_role("link", name="Clear").click()
    page.get_by_role("link", name="Name", exact=True).click()
    expect(page.get_by_role("columnheader", name="Name")).to_have_attribute(
        "aria-sort", "ascending"
    )
    expect(page.get_by_role("rowheader").first).to_contain_text("Busy")


def test_the_list_has_pages(visit):
    page = visit("other", java_script_enabled=False)
    page.goto(f"{PAGE}?search=Import")

    page.get_by_role("link", name="Next").click()

    expect(page.get_by_text("Page 2 of 2")).to_be_visible()
    expect(page.get_by_role("rowheader")).to_have_count(1)


def test_a_secret_is_copied_and_calls_the_api(visit, site, unique):
    page = visit("owner", permissions=TO_COPY)
    secret = make_key(page, unique, "customers:read")
    page.evaluate("navigator.clipboard.writeText('')")

    page.get_by_role("button", name="Copy").first.click()

    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert copied(page) == secret
    assert site.call(copied(page)) == 200


def test_the_main_path_is_walked_by_the_keyboard_alone(visit, site, unique):
    """No click: Tab, Space, Enter, and letters; what has the focus can be seen to have it."""
    page = visit("owner", permissions=TO_COPY)
    keyboard = page.keyboard

    def press(target, key="Enter"):
        tab_to(page, target)
        assert target.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
        keyboard.press(key)

    page.goto(PAGE)
    press(page.get_by_role("link", name="Create API key", exact=True))
    tab_to(page, page.get_by_label("Name", exact=True))
    keyboard.type(unique)
    press(page.get_by_role("checkbox", name="customers:read"), "Space")
    press(page.get_by_role("button", name="Create API key"))

    shown_secret(page)
    press(page.get_by_role("button", name="Copy").first)
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    secret = copied(page)
    assert site.call(secret) == 200

    press(page.get_by_role("link", name="I have copied it: to the key"))
    press(page.get_by_role("link", name="Rotate"))
    expect(page.get_by_role("dialog")).to_be_visible()
    press(page.get_by_role("link", name="It is planned"))
    press(page.get_by_role("dialog").get_by_role("button", name="Rotate"))
    new = shown_secret(page)

    press(page.get_by_role("link", name="I have copied it: to the key"))
    press(page.get_by_role("link", name="Retire the old secret"))
    press(page.get_by_role("dialog").get_by_role("button", name="Retire"))
    done = page.locator(".apikeys-message")
    expect(done).to_have_text("The old secret is retired.")

    press(page.get_by_role("link", name="Revoke"))
    press(page.get_by_role("dialog").get_by_role("button", name="Revoke"))
    expect(done).to_have_text("The key is revoked.")
    assert site.call(new) == 401

    press(page.get_by_role("link", name="Delete"))
    press(page.get_by_role("dialog").get_by_role("button", name="Delete"))
    expect(done).to_have_text("The key is deleted.")
    press(page.get_by_role("searchbox", name="Search"), "a")
    expect(page.get_by_role("searchbox", name="Search")).to_have_value("a")
