"""All that imports rest_framework."""
