"""API keys in the OpenAPI schema that drf-spectacular makes.

``apps.ready()`` imports it where ``drf_spectacular`` is installed, and nothing needs to be set:
``schemes`` has the ways to send a key, ``operations`` what each operation asks of a key and
how it refuses one, ``management`` the management API, by the ``shapes`` of its bodies.
"""

from django_apikeys.contrib.drf_spectacular import management, operations, schemes

__all__ = ["management", "operations", "schemes"]
