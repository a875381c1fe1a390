"""The ways to send a key, as security schemes, and the scopes of an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.settings import spectacular_settings

from django_apikeys.conf import conf
from django_apikeys.declarations import declared_scopes

if TYPE_CHECKING:
    from drf_spectacular.openapi import AutoSchema

# By the names of APIKEYS_CREDENTIALS.
_NAMES = {
    "bearer": "apiKeyBearer",
    "api-key": "apiKeyAuthorization",
    "x-api-key": "apiKeyHeader",
    "basic": "apiKeyBasic",
}
_DEFINITIONS: dict[str, dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The secret of an API key: `Authorization: Bearer <secret>`.",
    },
    "api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": (
            "The word `Api-Key`, a space and the secret of an API key: "
            "`Authorization: Api-Key <secret>`."
        ),
    },
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The secret of an API key: `X-API-Key: <secret>`.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": (
            "The secret of an API key in place of the password. The user name is the owner's, "
            "or empty."
        ),
    },
}


class APIKeyScheme(OpenApiAuthenticationExtension):
    """One scheme for each way that APIKEYS_CREDENTIALS lets in."""

    target_class = "django_apikeys.drf.authentication.APIKeyAuthentication"
    match_subclasses = True

    def __init__(self, target: Any) -> None:
        super().__init__(target)  # type: ignore[no-untyped-call]  # of drf-spectacular
        self.name = [_NAMES[way] for way in conf.CREDENTIALS]

    def get_security_requirement(self, auto_schema: AutoSchema) -> list[dict[str, list[Any]]]:
        """Return the schemes, of which one is enough; none where keys are refused."""
        scopes = declared_scopes(auto_schema.view, auto_schema.method)
        if scopes is None:
            return []
        # OpenAPI 3.0 has scopes for OAuth2 and OpenID Connect alone.
        named = [] if spectacular_settings.OAS_VERSION.startswith("3.0") else sorted(scopes)
        return [{name: named} for name in self.name]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, Any]]:
        return [dict(_DEFINITIONS[way]) for way in conf.CREDENTIALS]
