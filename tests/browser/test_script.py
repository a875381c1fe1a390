"""What script adds to the owner's page: copying, dialogs, search while typing, help in forms."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.site import PAGE
from tests.browser.steps import (
    SECRET,
    copied,
    make_key,
    open_key,
    row_of,
    shown_secret,
)


@pytest.fixture
def page(visit):
    return visit("owner", permissions=["clipboard-read", "clipboard-write"])


def mark(page):
    """Mark the document: a page that is loaded anew does not have the mark."""
    page.evaluate("window.marked = true")


def is_marked(page):
    return page.evaluate("window.marked === true")


class TestCopying:
    def test_each_button_copies_what_is_beside_it(self, page, unique):
        secret = make_key(page, unique)
        found = []

        for button in page.get_by_role("button", name="Copy").all():
            button.click()
            expect(page.get_by_role("button", name="Copied")).to_have_count(1)
            found.append(copied(page))
            expect(page.get_by_role("button", name="Copied")).to_have_count(0)

        assert found[:2] == [secret, f"export API_KEY={secret}"]
        assert [text.split()[0] for text in found[2:]] == ["curl", "const", "import"]
        assert secret not in "".join(found[2:])

    def test_the_button_says_so_to_those_who_do_not_see_it(self, page, unique):
        make_key(page, unique)

        page.get_by_role("button", name="Copy").first.click()

        expect(page.locator("[data-apikeys-status]")).to_have_text("Copied")

    def test_the_public_id_is_copied_from_the_list(self, page, site):
        page.goto(f"{PAGE}?search=Busy")

        row_of(page, "Busy").get_by_role("button", name="Copy").click()

        expect(row_of(page, "Busy").get_by_role("button", name="Copied")).to_be_visible()
        assert copied(page) == site.keys["busy"]["secret"].split("_")[2]

    def test_where_the_clipboard_is_forbidden_the_secret_is_selected(self, page, unique):
        secret = make_key(page, unique)
        page.evaluate(
            "() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); "
            "document.execCommand = () => false; }"
        )

        page.get_by_role("button", name="Copy").first.click()

        said = page.locator("[data-apikeys-status]")
        expect(said).to_have_text("It could not be copied: it is selected now.")
        assert page.evaluate("getSelection().toString()") == secret

    def test_the_secret_is_selected_when_it_is_entered(self, page, unique):
        secret = make_key(page, unique)

        page.get_by_role("textbox", name="Secret").focus()

        assert page.evaluate("getSelection().toString()") == secret


class TestSecretThatIsLeft:
    def test_the_page_is_emptied_of_it(self, page, unique):
        """Before the browser puts the page by: whatever it keeps has no secret."""
        secret = make_key(page, unique)

        page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")

        assert secret not in page.content()
        expect(page.get_by_role("textbox", name="Secret")).to_have_count(0)

    def test_the_page_in_the_admin_is_emptied_of_it(self, visit, site, unique):
        page = visit("staff")
        page.goto(site.admin("apikey/add/"))
        page.get_by_label("Name").fill(unique)
        page.get_by_role("button", name="Save", exact=True).click()
        shown_secret(page)

        page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")

        expect(page.get_by_role("textbox", name="Secret")).to_have_count(0)

    def test_a_page_that_comes_back_from_memory_goes_on_to_the_key(self, page, unique):
        make_key(page, unique)

        page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")

        page.wait_for_url(re.compile(r"/settings/api-keys/[0-9a-f-]{36}/$"))
        expect(page.get_by_role("heading", level=1)).to_contain_text(unique)


class TestSearchAsYouType:
    def test_the_list_follows_without_a_page_load(self, page):
        page.goto(PAGE)
        length = page.evaluate("history.length")
        mark(page)

        field = page.get_by_role("searchbox", name="Search")
        field.press_sequentially("Rotat")

        expect(row_of(page, "Rotated")).to_be_visible()
        expect(row_of(page, "Busy")).to_have_count(0)
        page.wait_for_url("**?search=Rotat")
        expect(field).to_be_focused()
        expect(field).to_have_value("Rotat")
        expect(page.locator("[data-apikeys-status]")).to_have_text("1 API key")
        assert is_marked(page)
        assert page.evaluate("history.length") == length

    def test_a_filter_is_applied_when_it_is_chosen(self, page):
        page.goto(PAGE)
        mark(page)

        page.get_by_label("Status").select_option("Revoked")

        expect(row_of(page, "Revoked")).to_be_visible()
        expect(row_of(page, "Busy")).to_have_count(0)
        page.wait_for_url("**?status=revoked")
        assert is_marked(page)

    def test_what_is_cleared_shows_all_again(self, page):
        page.goto(PAGE)
        field = page.get_by_role("searchbox", name="Search")
        field.fill("nothing is called so")
        expect(page.get_by_text("No key is like that.")).to_be_visible()

        field.clear()

        expect(page.get_by_role("table")).to_be_visible()
        page.wait_for_url(f"**{PAGE}")

    def test_who_copies_from_what_was_found_keeps_the_focus(self, page):
        """Leaving the field asks for nothing again, and replaces nothing under the pointer."""
        asked = []
        page.goto(PAGE)
        page.get_by_role("searchbox", name="Search").fill("Busy")
        page.wait_for_url("**?search=Busy")
        page.on("request", lambda request: asked.append(request.url))

        row_of(page, "Busy").get_by_role("button", name="Copy").click()

        button = row_of(page, "Busy").get_by_role("button", name="Copied")
        expect(button).to_be_focused()
        assert asked == []

    @pytest.mark.parametrize("around", ["{}", "export API_KEY={}", 'Bearer "{}"'])
    def test_a_secret_that_is_pasted_is_sent_nowhere(self, page, site, around):
        secret = site.keys["busy"]["secret"]
        sent = []
        page.goto(PAGE)
        page.on("request", lambda request: sent.append(request.url))

        page.get_by_role("searchbox", name="Search").fill(around.format(secret))

        expect(row_of(page, "Busy")).to_be_visible()
        public_id = secret.split("_")[2]
        page.wait_for_url(f"**?search={public_id}")
        assert sent == [f"{site.page()}?search={public_id}"]
        expect(page.get_by_role("searchbox", name="Search")).to_have_value(public_id)


class TestDialogs:
    @pytest.mark.parametrize(
        ("link", "heading"),
        [
            ("Rotate", "Why is the secret rotated?"),
            ("Revoke", "Revoke this key?"),
            ("Delete", "Delete this key?"),
            ("Retire the old secret", "Retire the old secret?"),
        ],
    )
    def test_escape_closes_it_and_gives_the_focus_back(self, link, heading, page, site):
        page.goto(site.page("rotated"))
        mark(page)
        opener = page.get_by_role("link", name=link, exact=True)
        opener.focus()

        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name=heading)
        expect(dialog.get_by_role("heading", level=1)).to_be_focused()
        page.keyboard.press("Escape")

        expect(dialog).to_have_count(0)
        expect(opener).to_be_focused()
        assert is_marked(page)
        assert page.url == site.page("rotated")

    def test_cancel_closes_it(self, page, site):
        page.goto(site.page("busy"))
        mark(page)

        page.get_by_role("link", name="Revoke").click()
        page.get_by_role("dialog").get_by_role("link", name="Cancel").click()

        expect(page.get_by_role("dialog")).to_have_count(0)
        assert is_marked(page)

    def test_the_focus_stays_in_it(self, page, site):
        page.goto(site.page("busy"))
        page.get_by_role("link", name="Revoke").click()
        expect(page.get_by_role("dialog")).to_be_visible()

        # From the last of its fields Tab goes to the browser's own, and so to the body.
        inside = "document.activeElement.closest('dialog, body').localName"
        found = set()
        for _step in range(8):
            page.keyboard.press("Tab")
            found.add(page.evaluate(inside))
            on_the_page = "document.activeElement.matches('body *:not(dialog *)')"
            assert not page.evaluate(on_the_page)
        assert "dialog" in found

    def test_a_kept_secret_is_asked_for_in_one(self, visit, retrievable_site, unique):
        page = visit("owner", of=retrievable_site)
        secret = make_key(page, unique)
        open_key(page, unique)

        page.get_by_role("link", name="Show the secret").click()
        dialog = page.get_by_role("dialog", name="Show the secret?")
        dialog.get_by_role("button", name="Show the secret").click()

        assert shown_secret(page) == secret

    def test_a_kept_secret_is_copied_from_the_list_without_being_shown(
        self, visit, retrievable_site, unique
    ):
        page = visit(
            "owner", of=retrievable_site, permissions=["clipboard-read", "clipboard-write"]
        )
        secret = make_key(page, unique)
        page.goto(PAGE)

        row_of(page, unique).get_by_role("link", name="Copy the secret").click()

        expect(row_of(page, unique).get_by_role("link", name="Copied")).to_be_visible()
        assert copied(page) == secret
        assert not SECRET.search(page.content())

    def test_a_late_one_replaces_no_other(self, page, site):
        """Whoever has gone on to another question is not asked the first one."""
        held = []
        page.route("**/delete/", lambda route: held.append(route))  # noqa: PLW0108 - a function is marked
        page.goto(site.page("busy"))

        page.get_by_role("link", name="Delete").click()
        page.get_by_role("link", name="Rotate").click()
        page.get_by_role("link", name="It is planned").click()
        page.get_by_label("Reason").fill("Typed")
        [late] = held
        late.continue_()
        page.wait_for_timeout(300)  # nothing is to happen, for which there is no sign

        expect(page.get_by_role("dialog", name="Rotate the secret")).to_be_visible()
        expect(page.get_by_label("Reason")).to_have_value("Typed")

    def test_what_cannot_be_copied_is_not_revealed(self, visit, retrievable_site, unique):
        """As without HTTPS: there is no clipboard, and no event of a secret that nobody got."""
        page = visit("owner", of=retrievable_site)
        make_key(page, unique)
        page.goto(PAGE)
        page.evaluate("delete globalThis.ClipboardItem")
        sent = []
        page.on("request", lambda request: sent.append(request.method))

        row_of(page, unique).get_by_role("link", name="Copy the secret").click()

        expect(page.get_by_role("heading", name="Show the secret?")).to_be_visible()
        assert set(sent) == {"GET"}


class TestNarrow:
    @pytest.mark.parametrize(
        "path", ["", "new/", "{busy}/", "{busy}/settings/", "{busy}/history/"]
    )
    def test_nothing_lies_beyond_320_pixels(self, path, page, site):
        """As 1280 are where the page is enlarged to 400 %."""
        page.set_viewport_size({"width": 320, "height": 800})

        page.goto(PAGE + path.format(busy=site.keys["busy"]["id"]))

        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 320

    def test_tab_goes_to_nothing_that_is_hidden(self, page):
        page.set_viewport_size({"width": 900, "height": 800})
        page.goto(PAGE)

        hidden = """() => [...document.querySelectorAll("main a, main button, main select")]
            .filter((one) => one.checkVisibility() && one.getBoundingClientRect().width < 4)
            .map((one) => one.outerHTML)"""

        assert page.evaluate(hidden) == []


class TestForm:
    def test_read_only_ticks_what_reads(self, page):
        page.goto(f"{PAGE}new/")
        page.get_by_role("checkbox", name="jobs:write").check()

        page.get_by_role("button", name="Read only").click()

        ticked = page.locator("input[name=scopes]:checked")
        assert [box.get_attribute("value") for box in ticked.all()] == [
            "customers:read",
            "jobs:read",
            "invoices:read",
            "pricebook:read",
        ]

    def test_the_date_is_there_where_it_expires_on_one(self, page):
        page.goto(f"{PAGE}new/")
        date = page.get_by_label("Date")
        expect(date).to_be_hidden()

        page.get_by_label("Expires").select_option("on a date")
        expect(date).to_be_visible()
        page.get_by_label("Expires").select_option("never")
        expect(date).to_be_hidden()

    def test_the_hint_is_for_live_keys_that_work_from_everywhere(self, page):
        page.goto(f"{PAGE}new/")
        hint = page.get_by_text("A key for live use is safer with addresses")
        expect(hint).to_be_visible()

        page.get_by_label("Environment").select_option("test")
        expect(hint).to_be_hidden()
        page.get_by_label("Environment").select_option("live")
        expect(hint).to_be_visible()
        page.get_by_label("Allowed addresses").fill("192.0.2.1")
        expect(hint).to_be_hidden()

    def test_the_current_address_is_added_once(self, page):
        page.goto(f"{PAGE}new/")
        addresses = page.get_by_label("Allowed addresses")
        addresses.fill("192.0.2.1")

        for _twice in range(2):
            page.get_by_role("button", name="Use my current address").click()

        expect(addresses).to_have_value("192.0.2.1\n127.0.0.1")
        expect(addresses).to_be_focused()

    def test_a_second_click_does_not_take_the_secret_away(self, page, unique):
        page.goto(f"{PAGE}new/")
        page.get_by_label("Name", exact=True).fill(unique)

        page.get_by_role("button", name="Create API key").dblclick()

        shown_secret(page)


def test_without_script_no_button_that_needs_it_is_there(visit, site):
    page = visit("owner", java_script_enabled=False)

    for path in (site.page(), site.page(page="new/"), site.page("busy")):
        page.goto(path)
        for name in ("Copy", "Read only", "Use my current address"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)


def test_the_pages_have_the_strict_policy_and_nothing_inline(page, site):
    """Its violations are looked for in each test; here, that it is sent at all."""
    for path in (
        site.page(),
        site.page(page="new/"),
        site.page("busy"),
        site.page("busy", "rotate/"),
    ):
        policy = page.goto(path).headers["content-security-policy"]
        assert policy == (
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
            "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'"
        )


def test_a_violation_of_the_policy_is_reported(visit, reports):
    """What all tests rely on: an inline script is refused, and somebody says so."""
    page = visit("owner")
    page.goto(PAGE)

    page.evaluate(
        "() => document.body.append(Object.assign(document.createElement('script'), {text: '1'}))"
    )

    page.wait_for_function("document.querySelector('body > script') !== null")
    expect(page.locator("body")).to_be_visible()
    found, reports[:] = list(reports), []
    assert any("script-src" in report for report in found)
