"""What axe-core finds on every page: nothing, light and dark, wide and narrow."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.site import PAGE
from tests.browser.steps import make_key, shown_secret

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPTIONS = {"runOnly": TAGS, "resultTypes": ["violations"]}
# Both schemes and both widths; the pages that have most of all parts are looked at in all four.
LOOKS = [("light", 390), ("dark", 1280)]
ALL_LOOKS = [*LOOKS, ("light", 1280), ("dark", 390)]
RICHEST = ("list", "new", "key-with-an-old-secret", "settings")
PAGES = {
    "list": "",
    "list-of-one-status": "?status=revoked",
    "list-of-nothing": "?search=nothing-is-called-so",
    "list-that-is-asked-nonsense": "?status=nonsense",
    "new": "new/",
    "key-that-is-used": "{busy}/",
    "key-of-a-year": "{busy}/?span=12m",
    "key-with-an-old-secret": "{rotated}/",
    "key-that-is-disabled": "{disabled}/",
    "key-that-is-expired": "{expired}/",
    "key-that-ends-soon": "{ending}/",
    "key-that-is-revoked": "{revoked}/",
    "settings": "{busy}/settings/",
    "history": "{busy}/history/",
    "rotate": "{busy}/rotate/",
    "rotate-as-planned": "{rotated}/rotate/?why=planned",
    "rotate-after-a-leak": "{busy}/rotate/?why=leaked",
    "retire": "{rotated}/retire/",
    "revoke": "{busy}/revoke/",
    "delete": "{busy}/delete/",
    "refused": "{revoked}/settings/",
}
# The button has another name in Django 6.
RUN = re.compile("Go|Run")
ADMIN = {
    "list": "apikey/",
    "add": "apikey/add/",
    "change": "apikey/{busy}/change/",
    "change-of-a-rotated-key": "apikey/{rotated}/change/",
    "look-at-a-revoked-key": "apikey/{revoked}/change/",
    "rotate": "apikey/{busy}/rotate/",
    "retire": "apikey/{rotated}/retire/",
    "revoke": "apikey/{busy}/revoke/",
    "delete": "apikey/{busy}/delete/",
    "events": "apikeyevent/",
}


# What django.contrib.admin draws around and between what is ours; of its filters, one is ours.
IN_THE_ADMIN = {
    "include": [["#content"], [".apikeys-typed"]],
    "exclude": [
        [".object-tools"],
        [".sortoptions"],
        ["#changelist-filter"],
        ["#changelist-search"],
    ],
}
# A colour that fades into another is none of either look.
SETTLED = """
Promise.all(document.getAnimations().map((animation) => animation.finished)).then(() => null)
"""


def problems_of(page, context=None, looks=LOOKS):
    """Return what axe-core finds wrong on *page*, in each of *looks*.

    context: the part of the page, as axe-core takes it; default is all.
    """
    found = []
    for scheme, width in looks:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(SETTLED)
        for problem in Axe().run(page, context, OPTIONS).response["violations"]:
            found += [
                f"{scheme} {width} {problem['id']} {node['target']}: {node['failureSummary']}"
                for node in problem["nodes"]
            ]
    return found


@pytest.fixture(scope="module")
def used(site):
    """Calls of all kinds, so that charts and tables have something to show."""
    secret = site.keys["busy"]["secret"]
    paths = ("customers", "customers", "jobs", "invoices", "keys", "customers/0")
    return [site.call(secret, f"/api/v1/{path}/") for path in paths]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.usefixtures("used")
def test_a_page_of_the_owner_has_no_problem(name, visit, site):
    page = visit("owner")
    ids = {name: key["id"] for name, key in site.keys.items()}

    page.goto(PAGE + PAGES[name].format(**ids))

    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert problems_of(page, looks=ALL_LOOKS if name in RICHEST else LOOKS) == []


def test_the_page_of_a_secret_has_no_problem(visit, unique):
    page = visit("owner")

    make_key(page, unique)

    assert problems_of(page) == []


def test_a_form_with_problems_has_no_problem(visit):
    """What is wrong is said so that everybody is told of it."""
    page = visit("owner")
    page.goto(f"{PAGE}new/")
    page.get_by_label("Name", exact=True).fill("A key")
    page.get_by_label("Allowed addresses").fill("nonsense")
    page.get_by_label("Expires").select_option("on a date")
    page.get_by_role("button", name="Create API key").click()

    expect(page.get_by_role("alert")).to_be_visible()
    assert problems_of(page) == []


def test_a_list_of_several_pages_has_no_problem(visit):
    page = visit("other")

    page.goto(PAGE)

    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    assert problems_of(page) == []


def test_an_empty_list_has_no_problem(visit):
    page = visit("nobody")

    page.goto(PAGE)

    assert problems_of(page) == []


@pytest.mark.parametrize("link", ["Rotate", "Revoke", "Delete", "Retire the old secret"])
def test_a_dialog_has_no_problem(link, visit, site):
    page = visit("owner")
    page.goto(site.page("rotated"))

    page.get_by_role("link", name=link, exact=True).click()

    expect(page.get_by_role("dialog")).to_be_visible()
    assert problems_of(page) == []


@pytest.mark.parametrize("link", ["It is planned", "This secret has leaked"])
def test_a_dialog_of_a_rotation_has_no_problem(link, visit, site):
    page = visit("owner")
    page.goto(site.page("busy"))

    page.get_by_role("link", name="Rotate").click()
    page.get_by_role("link", name=link).click()

    expect(page.get_by_label("Reason")).to_be_visible()
    assert problems_of(page) == []


def test_the_pages_of_a_kept_secret_have_no_problem(visit, retrievable_site, unique):
    page = visit("owner", of=retrievable_site)
    make_key(page, unique)
    page.goto(PAGE)
    assert problems_of(page) == []

    page.get_by_role("link", name=unique, exact=True).click()
    page.get_by_role("link", name="Show the secret").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert problems_of(page) == []


@pytest.mark.parametrize("path", ADMIN.values(), ids=ADMIN)
@pytest.mark.usefixtures("used")
def test_a_page_of_ours_in_the_admin_has_no_problem(path, visit, site):
    page = visit("staff")
    ids = {name: key["id"] for name, key in site.keys.items()}

    page.goto(site.admin(path.format(**ids)))

    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert problems_of(page, IN_THE_ADMIN) == []


def test_the_page_of_a_secret_in_the_admin_has_no_problem(visit, site, unique):
    page = visit("staff")
    page.goto(site.admin("apikey/add/"))
    page.get_by_label("Name").fill(unique)
    page.get_by_role("button", name="Save", exact=True).click()
    shown_secret(page)

    assert problems_of(page, IN_THE_ADMIN) == []


def test_an_event_in_the_admin_has_no_problem(visit, site):
    page = visit("staff")
    page.goto(site.admin("apikeyevent/"))

    page.locator("#result_list tbody a").first.click()

    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert problems_of(page, IN_THE_ADMIN) == []


def test_the_confirmation_of_many_in_the_admin_has_no_problem(visit, site):
    page = visit("staff")
    page.goto(site.admin("apikey/?q=Import"))
    page.get_by_role("checkbox", name="Select all objects on this page for an action").check()
    page.get_by_label("Action:").select_option("revoke_selected")
    page.get_by_role("button", name=RUN).click()

    expect(page.get_by_label("Reason")).to_be_visible()
    assert problems_of(page, IN_THE_ADMIN) == []


def test_the_page_in_the_admin_that_asks_for_a_reveal_has_no_problem(
    visit, retrievable_site, unique
):
    page = visit("staff", of=retrievable_site)
    page.goto(retrievable_site.admin("apikey/add/"))
    page.get_by_label("Name").fill(unique)
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("link", name="To the key").click()
    page.get_by_role("link", name="Show the secret").click()

    expect(page.get_by_role("button", name="Show the secret")).to_be_visible()
    assert problems_of(page, IN_THE_ADMIN) == []
