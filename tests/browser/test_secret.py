"""A secret is shown once: who leaves its page finds it nowhere again."""

import json

import pytest
from playwright.sync_api import Error, expect

from tests.browser.conftest import CHROMIUM, SWITCHES, WITH_BFCACHE
from tests.browser.site import PAGE
from tests.browser.steps import log_in, make_key, shown_secret

# Where a page can leave something behind in a browser, beside cookies.
LEFT_BEHIND = """
async () => {
  const cached = [];
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) {
      cached.push(request.url, await (await cache.match(request)).text());
    }
  }
  return {
    localStorage: {...localStorage},
    sessionStorage: {...sessionStorage},
    databases: (await indexedDB.databases()).map((database) => database.name),
    caches: cached,
    workers: (await navigator.serviceWorker.getRegistrations()).length,
    state: history.state,
    name: window.name,
  };
}
"""
NOTHING = {
    "localStorage": {},
    "sessionStorage": {},
    "databases": [],
    "caches": [],
    "workers": 0,
    "state": None,
    "name": "",
}


def made(page, site, name):
    return make_key(page, name, "customers:read"), "I have copied it: to the key"


def rotated(page, site, name):
    made(page, site, name)
    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("link", name="Rotate").click()
    page.get_by_role("link", name="It is planned").click()
    page.get_by_role("button", name="Rotate").click()
    return shown_secret(page), "I have copied it: to the key"


def revealed(page, site, name):
    secret, _way_out = made(page, site, name)
    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("link", name="Show the secret").click()
    page.get_by_role("button", name="Show the secret").click()
    assert shown_secret(page) == secret
    return secret, "I have copied it: to the key"


def made_in_the_admin(page, site, name):
    page.goto(site.admin("apikey/add/"))
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Save", exact=True).click()
    return shown_secret(page), "To the key"


def rotated_in_the_admin(page, site, name):
    made_in_the_admin(page, site, name)
    page.get_by_role("link", name="To the key").click()
    page.get_by_role("link", name="Rotate").click()
    page.get_by_role("button", name="Rotate").click()
    return shown_secret(page), "To the key"


def revealed_in_the_admin(page, site, name):
    secret, _way_out = made_in_the_admin(page, site, name)
    page.get_by_role("link", name="To the key").click()
    page.get_by_role("link", name="Show the secret").click()
    page.get_by_role("button", name="Show the secret").click()
    assert shown_secret(page) == secret
    return secret, "To the key"


# By panel: who is shown a secret, by which site, and how.
PANELS = {
    "made": ("owner", "site", made),
    "rotated": ("owner", "site", rotated),
    "revealed": ("owner", "retrievable_site", revealed),
    "made-in-the-admin": ("staff", "site", made_in_the_admin),
    "rotated-in-the-admin": ("staff", "site", rotated_in_the_admin),
    "revealed-in-the-admin": ("staff", "retrievable_site", revealed_in_the_admin),
}


@pytest.fixture(params=[True, False], ids=["with-script", "without-script"])
def scripted(request):
    return request.param


@pytest.fixture(params=PANELS.values(), ids=PANELS)
def panel(request, visit, scripted, unique):
    """Show a secret in a panel: the page, the site, the secret, and the link that leads on."""
    role, site, show = request.param
    site = request.getfixturevalue(site)
    page = visit(role, of=site, java_script_enabled=scripted)
    secret, way_out = show(page, site, unique)
    return page, site, secret, way_out


def text_of(page):
    """Return all that *page* has, what stands in its fields included."""
    values = "[...document.querySelectorAll('input, textarea')].map((field) => field.value).join()"
    return page.evaluate(f"document.documentElement.outerHTML + {values}")


def leave(page, way_out):
    page.get_by_role("link", name=way_out).click()
    expect(page.get_by_role("textbox", name="Secret")).to_have_count(0)


