"""What ``pages`` fills its databases with: keys, and all that is stored of them.

The first thousand keys belong to one organisation, and were used in each hour of 30 days;
they are the same in both databases. All others belong to 10 000 more organisations. What a
row is like is up to its number alone, so that each run measures the same.
"""

from __future__ import annotations

import psycopg

OWN = 1_000
OTHERS = 10_000  # organisations
# What the names of keys are made of: each word stands in a sixteenth of them.
WORDS = [
    *("Billing", "Export", "Deploy", "Webhook", "Mobile", "Partner", "Report", "Sync"),
    *("Backup", "Import", "Staging", "Warehouse", "Support", "Payroll", "Metrics", "Zapier"),
]

# luck(n, salt): 0 to 999, by chance, and each time the same.
_TOOLS = """
SET synchronous_commit = off;
-- The rows below keep to the foreign keys; to have each asked for takes as long again.
SET session_replication_role = replica;
SET work_mem = '256MB';
CREATE FUNCTION pg_temp.luck(n bigint, salt int) RETURNS int LANGUAGE sql IMMUTABLE
    RETURN mod(abs(hashint8extended(n, salt)), 1000)::int;
CREATE FUNCTION pg_temp.key(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    RETURN md5('key ' || n)::uuid;
CREATE FUNCTION pg_temp.text(n bigint, salt int) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN translate(encode(sha256((n || '/' || salt)::bytea), 'base64'), '+/=', 'xyz');
"""

