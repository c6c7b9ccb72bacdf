"""What a key opens: until when, which application's answers, how many events, how many tries."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.cli import app as command
from ratchet.gateway.access import RateLimits, WrongKeys, new_key
from ratchet.gateway.problems import ProblemError
from ratchet.gateway.tokens import unsigned_token
from ratchet.records import ApiKeyTerms, Interaction

ASK = {"model": "m", "messages": [{"role": "user", "content": "x"}], "user": "ana"}


def put(gateway, application, *scopes, roles=("ingest",), expires_at=None, **options):
    """Put a key in place, without terms where there are no scopes, as the version before did."""
    now = datetime.now(UTC)
    record, key = new_key(application, roles, now=now, **options)
    if scopes or expires_at:
        terms = ApiKeyTerms(
            id=record.id,
            created_at=now,
            expires_at=expires_at,
            scopes=scopes or ("ask", "feedback"),
        )
        gateway.store.append(terms)
    gateway.store.append(record)
    gateway.app.state.gateway.router.refresh()
    return {"authorization": f"Bearer {key}"}


def rate(gateway, interaction, headers=None, **fields):
    event = {"id": f"e-{interaction}", "interaction_id": interaction, "kind": "thumbs"}
    return gateway.post("/v1/feedback", event | {"value": "up"} | fields, headers=headers)


def ask(gateway, headers=None, **fields):
    reply = gateway.post("/v1/chat/completions", ASK | fields, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_key_rates_the_answers_of_its_own_application_alone(gateway):
    shop, bank = put(gateway, "shop"), put(gateway, "bank", "ask", "feedback")
    answer = ask(gateway, shop)["id"]
    refused = rate(gateway, answer, bank)  # before its answer is in the store
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "foreign_interaction")
    gateway.settle()
    assert rate(gateway, answer, bank).status_code == 403
    assert rate(gateway, answer, put(gateway, "shop")).status_code == 200
    (event,) = gateway.feedback()
    assert event["interaction_id"] == answer


@pytest.mark.parametrize(
    ("scopes", "roles"), [(("any-answer", "feedback"), ("ingest",)), ((), ("admin",))]
)
def test_a_key_for_any_answer_and_an_admin_rate_all(gateway, scopes, roles):
    answer = ask(gateway, put(gateway, "shop"))["id"]
    assert rate(gateway, answer, put(gateway, "judge", *scopes, roles=roles)).status_code == 200


def test_a_batch_takes_the_own_events_and_lists_the_foreign(gateway):
    shop, bank = put(gateway, "shop"), put(gateway, "bank")
    own, foreign = ask(gateway, bank)["id"], ask(gateway, shop)["id"]
    events = [
        {"id": key, "interaction_id": key, "kind": "thumbs", "value": "up"}
        for key in (own, foreign)
    ]
    found = gateway.post("/v1/feedback", {"events": events}, headers=bank).json()
    assert found["accepted"] == 1
    assert [(row["index"], row["code"]) for row in found["rejected"]] == [(1, "forbidden")]


def test_answers_of_before_are_told_apart_by_what_the_store_says(gateway):
    def answered(key, segment, **metadata):
        gateway.store.add_interactions(
            [
                Interaction(
                    id=key,
                    session_id="s",
                    user_id="u",
                    created_at=datetime.now(UTC),
                    model_version="m/1",
                    messages=[{"role": "user", "content": "x"}],
                    response="y",
                    latency_seconds=0.1,
                    segment=segment,
                    metadata=metadata,
                )
            ]
        )

    shop = put(gateway, "shop")
    old = "chatcmpl-" + "0123456789abcdef" * 2
    answered(old, "shop")
    answered(old[:-1] + "0", "bank")
    answered(old[:-1] + "1", "de", application="bank")
    answered(old[:-1] + "2", "all")
    answered("imported-1", "de")
    answered("imported-2", "de", application="bank")
    codes = {
        key: rate(gateway, key, shop).status_code
        for key in (
            old,
            *(old[:-1] + digit for digit in "0123"),
            "imported-1",
            "imported-2",
            "early",
        )
    }
    assert (
        codes
        == {
            old: 200,
            old[:-1] + "0": 403,
            old[:-1] + "1": 403,
            old[:-1] + "2": 200,  # nobody's: the gateway was open
            old[:-1] + "3": 403,  # a gateway's form, and no gateway's answer
            "imported-1": 200,
            "imported-2": 403,
            "early": 200,  # feedback of a file may come before its interaction
        }
    )


def test_answers_given_while_the_gateway_was_open_are_anybodys_to_rate(gateway):
    answer = ask(gateway)["id"]
    assert rate(gateway, answer, put(gateway, "shop")).status_code == 200


def test_a_token_sets_only_the_user_of_its_answer(gateway):
    answer = ask(gateway)
    token = answer["ratchet"]["token"]
    put(gateway, "shop")
    assert rate(gateway, answer["id"], token=token, user_id="ben").status_code == 403
    assert rate(gateway, answer["id"], token=token, user_id="ana").status_code == 200
    gateway.settle()
    key = f"e-{answer['id']}"
    assert gateway.store.stored_feedback([key])[key].user_id == "ana"


def test_a_token_of_the_form_before_sets_only_the_user_of_its_answer_too(serve, mock, settings):
    folder = settings.home / "gateway"
    folder.mkdir(parents=True)
    (folder / "secret").write_bytes(b"x" * 32)
    gateway = serve(backend=mock.url)
    answer = ask(gateway)["id"]
    put(gateway, "shop")
    gateway.settle()
    token = unsigned_token(b"x" * 32, answer)
    assert rate(gateway, answer, token=token, user_id="ben").status_code == 403
    assert rate(gateway, answer, token=token, user_id="ana").status_code == 200


def test_a_key_ends_when_its_time_is_over(gateway):
    now = datetime.now(UTC)
    over = put(gateway, "shop", expires_at=now - timedelta(seconds=1))
    holds = put(gateway, "shop", expires_at=now + timedelta(hours=1))
    refused = gateway.post("/v1/chat/completions", ASK, headers=over)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "time was over" in refused.json()["error"]["message"]
    assert gateway.post("/v1/chat/completions", ASK, headers=holds).status_code == 200


@pytest.mark.parametrize(("scope", "asks", "rates"), [("ask", 200, 403), ("feedback", 403, 200)])
def test_a_scope_narrows_what_a_key_may_do(gateway, scope, asks, rates):
    answer = ask(gateway, put(gateway, "shop"))["id"]
    key = put(gateway, "shop", scope)
    assert gateway.post("/v1/chat/completions", ASK, headers=key).status_code == asks
    assert gateway.post("/v1/embeddings", ASK, headers=key).status_code in (asks, 400)
    assert rate(gateway, answer, key).status_code == rates


def test_a_batch_counts_its_events_and_not_its_request(serve, mock):
    gateway = serve(backend=mock.url, rate_per_second=50)
    key = put(gateway, "shop")

    def batch(number):
        events = [
            {"id": f"{number}-{n}", "interaction_id": "early", "kind": "thumbs", "value": "up"}
            for n in range(1_000)
        ]
        return gateway.post("/v1/feedback", {"events": events}, headers=key)

    assert batch(1).status_code == 200  # a full bucket holds two seconds' events
    limited = batch(2)
    assert limited.status_code == 429
    assert "50 events a second" in limited.json()["error"]["message"]
    assert 14 <= int(limited.headers["retry-after"]) <= 19  # 900 are owed, at 50 a second
    assert gateway.post("/v1/chat/completions", ASK, headers=key).status_code == 429


def test_a_batch_larger_than_the_bucket_leaves_a_debt():
    from ratchet.gateway.access import Caller

    clock = [0.0]
    limits = RateLimits(10.0, clock=lambda: clock[0])
    caller = Caller("key:a", "a", frozenset())
    limits.take(caller)
    limits.owe(caller, 999)  # 20 were there
    clock[0] = 97.0  # 980 are owed, of which 970 are paid
    with pytest.raises(ProblemError, match="10 events a second"):
        limits.take(caller)
    clock[0] = 98.2
    limits.take(caller)


def told(caplog):
    """Return what the gateway's access wrote, and not what another thread of the process did."""
    return [
        record.getMessage() for record in caplog.records
        if record.name == "ratchet.gateway.access"
    ]  # fmt: skip


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(gateway, caplog):
    right = put(gateway, "shop")
    wrong = {"authorization": right["authorization"][:-4] + "AAAA"}
    with caplog.at_level(logging.WARNING, logger="ratchet.gateway.access"):
        codes = [gateway.get("/v1/models", headers=wrong).status_code for _ in range(60)]
    assert codes[:20] == [401] * 20
    assert codes.count(429) >= 35
    assert gateway.get("/v1/models", headers=right).status_code == 200
    (line,) = told(caplog)  # one a minute and address
    known, secret = right["authorization"].removeprefix("Bearer ratchet_").split("_", 1)
    assert "127.0.0.1" in line
    assert known in line
    assert secret[:8] not in line