def go_back(page):
    """Go back to the answer of a form, which the browser has not kept: it asks to send again."""
    try:
        page.go_back()
    except Error as error:
        assert "ERR_CACHE_MISS" in str(error)  # noqa: PT017 - where it is kept, none is raised
        page.wait_for_url(lambda url: url.startswith("chrome-error:"), wait_until="commit")


def test_nothing_brings_a_secret_back(panel):
    """Neither going back to its page, nor sending its form again, nor another tab."""
    page, _site, secret, way_out = panel
    shown_at = page.url
    assert secret in text_of(page)

    leave(page, way_out)
    assert secret not in text_of(page)
    go_back(page)
    assert secret not in text_of(page)
    page.reload()
    assert secret not in text_of(page)
    tab = page.context.new_page()
    tab.goto(shown_at)
    assert secret not in text_of(tab)


def test_reloading_the_page_of_a_secret_shows_no_secret(panel):
    page, _site, secret, _way_out = panel

    page.reload()

    assert secret not in text_of(page)
    expect(page.get_by_role("textbox", name="Secret")).to_have_count(0)


def test_a_secret_is_kept_nowhere(panel):
    """Neither in the browser nor by the site, while it is shown and after that."""
    page, site, secret, way_out = panel

    for moment in ("shown", "left"):
        left_behind = page.evaluate(LEFT_BEHIND)
        assert secret not in json.dumps(left_behind)
        if page.url.startswith(site.page()):
            assert left_behind == NOTHING
        assert secret not in json.dumps(page.context.cookies())
        assert secret not in page.url
        assert len(site.sessions()) > 0
        assert secret not in json.dumps(site.sessions())
        assert secret.encode() not in site.stored()
        if moment == "shown":
            leave(page, way_out)


def test_the_back_forward_cache_is_on(visit, site):
    """It keeps pages that may be kept: else it would be no wonder that it has no secret."""
    page = visit("anonymous")
    page.goto("/")
    page.evaluate("addEventListener('pageshow', (event) => { window.kept = event.persisted })")

    page.goto("/accounts/login/")
    page.go_back(wait_until="commit")

    page.wait_for_function("window.kept === true")


def test_a_secret_is_nowhere_on_the_disk(playwright, site, scripted, tmp_path, unique):
    """Not in the profile of the browser: its caches, its history, what it would restore."""
    profile = tmp_path / "profile"
    context = playwright.chromium.launch_persistent_context(
        profile,
        base_url=site.url,
        java_script_enabled=scripted,
        executable_path=CHROMIUM,
        args=SWITCHES,
        ignore_default_args=WITH_BFCACHE,
    )
    page = context.new_page()
    log_in(page, "owner")
    secret = make_key(page, unique)
    page.get_by_role("link", name="I have copied it").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(unique)
    context.close()

    written = b"".join(path.read_bytes() for path in profile.rglob("*") if path.is_file())
    # The address of the page is found, so what was visited has been written.
    assert f"{PAGE}new/".encode() in written
    for encoding in ("ascii", "utf-16-le"):
        assert secret.encode(encoding) not in written


def test_a_secret_that_is_searched_for_does_not_stay_in_the_address(visit, site, scripted):
    page = visit("owner", java_script_enabled=scripted)
    secret = site.keys["busy"]["secret"]
    page.goto(PAGE)

    page.get_by_role("searchbox", name="Search").fill(secret)
    page.keyboard.press("Enter")

    public_id = secret.split("_")[2]
    page.wait_for_url(f"**?*search={public_id}*")
    assert secret not in text_of(page)
    page.go_back()
    assert secret not in text_of(page)
    page.go_forward()
    assert secret not in page.url


def test_the_page_of_a_secret_in_the_admin_lets_people_log_out(visit, site, unique):
    """Its Referrer-Policy must not make the browser send "Origin: null", which is refused."""
    page = visit("anonymous")
    log_in(page, "staff")
    made_in_the_admin(page, site, unique)

    page.get_by_role("button", name="Log out").click()

    expect(page.get_by_role("link", name="Log in", exact=True)).to_be_visible()
