"""Keys, roles, limits, and what foreign pages may do."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from ratchet.cli import app as command
from ratchet.errors import InvalidInputError
from ratchet.gateway.access import Caller, RateLimits, new_key
from ratchet.gateway.options import GatewayOptions
from ratchet.gateway.problems import ProblemError
from ratchet.gateway.serve import Supervisor
from ratchet.gateway.tokens import load_secret
from ratchet.records import ApiKeyRevocation

ASK = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def put(gateway, *roles, **options):
    record, key = new_key("shop", roles or ("ingest",), now=datetime.now(UTC), **options)
    gateway.store.append(record)
    gateway.app.state.gateway.router.refresh()
    return record, {"authorization": f"Bearer {key}"}


def test_with_a_key_in_place_nobody_asks_without_one(gateway):
    assert gateway.post("/v1/chat/completions", ASK).status_code == 200
    _, key = put(gateway)
    refused = gateway.post("/v1/chat/completions", ASK)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    wrong = {"authorization": key["authorization"][:-1] + "!"}
    assert gateway.post("/v1/chat/completions", ASK, headers=wrong).status_code == 401
    assert gateway.post("/v1/chat/completions", ASK, headers=key).status_code == 200
    assert gateway.interactions()[-1].segment == "shop"


@pytest.mark.parametrize(
    ("role", "ask", "models"),
    [("ingest", 200, 200), ("read", 403, 200), ("review", 403, 403), ("admin", 200, 200)],
)
def test_a_role_opens_what_it_is_for(gateway, role, ask, models):
    _, key = put(gateway, role)
    assert gateway.post("/v1/chat/completions", ASK, headers=key).status_code == ask
    assert gateway.get("/v1/models", headers=key).status_code == models


def test_a_revoked_key_is_refused_and_the_gateway_stays_shut(gateway):
    record, key = put(gateway)
    gateway.store.append(ApiKeyRevocation(id=record.id, created_at=datetime.now(UTC)))
    gateway.app.state.gateway.router.refresh()
    assert gateway.post("/v1/chat/completions", ASK, headers=key).status_code == 401
    assert gateway.post("/v1/chat/completions", ASK).status_code == 401


def test_the_secret_of_a_key_is_nowhere_in_the_home(gateway, settings):
    _, key = put(gateway)
    secret = key["authorization"].rpartition("_")[2].encode()
    files = [path for path in settings.home.rglob("*") if path.is_file()]
    assert len(files) > 2
    assert not any(secret in path.read_bytes() for path in files)


def test_the_secret_of_tokens_is_made_once_for_its_owner_alone(tmp_path):
    first = load_secret(tmp_path)
    assert load_secret(tmp_path) == first
    assert len(first) == 32
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "signed"]


def test_who_asks_too_often_is_told_how_long_to_wait(serve, mock):
    gateway = serve(backend=mock.url, rate_per_second=2)
    replies = [gateway.post("/v1/chat/completions", ASK) for _ in range(12)]
    limited = [reply for reply in replies if reply.status_code == 429]
    assert replies[0].status_code == 200
    assert limited
    assert int(limited[0].headers["retry-after"]) >= 1
    assert limited[0].json()["error"]["code"] == "rate_limit_exceeded"


def test_a_bucket_refills_at_its_rate():
    clock = [0.0]
    limits = RateLimits(10.0, workers=2, clock=lambda: clock[0])
    caller = Caller("key:a", "a", frozenset())

    def taken():
        count = 0
        try:
            while True:
                limits.take(caller)
                count += 1
        except ProblemError:
            return count

    assert taken() == 10  # twice the rate of 5 that this process has
    clock[0] = 1.0
    assert taken() == 5
    limits.take(Caller("key:b", "b", frozenset()))


def test_a_foreign_page_may_call_only_where_its_origin_is_allowed(serve, mock):
    gateway = serve(backend=mock.url, origins=("https://shop.example",))
    for origin, status in (
        ("https://shop.example", 200),
        ("https://evil.example", 403),
        ("null", 403),
        (gateway.url, 200),
    ):
        reply = gateway.post("/v1/chat/completions", ASK, headers={"origin": origin})
        assert reply.status_code == status, origin
    asked = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    import httpx

    preflight = httpx.options(f"{gateway.url}/v1/chat/completions", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example"


def test_a_rebound_name_is_refused_while_the_gateway_is_open(gateway):
    reply = gateway.post("/v1/chat/completions", ASK, headers={"host": "evil.example:8000"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "foreign_host")


def test_a_public_address_without_keys_is_not_served(settings):
    supervisor = Supervisor(GatewayOptions(settings=settings, host="0.0.0.0"), say=print)
    with pytest.raises(InvalidInputError, match="needs keys"):
        supervisor.run()


def test_the_command_makes_lists_and_revokes_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    run = CliRunner().invoke
    key = run(command, ["keys", "create", "shop", "--role", "ingest", "--role", "read"]).output
    assert key.startswith("ratchet_")
    (shown,) = json.loads(run(command, ["keys", "list", "--json"]).output)
    assert (shown["application"], shown["roles"], shown["revoked"]) == (
        "shop", ["ingest", "read"], False,
    )  # fmt: skip
    assert "secret_hash" not in shown
    assert run(command, ["keys", "revoke", shown["id"]]).exit_code == 0
    assert json.loads(run(command, ["keys", "list", "--json"]).output)[0]["revoked"]
    assert isinstance(run(command, ["keys", "revoke", "nobody"]).exception, InvalidInputError)
    assert isinstance(
        run(command, ["keys", "create", "x", "--role", "king"]).exception, InvalidInputError
    )