def test_a_log_of_wrong_keys_says_how_many_it_left_out(caplog):
    clock = [0.0]
    wrong = WrongKeys(clock=lambda: clock[0])
    with caplog.at_level(logging.WARNING, logger="ratchet.gateway.access"):
        for _ in range(5):
            wrong.count("1.2.3.4\n2026 INFO all is well", None)
        clock[0] = 61.0
        wrong.count("1.2.3.4\n2026 INFO all is well", None)
    first, second = told(caplog)
    assert "\n" not in first
    assert second.endswith("4 more since the last line")


def test_an_address_is_believed_from_a_named_proxy_alone(serve, mock):
    def codes(gateway):
        return [
            gateway.get("/v1/models", headers={"x-forwarded-for": f"9.9.9.{n}"}).status_code
            for n in range(12)
        ]

    assert 429 in codes(serve(backend=mock.url, rate_per_second=2))
    assert codes(serve(backend=mock.url, rate_per_second=2, proxies=("127.0.0.1",))) == [200] * 12
    far = serve(backend=mock.url, rate_per_second=2, proxies=("10.0.0.0/8",))
    assert 429 in codes(far)


def test_a_client_cannot_put_an_address_before_the_proxys(serve, mock):
    gateway = serve(backend=mock.url, rate_per_second=2, proxies=("127.0.0.1",))
    codes = [
        gateway.get("/v1/models", headers={"x-forwarded-for": f"9.9.9.{n}, 8.8.8.8"}).status_code
        for n in range(12)
    ]
    assert 429 in codes


def test_the_command_gives_keys_terms_and_lists_them(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    run = CliRunner().invoke
    made = run(command, ["keys", "create", "shop", "--scope", "feedback", "--days", "30"])
    assert made.exit_code == 0, made.output
    (shown,) = json.loads(run(command, ["keys", "list", "--json"]).output)
    assert shown["scopes"] == ["feedback"]
    left = datetime.fromisoformat(shown["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left < timedelta(days=30)
    assert "ingest (feedback)  until " in run(command, ["keys", "list"]).output
    for words in (["all"], ["x", "--scope", "king"], ["x", "--days", "0"], ["x", "--days", "nan"]):
        assert run(command, ["keys", "create", *words]).exit_code != 0
    assert "accepted until" in run(command, ["keys", "rotate-secret"]).output
    assert "are refused" in run(command, ["keys", "rotate-secret", "--accept-days", "0"]).output
