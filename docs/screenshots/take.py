"""Take the pictures of docs/screenshots.md anew: every page, light and dark, wide and narrow.

    tox run -e screenshots

On a database of its own that is thrown away, with an invented month. Chromium is where
APIKEYS_CHROMIUM says, else in /usr/bin.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from playwright.sync_api import Page

HERE = Path(__file__).parent
IMAGES = HERE.parent / "images"
WIDTHS = {"wide": 1280, "narrow": 390}
SCHEMES = ("light", "dark")
TALLEST = 1800  # pixels: what is below is more of the same
CHROMIUM = os.environ.get("APIKEYS_CHROMIUM", "/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
PAGE = "/settings/api-keys/"
ADMIN = "/admin/django_apikeys/"


def main() -> None:
    """Fill a database, serve it, and take every picture."""
    with tempfile.TemporaryDirectory() as directory:
        _set_up(Path(directory))
        from invented import invent  # noqa: PLC0415 - Django is set up first

        keys = {name: str(pk) for name, pk in invent().items()}
        with _served() as site, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for person, shots in (("rival", _empty), ("owner", _page), ("staff", _admin)):
                page = browser.new_page(base_url=site, reduced_motion="reduce")
                _log_in(page, person)
                for name in shots(page, keys):
                    _take(page, name)
                page.close()
            browser.close()


def _set_up(directory: Path) -> None:
    sys.path.insert(0, str(HERE.parent.parent))
    os.environ.pop("REDIS_URL", None)
    os.environ |= {
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
    }

    import django  # noqa: PLC0415 - the environment comes first
    from cryptography.fernet import Fernet  # noqa: PLC0415
    from django.conf import settings  # noqa: PLC0415
    from django.core.management import call_command  # noqa: PLC0415

    django.setup()
    settings.APIKEYS_RETRIEVABLE = True
    settings.APIKEYS_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    call_command("migrate", verbosity=0)


@contextmanager
def _served() -> Iterator[str]:
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler  # noqa: PLC0415
    from django.core.wsgi import get_wsgi_application  # noqa: PLC0415

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Say nothing of each file."""

    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(get_wsgi_application())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _log_in(page: Page, person: str) -> None:
    page.goto("/accounts/login/")
    page.fill("[name=username]", person)
    page.fill("[name=password]", "demo-password")
    page.press("[name=password]", "Enter")
    page.wait_for_url("**/")


# --- What is taken: each goes to a page, and names its picture -----------------------------


def _empty(page: Page, keys: Mapping[str, str]) -> Iterator[str]:
    page.goto(PAGE)
    page.get_by_role("link", name="Create API key").wait_for()
    for link in page.locator("tbody th a").all():
        link.wait_for()
    yield "page-empty"


def _page(page: Page, keys: Mapping[str, str]) -> Iterator[str]:
    busy = f"{PAGE}{keys['Billing export']}/"
    rotated = f"{PAGE}{keys['Webhook sender']}/"
    leaked = f"{PAGE}{keys['Zapier']}/"
    page.goto(PAGE)
    yield "page-list"
    page.goto(f"{PAGE}new/")
    yield "page-create"
    page.fill("[name=name]", "Nightly sync")
    page.fill("[name=rate_limit]", "many")
    page.fill("[name=allowed_ips]", "198.51.100.17/24")
    page.click("[data-apikeys-read-only]")
    page.click("form[data-apikeys-form] [type=submit]")
    page.locator(".apikeys-problems").wait_for()
    yield "page-create-problems"
    page.fill("[name=rate_limit]", "300/m")
    page.fill("[name=allowed_ips]", "198.51.100.17")
    page.click("form[data-apikeys-form] [type=submit]")
    page.locator("#secret").wait_for()
    yield "page-issued"
    page.goto(busy)
    yield "page-usage"
    page.goto(f"{busy}settings/")
    yield "page-settings"
    page.goto(f"{rotated}history/")
    yield "page-history"
    page.goto(rotated)
    yield "page-usage-rotated"
    for name, opened in {
        "page-rotate": "Rotate",
        "page-revoke": "Revoke",
        "page-delete": "Delete",
        "page-retire": "Retire the old secret",
        "page-reveal": "Show the secret",
    }.items():
        page.goto(rotated)
        page.get_by_role("link", name=opened, exact=True).click()
        page.locator("dialog[open]").wait_for()
        yield name
    page.goto(f"{PAGE}{keys['Old importer']}/settings/")
    yield "page-refused"
    page.goto(f"{PAGE}new/")
    form = page.locator("form[data-apikeys-form]")
    page.fill("[name=name]", "Sent twice")
    fields = form.evaluate("form => [...new FormData(form)]")
    page.request.post(f"{PAGE}new/", form=dict(fields), headers=_same_site(page))
    form.locator("[type=submit]").click()
    page.get_by_role("heading", name="This key was created already").wait_for()
    yield "page-repeated"
    for name, why in {"page-rotate-planned": "planned", "page-rotate-leaked": "leaked"}.items():
        page.goto(f"{leaked}rotate/?why={why}")
        yield name


def _admin(page: Page, keys: Mapping[str, str]) -> Iterator[str]:
    busy = f"{ADMIN}apikey/{keys['Billing export']}/"
    page.goto(f"{ADMIN}apikey/")
    yield "admin-change-list"
    page.goto(f"{ADMIN}apikey/add/")
    yield "admin-add"
    page.goto(f"{busy}change/")
    yield "admin-change-form"
    for name, opened in {
        "admin-rotate": "Rotate",
        "admin-reveal": "Show the secret",
        "admin-confirm": "Revoke",
    }.items():
        page.goto(f"{busy}change/")
        page.locator(".object-tools").get_by_role("link", name=opened, exact=True).click()
        page.locator("#content form[method=post]").wait_for()
        yield name
    page.goto(f"{busy}rotate/")
    page.locator("#content [type=submit]").click()
    page.locator("#secret").wait_for()
    yield "admin-issued"
    page.goto(f"{ADMIN}apikeyevent/")
    yield "admin-events"
    page.locator("#result_list tbody a").first.click()
    yield "admin-event"


def _same_site(page: Page) -> dict[str, str]:
    return {"Referer": page.url}


def _take(page: Page, name: str) -> None:
    for width, pixels in WIDTHS.items():
        page.set_viewport_size({"width": pixels, "height": 800})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            # What is in a dialog stands over the page, as far as that is in sight.
            is_dialog = page.locator("dialog[open]").count() > 0
            png = page.screenshot(full_page=not is_dialog, animations="disabled", caret="hide")
            image = Image.open(io.BytesIO(png)).convert("RGB")
            image = image.crop((0, 0, image.width, min(image.height, TALLEST)))
            image.save(IMAGES / f"{name}-{width}-{scheme}.webp", quality=82, method=6)


if __name__ == "__main__":
    main()
