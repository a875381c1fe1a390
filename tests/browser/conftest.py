"""Fixtures of the tests in a browser: the site, Chromium, and a page of somebody in a role."""

import os
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.site import filled, running
from tests.browser.steps import log_in

CHROMIUM = Path(os.environ.get("APIKEYS_CHROMIUM") or "/usr/bin/chromium")
SWITCHES = (
    "--no-sandbox",  # for root, as whom containers run tests
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Playwright switches it off; people have it.
WITH_BFCACHE = ["--disable-back-forward-cache"]
# Said by the browser itself of a page with another status than 200: which one, tests say.
OF_A_STATUS = "Failed to load resource: the server responded with a status of 4"
TELL_OF_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
});
"""

# How long a page may take, on a machine that does much else.
MILLISECONDS = 15_000
expect.set_options(timeout=MILLISECONDS)


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="session")
def keys(directory):
    """Fill the database of the sites; the keys by name."""
    return filled(directory)


@pytest.fixture(scope="session")
def site(directory, keys):
    with running(directory, keys) as site:
        yield site


@pytest.fixture(scope="session")
def retrievable_site(directory, keys):
    """The same site beside it, in the mode in which secrets are kept."""
    with running(directory, keys, BROWSER_RETRIEVABLE="1") as site:
        yield site


@pytest.fixture(scope="session")
def playwright():
    if not CHROMIUM.exists():
        pytest.fail(
            f"There is no Chromium at {CHROMIUM}. Install it (on Debian: apt-get install "
            "chromium), or name another in APIKEYS_CHROMIUM.",
            pytrace=False,
        )
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright):
    """One Chromium for all tests; each has contexts of its own."""
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM, args=SWITCHES, ignore_default_args=WITH_BFCACHE
    )
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def cookies_of(browser):
    """Tell the cookies of somebody in a role, who has logged in to a site."""
    found = {}

    def cookies_of(role, site):
        if (role, site.url) not in found:
            context = browser.new_context(base_url=site.url)
            log_in(context.new_page(), role)
            found[role, site.url] = context.storage_state()
            context.close()
        return found[role, site.url]

    return cookies_of


@pytest.fixture
def unique():
    """A name that no other key has."""
    return f"Key {uuid4().hex[:12]}"


@pytest.fixture
def reports():
    """What browsers complain of: violations of a policy, and errors of scripts."""
    return []


@pytest.fixture
def watched(reports):
    """Note of a context what its pages complain of."""

    def watched(context):
        def note(message):
            if message.type == "error" and not message.text.startswith(OF_A_STATUS):
                reports.append(f"{message.text} ({message.location.get('url')})")

        context.on("console", note)
        context.on("weberror", lambda error: reports.append(str(error.error)))
        context.add_init_script(TELL_OF_VIOLATIONS)
        return context

    return watched


@pytest.fixture
def visit(browser, site, cookies_of, watched, reports):
    """Make a page of somebody in a role, who has logged in; no page may complain.

    role: one of USERNAMES, or "anonymous". of: the site, by default the usual one.
    """
    contexts = []

    def visit(role, *, of=site, **options):
        if role != "anonymous":
            options["storage_state"] = cookies_of(role, of)
        context = watched(browser.new_context(base_url=of.url, **options))
        context.set_default_timeout(MILLISECONDS)
        contexts.append(context)
        return context.new_page()

    yield visit
    for context in contexts:
        context.close()
    assert reports == []
