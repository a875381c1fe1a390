import django.db.models.deletion
import django.utils.timezone
import django_apikeys.models
import uuid
from django.conf import settings
from django.db import migrations, models
from django_apikeys.conf import conf


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        migrations.swappable_dependency(conf.OWNER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="APIKey",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=100, verbose_name="name")),
                (
                    "description",
                    models.CharField(blank=True, max_length=1000, verbose_name="description"),
                ),
                ("environment", models.CharField(max_length=16, verbose_name="environment")),
                ("scopes", models.JSONField(blank=True, default=list, verbose_name="scopes")),
                (
                    "allowed_ips",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text="IP addresses and networks, one on a line. Empty: all.",
                        verbose_name="allowed addresses",
                    ),
                ),
                (
                    "rate_limit",
                    models.CharField(
                        blank=True,
                        help_text="For instance 300/m. Empty: that of the plan.",
                        max_length=16,
                        verbose_name="rate limit",
                    ),
                ),
                ("enabled", models.BooleanField(default=True, verbose_name="enabled")),
                (
                    "expires_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="expires at"),
                ),
                ("metadata", models.JSONField(blank=True, default=dict, verbose_name="metadata")),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now,
                        editable=False,
                        verbose_name="created at",
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now,
                        editable=False,
                        verbose_name="updated at",
                    ),
                ),
                (
                    "revoked_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="revoked at"),
                ),
                (
                    "revoked_reason",
                    models.CharField(
                        blank=True, editable=False, max_length=500, verbose_name="reason"
                    ),
                ),
                (
                    "deleted_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="deleted at"),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="created by",
                    ),
                ),
                (
                    "created_by_key",
                    models.ForeignKey(
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="offspring",
                        to="django_apikeys.apikey",
                        verbose_name="created by key",
                    ),
                ),
                (
                    "owner",
                    models.ForeignKey(
                        blank=True,
                        help_text="Whom the key acts for. Empty: the project itself.",
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="api_keys",
                        to=conf.OWNER_MODEL,
                        verbose_name="owner",
                    ),
                ),
                (
                    "revoked_by",
                    models.ForeignKey(
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="revoked by",
                    ),
                ),
            ],
            options={
                "verbose_name": "API key",
                "verbose_name_plural": "API keys",
                "ordering": ("-created_at", "-id"),
                "permissions": (("revoke_apikey", "Can revoke API key"),),
            },
        ),
        migrations.CreateModel(
            name="APIKeySecret",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("prefix", models.CharField(blank=True, max_length=16)),
                ("public_id", django_apikeys.models.ExactCharField(max_length=64, unique=True)),
                ("last_four", django_apikeys.models.ExactCharField(max_length=4)),
                ("digest", models.CharField(max_length=255)),
                ("slot", models.PositiveSmallIntegerField(default=0, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("retires_at", models.DateTimeField(null=True)),
                ("grace_seconds", models.PositiveIntegerField(null=True)),
                ("first_used_at", models.DateTimeField(null=True)),
                ("reused_at", models.DateTimeField(null=True)),
                ("encrypted", models.TextField(blank=True)),
                (
                    "key",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="secrets",
                        to="django_apikeys.apikey",
                    ),
                ),
            ],
            options={
                "verbose_name": "secret",
                "verbose_name_plural": "secrets",
            },
        ),
        migrations.CreateModel(
            name="FlushedBatch",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="APIKeyTotals",
            fields=[
                (
                    "key",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="totals",
                        serialize=False,
                        to="django_apikeys.apikey",
                    ),
                ),
                ("requests", models.BigIntegerField(default=0)),
                ("errors", models.BigIntegerField(default=0)),
                ("last_used_at", models.DateTimeField(null=True)),
                ("last_used_ip", models.CharField(blank=True, max_length=45)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="APIKeyAddress",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("key_id", models.UUIDField()),
                ("address", models.CharField(max_length=45)),
                ("first_seen_at", models.DateTimeField()),
                ("last_seen_at", models.DateTimeField()),
                ("requests", models.BigIntegerField(default=0)),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("key_id", "address"), name="apikeys_address_one_row_each"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="APIKeyNotice",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("kind", models.CharField(max_length=16)),
                ("about", models.CharField(max_length=64)),
                ("claimed_at", models.DateTimeField()),
                ("sent_at", models.DateTimeField(null=True)),
                (
                    "key",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notices",
                        to="django_apikeys.apikey",
                    ),
                ),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("key", "kind", "about"), name="apikeys_notice_one_row_each"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="APIKeyEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                ("type", models.CharField(max_length=32, verbose_name="type")),
                ("key_id", models.UUIDField(null=True)),
                (
                    "key_name",
                    models.CharField(blank=True, max_length=100, verbose_name="key name"),
                ),
                (
                    "key_masked",
                    models.CharField(blank=True, max_length=100, verbose_name="key masked"),
                ),
                (
                    "owner_id",
                    django_apikeys.models.ExactCharField(
                        blank=True, max_length=255, verbose_name="owner id"
                    ),
                ),
                (
                    "owner_name",
                    models.CharField(blank=True, max_length=255, verbose_name="owner name"),
                ),
                ("actor_kind", models.CharField(max_length=8, verbose_name="actor kind")),
                (
                    "actor_id",
                    models.CharField(blank=True, max_length=255, verbose_name="actor id"),
                ),
                (
                    "actor_name",
                    models.CharField(blank=True, max_length=255, verbose_name="actor name"),
                ),
                ("address", models.CharField(blank=True, max_length=45, verbose_name="address")),
                (
                    "user_agent",
                    models.CharField(blank=True, max_length=255, verbose_name="user agent"),
                ),
                ("reason", models.CharField(blank=True, max_length=500, verbose_name="reason")),
                ("changes", models.JSONField(default=dict)),
            ],
            options={
                "verbose_name": "event",
                "verbose_name_plural": "events",
                "ordering": ("-at", "-id"),
                "base_manager_name": "objects",
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(fields=["key_id", "-at"], name="apikeys_event_key_at"),
                    models.Index(fields=["owner_id", "-at"], name="apikeys_event_owner_at"),
                ],
            },
        ),
        migrations.CreateModel(
            name="APIKeySecretTotals",
            fields=[
                (
                    "secret",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="totals",
                        serialize=False,
                        to="django_apikeys.apikeysecret",
                    ),
                ),
                ("requests", models.BigIntegerField(default=0)),
                ("in_grace", models.BigIntegerField(default=0)),
                ("last_used_at", models.DateTimeField(null=True)),
                ("last_used_ip", models.CharField(blank=True, max_length=45)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="APIKeyUsage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("key_id", models.UUIDField()),
                ("starts_at", models.DateTimeField()),
                ("hours", models.PositiveSmallIntegerField(default=1)),
                ("route", django_apikeys.models.ExactCharField(max_length=200)),
                ("method", models.CharField(max_length=8)),
                ("outcome", models.CharField(max_length=8)),
                ("requests", models.BigIntegerField(default=0)),
            ],
            options={
                "default_permissions": (),
                "indexes": [models.Index(fields=["starts_at"], name="apikeys_usage_starts_at")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("key_id", "starts_at", "hours", "route", "method", "outcome"),
                        name="apikeys_usage_one_row_each",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="OwnerQuota",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("owner_id", django_apikeys.models.ExactCharField(max_length=255)),
                ("month", models.DateField()),
                ("units", models.BigIntegerField(default=0)),
                ("requests", models.BigIntegerField(default=0)),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("owner_id", "month"), name="apikeys_quota_one_row_each"
                    )
                ],
            },
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(fields=["owner", "-created_at"], name="apikeys_key_owner_created"),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(fields=["-created_at", "-id"], name="apikeys_key_created"),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(fields=["expires_at", "id"], name="apikeys_key_expires"),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("deleted_at", None), ("revoked_at__isnull", False), _connector="OR"
                ),
                name="apikeys_key_deleted_is_revoked",
            ),
        ),
        migrations.AddConstraint(
            model_name="apikeysecret",
            constraint=models.UniqueConstraint(
                fields=("key", "slot"), name="apikeys_secret_one_in_a_slot"
            ),
        ),
        migrations.AddConstraint(
            model_name="apikeysecret",
            constraint=models.CheckConstraint(
                condition=models.Q(("slot__isnull", True), ("slot__in", (0, 1)), _connector="OR"),
                name="apikeys_secret_slot_known",
            ),
        ),
    ]
