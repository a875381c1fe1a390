"""The API's documentation: Swagger UI, under a Content-Security-Policy that it can keep."""

from __future__ import annotations

from drf_spectacular.views import SpectacularSwaggerSplitView

# Swagger UI styles its elements one by one, and has its pictures in its style sheet.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class DocsView(SpectacularSwaggerSplitView):
    """Its script is a request of its own, so that nothing inline runs."""

    url_name = "schema"
    url_self = "/api/docs/"

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {**super().default_response_headers, "Content-Security-Policy": POLICY}
