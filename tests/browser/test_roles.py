"""What each role sees on the owner's page, can press, and is refused."""

import pytest
from playwright.sync_api import expect

from tests.browser.site import PAGE
from tests.browser.steps import make_key, open_key, row_of

# What a role is offered on the page of a key with an old secret.
OFFERED = {
    "owner": ["Rotate", "Revoke", "Delete", "Retire the old secret"],
    "admin": ["Revoke"],
    "member": [],
}
TABS = {
    "owner": ["Usage", "Settings", "History"],
    "admin": ["Usage", "History"],
    "member": ["Usage", "History"],
}
# The status of each page, by who asks for it: the key is Acme's.
STATUSES = {
    "": {"owner": 200, "admin": 200, "member": 200, "other": 404, "nobody": 404},
    "history/": {"owner": 200, "admin": 200, "member": 200, "other": 404, "nobody": 404},
    "settings/": {"owner": 200, "admin": 403, "member": 403, "other": 404, "nobody": 404},
    "rotate/": {"owner": 200, "admin": 403, "member": 403, "other": 404, "nobody": 404},
    "retire/": {"owner": 200, "admin": 403, "member": 403, "other": 404, "nobody": 404},
    "revoke/": {"owner": 200, "admin": 200, "member": 403, "other": 404, "nobody": 404},
    "delete/": {"owner": 200, "admin": 403, "member": 403, "other": 404, "nobody": 404},
}
PEOPLE = ("owner", "admin", "member", "other", "nobody")


@pytest.fixture(params=[True, False], ids=["with-script", "without-script"])
def enter(visit, request):
    """Make a page of somebody in a role."""
    return lambda role: visit(role, java_script_enabled=request.param)


@pytest.mark.parametrize("role", OFFERED)
def test_a_role_is_offered_what_it_may_do(role, enter, site):
    page = enter(role)

    page.goto(site.page("rotated"))

    expect(
        page.locator(".apikeys-header, .apikeys-previous").locator("a.apikeys-button")
    ).to_have_text(OFFERED[role])
    expect(page.locator(".apikeys-tabs").get_by_role("link")).to_have_text(TABS[role])


@pytest.mark.parametrize("role", PEOPLE)
def test_a_role_is_answered_as_it_may(role, visit, site):
    page = visit(role)

    # Not until all of it is drawn: the status comes first.
    found = {
        name: page.goto(site.page("rotated", name), wait_until="commit").status
        for name in STATUSES
    }

    assert found == {name: statuses[role] for name, statuses in STATUSES.items()}


def test_an_admin_revokes_and_cannot_make(enter, visit, site, unique):
    owner, admin = visit("owner", java_script_enabled=False), enter("admin")
    secret = make_key(owner, unique, "customers:read")

    open_key(admin, unique)
    admin.get_by_role("link", name="Revoke").click()
    admin.get_by_role("button", name="Revoke").click()

    expect(admin.get_by_text("Revoked by admin")).to_be_visible()
    assert site.call(secret) == 401
    admin.goto(PAGE)
    expect(admin.get_by_role("link", name="Create API key")).to_have_count(0)
    assert admin.goto(f"{PAGE}new/").status == 403
    expect(admin.get_by_role("heading", level=1)).to_have_text("Nothing was changed")


def test_a_member_looks_and_does_nothing(enter, site):
    page = enter("member")

    open_key(page, "Busy")

    page.get_by_role("link", name="History").click()
    expect(page.get_by_role("listitem").filter(has_text="created").first).to_be_visible()
    page.goto(PAGE)
    expect(page.get_by_role("link", name="Create API key")).to_have_count(0)
    assert page.goto(f"{PAGE}new/").status == 403


def test_the_owner_of_another_organisation_has_their_own_keys(enter, site, unique):
    page = enter("other")

    secret = make_key(page, unique, "customers:read")

    assert site.call(secret) == 200
    page.goto(PAGE)
    expect(row_of(page, unique)).to_have_count(1)
    expect(row_of(page, "Busy")).to_have_count(0)
    page.goto(f"{PAGE}?search=Busy")
    expect(page.get_by_text("No key is like that.")).to_be_visible()


def test_who_is_in_no_organisation_sees_no_key(enter):
    page = enter("nobody")

    page.goto(PAGE)

    expect(page.get_by_role("heading", name="No API keys yet")).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(0)
    expect(page.get_by_role("link", name="Create")).to_have_count(0)
    assert page.goto(f"{PAGE}new/").status == 403


@pytest.mark.parametrize("path", ["", "new/", "{key}/", "{key}/rotate/"])
def test_the_anonymous_are_led_to_the_login(path, enter, site):
    page = enter("anonymous")
    target = PAGE + path.format(key=site.keys["busy"]["id"])

    page.goto(target)

    assert page.url == f"{site.url}/accounts/login/?next={target}"
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
