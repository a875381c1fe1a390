"""The management API: section 4 of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.db import OperationalError
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ParseError, ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from django_apikeys import logins, logs, reports, services
from django_apikeys.actors import Actor
from django_apikeys.authority import SelfAuthority, authority_of, with_key
from django_apikeys.conf import conf
from django_apikeys.drf.exceptions import as_api_exception
from django_apikeys.drf.filters import (
    AccountForm,
    APIKeyEventFilter,
    APIKeyFilter,
    StrictFilterBackend,
    UsageForm,
)
from django_apikeys.drf.pagination import Envelope, EnvelopePagination
from django_apikeys.drf.permissions import HasAPIKey
from django_apikeys.drf.renderers import EventCSVRenderer
from django_apikeys.drf.serializers import (
    UNSAID,
    ChangedKeyInput,
    NewKeyInput,
    ReasonInput,
    RevealInput,
    RevokeInput,
    RotateInput,
    StrictSerializer,
    masked_data,
)
from django_apikeys.drf.throttling import APIKeyThrottle
from django_apikeys.exceptions import ChangeRefused, NotPermitted, Refused, Unavailable
from django_apikeys.keys.grants import Grant
from django_apikeys.models import APIKey, APIKeyEvent
from django_apikeys.representation import event_as_dict, key_as_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rest_framework.renderers import BaseRenderer
    from rest_framework.request import Request
    from rest_framework.serializers import BaseSerializer
    from rest_framework.throttling import BaseThrottle

    from django_apikeys.authority import Authority
    from django_apikeys.models import APIKeyQuerySet, AppendOnlyQuerySet
    from django_apikeys.policy import Action
    from django_apikeys.services import IssuedSecret

_INPUTS: dict[str, type[StrictSerializer]] = {
    "create": NewKeyInput,
    "partial_update": ChangedKeyInput,
    "revoke": RevokeInput,
    "rotate": RotateInput,
    "retire": ReasonInput,
    "reveal": RevealInput,
}


class ManagementView(APIView):
    """What the views have in common: nothing is cached, and our errors are answered."""

    @property
    def authority(self) -> Authority:
        """What the caller may do, a person or a key."""
        return authority_of(self.request)

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {**super().default_response_headers, "Cache-Control": "no-store"}

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, OperationalError):
            # A deadlock, a lock that was waited for too long, a server that went away.
            logs.once_a_minute("manage", "The database did not answer.", exc_info=True)
            exc = Unavailable()
        if isinstance(exc, (ChangeRefused, Refused)):
            exc = as_api_exception(exc)
        return super().handle_exception(exc)


class APIKeyViewSet(ManagementView, GenericViewSet[APIKey]):
    """Keys of the owners whom the caller may see."""

    queryset = APIKey.objects.none()
    permission_classes = (IsAuthenticated,)
    required_scopes = {
        "list": ["apikeys:read"],
        "retrieve": ["apikeys:read"],
        "create": ["apikeys:write"],
        "partial_update": ["apikeys:write"],
        "destroy": ["apikeys:write"],
        "revoke": ["apikeys:write"],
        "rotate": ["apikeys:write"],
        "retire": ["apikeys:write"],
        # For no key, which the view says itself: there is no scope that it lacks.
        "reveal": [],
    }
    pagination_class = EnvelopePagination
    filter_backends = (StrictFilterBackend,)
    filterset_class = APIKeyFilter

    def get_serializer_class(self) -> type[StrictSerializer]:
        # By method: OPTIONS and the browsable API ask for those of the others.
        name = self.action_map.get((self.request.method or "").lower())
        return _INPUTS.get(name or "", NewKeyInput)

    def get_queryset(self) -> APIKeyQuerySet:
        return self.authority.visible_keys()

    def get_object(self) -> APIKey:
        return _visible_key(self.authority, self.kwargs["pk"])

    def list(self, request: Request) -> Response:
        now = timezone.now()
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response([key_as_dict(key, now) for key in page or ()])

    def retrieve(self, request: Request, pk: str) -> Response:
        return _answer(self.get_object())

    def create(self, request: Request) -> Response:
        # Before the body is read: who may create for nobody learns nothing from it.
        self.authority.require_any("create")
        fields = self._input()
        return _answer_with_secret(services.create_key(**self._caller(), **fields))

    def partial_update(self, request: Request, pk: str) -> Response:
        key = self._permitted("change")
        services.update_key(key=key, **self._caller(), **self._input(key))
        return _answer(self.get_object())

    def destroy(self, request: Request, pk: str) -> Response:
        services.delete_key(key=self._permitted("delete"), **self._caller())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        key = self._permitted("revoke")
        services.revoke_key(key=key, **self._caller(), **self._input())
        return _answer(self.get_object())

    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: str) -> Response:
        key = self._permitted("rotate")
        issued = services.rotate_key(key=key, **self._caller(), **self._input())
        return _answer_with_secret(issued)

    @action(detail=True, methods=["post"])
    def retire(self, request: Request, pk: str) -> Response:
        key = self._permitted("rotate")
        services.retire_secret(key=key, **self._caller(), **self._input())
        return _answer(self.get_object())

    @action(detail=True, methods=["post"])
    def reveal(self, request: Request, pk: str) -> Response:
        if isinstance(request.auth, Grant):
            raise NotPermitted(_("No API key reveals a secret."))
        key = self._permitted("reveal")
        # Before a password is looked at, which would be asked for in vain.
        services.require_revealable(key)
        fields = _validated(lambda: RevealInput(data=masked_data(request)))
        logins.require_fresh(request._request, fields.get("password"))
        issued = services.reveal_secret(key=key, **self._caller())
        return _answer_with_secret(issued, status.HTTP_200_OK)

    def get_serializer_context(self) -> dict[str, Any]:
        environment = self.authority.default_environment or conf.ENVIRONMENTS[0]
        return {**super().get_serializer_context(), "environment": environment}

    def _input(self, key: APIKey | None = None) -> dict[str, Any]:
        """Return the body of the request, once the policy has let its sender in.

        key: the one that is to change.
        """
        context = self.get_serializer_context()
        if key is not None:
            context["environment"] = key.environment
        return _validated(
            lambda: self.get_serializer(
                data=self.request.data, partial=key is not None, context=context
            )
        )

    def _permitted(self, action_: Action) -> APIKey:
        """Return the key of the path, once the policy has allowed *action_* with it."""
        key = self.get_object()
        self.authority.require(action_, key.owner_id)
        return key

    def find_owner(self, identifier: Any) -> Any:
        """Return the owner of the key to be: the one whom the body names, or the only one.

        identifier: UNSAID where the body has none, None for the project itself.
        """
        if identifier is UNSAID:
            return self.authority.only_owner()
        if identifier is None:
            return self.authority.project()
        return self.authority.owner_named(identifier)

    def _caller(self) -> dict[str, Any]:
        return {"actor": Actor.from_request(self.request), "authority": self.authority}


class EventsView(ManagementView, GenericAPIView[APIKeyEvent]):
    """The events of the owners whom the caller may see; they are read, and nothing else."""

    queryset = APIKeyEvent.objects.none()
    permission_classes = (IsAuthenticated,)
    required_scopes = ("apikeys:read",)
    pagination_class = EnvelopePagination
    filter_backends = (StrictFilterBackend,)
    filterset_class = APIKeyEventFilter

    @property
    def renderer_classes(self) -> list[type[BaseRenderer]]:  # type: ignore[override]  # read, never set
        """The project's own, and behind them CSV."""
        return [*super().renderer_classes, EventCSVRenderer]

    def get_queryset(self) -> AppendOnlyQuerySet:
        return self.authority.visible_events()

    def get(self, request: Request, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response([event_as_dict(event) for event in page or ()])

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        answer = super().finalize_response(request, response, *args, **kwargs)
        # An exception handler may answer with a plain HttpResponse, which has no renderer.
        renderer = getattr(answer, "accepted_renderer", None)
        if isinstance(renderer, EventCSVRenderer) and not isinstance(answer.data, Envelope):
            # An error, or what OPTIONS says, has no columns: it is told as elsewhere.
            answer.accepted_renderer = self.get_renderers()[0]
            answer.accepted_media_type = answer.accepted_renderer.media_type
        return answer


class KeyEventsView(EventsView):
    """The events of one key."""

    def get_queryset(self) -> AppendOnlyQuerySet:
        key = _visible_key(self.authority, self.kwargs["pk"])
        return APIKeyEvent.objects.of_key(key)


class KeyUsageView(ManagementView):
    """What one key was used for."""

    permission_classes = (IsAuthenticated,)
    required_scopes = ("apikeys:read",)

    def get(self, request: Request, pk: str) -> Response:
        key = _visible_key(self.authority, pk)
        asked = UsageForm.read(request)
        report = reports.key_usage(
            key,
            timezone.now(),
            begins_at=asked["from"],
            ends_at=asked["to"],
            granularity=asked["granularity"] or "day",
        )
        return Response(report)


class AccountView(ManagementView):
    """What is used and left of an owner's plan: of ``?owner=``, or of the only one."""

    permission_classes = (IsAuthenticated,)
    required_scopes = ("apikeys:read",)
    api_cost = 0  # a quota that is used up can be read

    def get(self, request: Request) -> Response:
        self.authority.require_any("see")
        owner = self._owner(AccountForm.read(request)["owner"])
        return Response(reports.account(owner, timezone.now()))

    def _owner(self, identifier: str) -> Any:
        owners = self.authority.owners("see")
        if identifier:
            owner = with_key(owners, identifier)
            if owner is None:
                raise ValidationError({"owner": [_("There is no such owner.")]})
            return owner
        found = list(owners[:2])
        if len(found) > 1:
            raise ValidationError({"owner": [_("Say for which owner: several are possible.")]})
        # None is the project itself, for a key of its own and for who sees nobody else's.
        return found[0] if found else None


class ScopesView(ManagementView):
    """The scopes that the caller may grant, for ``?owner=`` or for any owner."""

    permission_classes = (IsAuthenticated,)
    required_scopes = ("apikeys:read",)

    def get(self, request: Request) -> Response:
        grantable: set[str] = set()
        for owner in self._owners(self.authority):
            grantable.update(self.authority.grantable(owner))
            if grantable >= conf.SCOPES.keys():
                break  # whatever the other owners' are
        return Response(
            [
                {"name": scope, "description": description}
                for scope, description in conf.SCOPES.items()
                if scope in grantable
            ]
        )

    def _owners(self, authority: Authority) -> list[Any]:
        identifier = self.request.query_params.get("owner")
        if identifier is None:
            return [*authority.owners("create"), *([None] * authority.may_for_project("create"))]
        if with_key(authority.owners("see"), identifier) is None:
            raise ValidationError({"owner": [_("There is no such owner.")]})
        owner = with_key(authority.owners("create"), identifier)
        return [] if owner is None else [owner]


class SelfView(ManagementView):
    """What a key may always read of itself, and what it may do to itself."""

    permission_classes = (HasAPIKey,)
    required_scopes: Collection[str] = ()

    def get_object(self) -> APIKey:
        # 404 where it was deleted while it was verified.
        key_id = cast("Grant", self.request.auth).key_id
        return get_object_or_404(APIKey.objects.listed(), pk=key_id)


class SelfDetailView(SelfView):
    """``keys/self/``."""

    api_cost = 0

    def get(self, request: Request) -> Response:
        return _answer(self.get_object())


class SelfRotateView(SelfView):
    """``keys/self/rotate/``: by the current secret alone."""

    required_scopes = ("self:rotate",)

    def post(self, request: Request) -> Response:
        grant = cast("Grant", request.auth)
        authority = SelfAuthority(grant)
        # Before the body is read, as everywhere.
        authority.require("rotate", grant.owner_id)
        fields = _validated(lambda: RotateInput(data=request.data))
        actor = Actor.from_request(request)
        issued = services.rotate_key(
            key=self.get_object(), actor=actor, authority=authority, **fields
        )
        return _answer_with_secret(issued)


class SelfRevokeView(SelfView):
    """``keys/self/revoke/``: also by a secret in its grace, so that a leak can be ended."""

    required_scopes = ("self:revoke",)

    def get_throttles(self) -> list[BaseThrottle]:
        # No limit of a key keeps a leak open; whatever else the project throttles by holds.
        return [
            throttle
            for throttle in super().get_throttles()
            if not isinstance(throttle, APIKeyThrottle)
        ]

    def post(self, request: Request) -> Response:
        fields = _validated(lambda: ReasonInput(data=request.data))
        actor = Actor.from_request(request)
        services.revoke_key(key=self.get_object(), actor=actor, **fields)
        return _answer(self.get_object())


def _validated(serializer: Callable[[], BaseSerializer[Any]]) -> dict[str, Any]:
    # Made here, as it is the parser that fails on a body that is nested too deeply.
    try:
        data = serializer()
        data.is_valid(raise_exception=True)
    except RecursionError as error:
        raise ParseError(_("The body is nested too deeply.")) from error
    return dict(data.validated_data)


def _visible_key(authority: Authority, pk: str) -> APIKey:
    key: APIKey | None = with_key(authority.visible_keys(), pk)
    if key is None:
        raise NotFound
    return key


def _answer_with_secret(issued: IssuedSecret, status_: int = status.HTTP_201_CREATED) -> Response:
    # As it is listed, which takes no query for each of its parts.
    key = APIKey.objects.listed().filter(pk=issued.key.pk).first() or issued.key
    body = {**key_as_dict(key, timezone.now()), "secret": issued.secret}
    return Response(body, status=status_)


def _answer(key: APIKey) -> Response:
    return Response(key_as_dict(key, timezone.now()))