# Each table in the order of time, so that rows of one owner lie as far apart as they would.
_STATEMENTS = """
CREATE TEMP TABLE numbers AS
SELECT n, CASE WHEN n <= %(own)s THEN 1 ELSE 2 + mod(n, %(others)s) END AS owner,
    now() - mod(abs(hashint8extended(n, 9)), 34560000) * interval '1 second' AS made,
    pg_temp.key(n) AS key, pg_temp.luck(n, 1) AS state, pg_temp.luck(n, 2) AS used,
    (%(words)s::text[])[1 + mod(n, 16)] || ' ' ||
    (%(words)s::text[])[1 + mod(abs(hashint8extended(n, 3)), 16)] || ' ' || n AS name
FROM generate_series(1, %(keys)s::bigint) AS n
ORDER BY made;

INSERT INTO auth_user (id, username, first_name, last_name, email, password, is_staff,
    is_superuser, is_active, date_joined)
SELECT o, 'person-' || o, '', '', 'person-' || o || '@example.com', '!', false, false, true, now()
FROM (SELECT DISTINCT owner FROM numbers) AS owners (o);

INSERT INTO auth_user (id, username, first_name, last_name, email, password, is_staff,
    is_superuser, is_active, date_joined)
VALUES (-1, 'root', '', '', '', '!', true, true, true, now()),
    (-2, 'auditor', '', '', '', '!', false, false, true, now());

INSERT INTO crm_organisation (id, name, slug, plan, is_active)
SELECT o, 'Organisation ' || o, 'organisation-' || o, 'pro', true
FROM (SELECT DISTINCT owner FROM numbers) AS owners (o);

INSERT INTO crm_membership (organisation_id, user_id, role)
SELECT o, o, 'owner' FROM (SELECT DISTINCT owner FROM numbers) AS owners (o)
UNION ALL SELECT 1, -1, 'owner';

-- 2 in 100 deleted, 6 revoked, 12 disabled, 12 expired, 27 to expire within a year.
INSERT INTO django_apikeys_apikey (id, owner_id, created_by_id, name, description, environment,
    scopes, allowed_ips, rate_limit, enabled, expires_at, metadata, created_at, updated_at,
    revoked_at, revoked_reason, deleted_at)
SELECT key, owner, owner, name,
    CASE WHEN mod(n, 3) = 0 THEN 'Reads the customers of office ' || n ELSE '' END,
    CASE WHEN mod(n, 5) = 0 THEN 'test' ELSE 'live' END,
    (ARRAY['[]', '["customers:read"]', '["jobs:read", "jobs:write"]', '["*"]'])[1 + mod(n, 4)]
        ::jsonb,
    CASE WHEN mod(n, 6) = 0 THEN '["192.0.2.0/24"]' ELSE '[]' END::jsonb,
    CASE WHEN mod(n, 7) = 0 THEN '300/m' ELSE '' END,
    state NOT BETWEEN 80 AND 199,
    CASE WHEN state BETWEEN 200 AND 319 THEN made + interval '1 hour'
         WHEN state BETWEEN 320 AND 589 THEN now() + pg_temp.luck(n, 4) * interval '8 hours' END,
    '{}', made, made, CASE WHEN state < 80 THEN now() END, '', CASE WHEN state < 20 THEN now() END
FROM numbers;

-- One in twenty was rotated, and half of these have ended.
INSERT INTO django_apikeys_apikeysecret (key_id, prefix, public_id, last_four, digest, slot,
    created_at, retires_at, first_used_at, encrypted)
SELECT key, 'rak', left(pg_temp.text(n, 0), 12), right(pg_temp.text(n, 0), 4),
    'hmac-sha256$sk-00000000$' || md5(n::text) || md5(n::text), 0,
    CASE WHEN mod(n, 20) = 0 THEN (made + (now() - made) / 2) ELSE made END, NULL,
    CASE WHEN used < 900 THEN made + (now() - made) / 2 END, ''
FROM numbers;
INSERT INTO django_apikeys_apikeysecret (key_id, prefix, public_id, last_four, digest, slot,
    created_at, retires_at, first_used_at, encrypted)
SELECT key, 'rak', left(pg_temp.text(n, 1), 12), right(pg_temp.text(n, 1), 4),
    'hmac-sha256$sk-00000000$' || md5(n::text) || md5(n::text),
    CASE WHEN mod(n, 40) = 0 THEN 1 END, made,
    now() + CASE WHEN mod(n, 40) = 0 THEN interval '1 day' ELSE interval '-1 day' END, made, ''
FROM numbers WHERE mod(n, 20) = 0;

-- One in ten was never used; half were last used more than a month ago.
INSERT INTO django_apikeys_apikeytotals (key_id, requests, errors, last_used_at, last_used_ip)
SELECT key, used * 1000 + pg_temp.luck(n, 5), used,
    CASE WHEN used < 450 THEN now() - used * interval '1 minute'
         ELSE made + (now() - made) / 2 END, '192.0.2.7'
FROM numbers WHERE used < 900;
INSERT INTO django_apikeys_apikeysecrettotals (secret_id, requests, in_grace, last_used_at,
    last_used_ip)
SELECT id, 100, CASE WHEN slot = 0 THEN 0 ELSE 3 END, now() - interval '1 hour', '192.0.2.7'
FROM django_apikeys_apikeysecret WHERE first_used_at IS NOT NULL;

-- Four events a key.
INSERT INTO django_apikeys_apikeyevent (at, type, key_id, key_name, key_masked, owner_id,
    owner_name, actor_kind, actor_id, actor_name, address, user_agent, reason, changes)
SELECT made + (now() - made) * nr / 4,
    (ARRAY['created', 'updated', 'rotated', 'updated'])[1 + nr], key, name,
    'rak_live_' || left(pg_temp.text(n, 0), 4) || '…' || right(pg_temp.text(n, 0), 4),
    owner::text, 'Organisation ' || owner, 'user', owner::text, 'person-' || owner, '192.0.2.7',
    'Mozilla/5.0', '', CASE WHEN nr = 1 THEN '{"name": ["Old", "New"]}' ELSE '{}' END::jsonb
FROM numbers CROSS JOIN generate_series(0, 3) AS nr
ORDER BY 1;

-- Of the one organisation each hour of 30 days, of all others two hours a key.
INSERT INTO django_apikeys_apikeyusage (key_id, starts_at, hours, route, method, outcome, requests)
SELECT key, date_trunc('hour', now()) - nr * interval '1 hour', 1,
    (ARRAY['/customers/', '/jobs/', '/invoices/<int:pk>/'])[1 + mod(n + nr, 3)], 'GET',
    CASE WHEN mod(n + nr, 20) = 0 THEN '4xx' ELSE '2xx' END, 1 + mod(n * nr, 50)
FROM numbers CROSS JOIN generate_series(0, 719) AS nr
WHERE n <= %(own)s OR nr IN (1, 50)
ORDER BY 2;

-- As flushes have added them up.
INSERT INTO django_apikeys_ownerquota (owner_id, month, units, requests)
SELECT owner::text, date_trunc('month', starts_at)::date, sum(requests), sum(requests)
FROM django_apikeys_apikeyusage JOIN numbers ON numbers.key = key_id
GROUP BY 1, 2;

INSERT INTO django_apikeys_apikeyaddress (key_id, address, first_seen_at, last_seen_at, requests)
SELECT key, '192.0.2.' || nr, made, now() - nr * interval '1 hour', 50
FROM numbers CROSS JOIN generate_series(1, 10) AS nr
WHERE n <= %(own)s OR nr = 1;
"""


def fill(database_url: str, keys: int) -> None:
    """Store *keys* keys and what belongs to them in a migrated PostgreSQL database."""
    facts = {"keys": keys, "own": OWN, "others": OTHERS, "words": WORDS}
    # The client puts the facts in: the server takes no parameters in several statements.
    with psycopg.connect(database_url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(_TOOLS)
        for statement in _STATEMENTS.split(";\n\n"):
            connection.execute(statement, facts)
    with psycopg.connect(database_url, autocommit=True) as connection:
        # As autovacuum would, in its time: the planner's numbers, and the map of what is seen.
        connection.execute("VACUUM ANALYZE")
