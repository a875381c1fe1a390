"""Swagger UI at /api/docs/: from this server alone, and "Authorize" works."""

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

DOCS = "/api/docs/"


@pytest.fixture
def page(visit):
    return visit("anonymous")


def authorize(page, scheme, secret):
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux")
    form = dialog.locator(".auth-container", has=page.get_by_text(scheme, exact=False)).first
    form.locator("input").first.fill(secret)
    form.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close").first.click()


def try_out(page, operation):
    """Call *operation*, and return the status that the page shows."""
    block = page.locator(f"[id$='-{operation}']")
    block.locator(".opblock-summary").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    return block.locator(".live-responses-table .response-col_status").last


def test_authorize_sends_the_key(page, site):
    page.goto(DOCS)

    authorize(page, "apiKeyBearer", site.keys["busy"]["secret"])

    expect(try_out(page, "apikeys_list")).to_have_text("200")


def test_without_a_key_it_is_401(page):
    page.goto(DOCS)

    expect(try_out(page, "customers_list")).to_have_text("401")


def test_the_header_of_its_own_works_too(page, site):
    page.goto(DOCS)

    authorize(page, "apiKeyHeader", site.keys["busy"]["secret"])

    expect(try_out(page, "customers_list")).to_have_text("200")


def test_everything_comes_from_this_server(page, site):
    asked = []
    page.on("request", lambda request: asked.append(urlsplit(request.url)))

    page.goto(DOCS)
    expect(page.get_by_role("button", name="Authorize").first).to_be_visible()

    foreign = [
        url for url in asked if url.scheme != "data" and url.netloc != f"127.0.0.1:{site.port}"
    ]
    assert foreign == []


def test_a_key_is_forgotten_with_the_page(page, site):
    secret = site.keys["busy"]["secret"]
    page.goto(DOCS)
    authorize(page, "apiKeyBearer", secret)

    stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    page.reload()

    assert secret not in stored
    expect(try_out(page, "customers_list")).to_have_text("401")
