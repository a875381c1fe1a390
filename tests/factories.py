"""Rows for tests. A usable secret comes from the fixture ``issued``."""

from datetime import timedelta

import factory
from django.contrib.auth import get_user_model
from django.utils import timezone

from django_apikeys.keys.format import generate
from django_apikeys.models import APIKey, APIKeySecret


class UserFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = get_user_model()
        skip_postgeneration_save = True

    username = factory.Sequence("user{}".format)
    email = factory.LazyAttribute("{0.username}@example.com".format)
    password = factory.django.Password("password")

    class Params:
        staff = factory.Trait(is_staff=True)
        superuser = factory.Trait(is_staff=True, is_superuser=True)


class APIKeyFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = APIKey
        skip_postgeneration_save = True

    owner = factory.SubFactory(UserFactory)
    name = factory.Sequence("key {}".format)
    environment = "live"

    class Params:
        disabled = factory.Trait(enabled=False)
        expired = factory.Trait(
            expires_at=factory.LazyFunction(lambda: timezone.now() - timedelta(seconds=1))
        )
        revoked = factory.Trait(revoked_at=factory.LazyFunction(timezone.now))
        deleted = factory.Trait(revoked=True, deleted_at=factory.LazyFunction(timezone.now))

    secret_row = factory.RelatedFactory(
        "tests.factories.APIKeySecretFactory", factory_related_name="key"
    )


class APIKeySecretFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = APIKeySecret

    class Params:
        parts = factory.LazyFunction(lambda: generate("rak", "live"))

    prefix = "rak"
    public_id = factory.LazyAttribute(lambda row: row.parts.public_id)
    last_four = factory.LazyAttribute(lambda row: row.parts.last_four)
    digest = "hmac-sha256$none$" + "0" * 64
