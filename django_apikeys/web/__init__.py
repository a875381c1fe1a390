"""The owner's page: keys are made, watched, changed and ended by whom they belong to.

Mounted by ``include("django_apikeys.web.urls")``. It is whole without script; ``data-``
attributes and hidden buttons are for script to begin at. Nothing here imports
rest_framework.
"""
