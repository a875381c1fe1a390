"""The page with a secret: the answer to the POST that made it, and nothing else ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils import timezone

from django_apikeys.caching import patch_secret
from django_apikeys.conf import conf
from django_apikeys.web.samples import samples
from django_apikeys.web.shown import ShownKey

if TYPE_CHECKING:
    from django.template.response import TemplateResponse

    from django_apikeys.services import IssuedSecret
    from django_apikeys.web.pages import Page


def issued_page(page: Page, issued: IssuedSecret, **context: Any) -> TemplateResponse:
    """Return the page that shows the secret of *issued*, once.

    A redirect would need to keep it in a session, a cookie or a URL in between.
    """
    key = ShownKey(issued.key, timezone.now())
    calls = samples(page.request)
    context |= {"issued": issued, "key": key, "samples": calls, "is_kept": conf.RETRIEVABLE}
    response = page.page("issued", **context)
    patch_secret(response)
    return response
