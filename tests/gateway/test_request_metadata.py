"""What clients say besides the conversation is kept with the interaction, and harms no request."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from ratchet.gateway.access import new_key
from ratchet.gateway.request_metadata import (
    LONGEST_VALUE,
    MOST_PAIRS,
    NOTE,
    RESERVED,
    read_remarks,
)
from ratchet.records import Interaction, Message
from ratchet.store.permissions import Permission
from tests.gateway.conftest import routing

openai = pytest.importorskip("openai")
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
SAID = [{"role": "user", "content": "where is my parcel"}]
# the example of the W3C recommendation, section 3.2
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def client(gateway, key="anything", **options):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, **options)


def remarks(metadata=None, headers=(), **body):
    raw = [(name.lower().encode(), value.encode()) for name, value in dict(headers).items()]
    return read_remarks({"metadata": metadata} | body, Headers(raw=raw), NOW)


# Through a gateway to the store ------------------------------------------------------------------


def test_what_the_official_client_sends_is_kept_with_the_interaction(gateway):
    client(gateway).chat.completions.create(
        model="m",
        messages=SAID,
        user="ana",
        metadata={
            "session_id": "s-1", "training_consent": "no", "segment": "de", "tags": "beta, mobile",
            "prompt_version": "support@14", "ticket": "A-17",
        },
    )  # fmt: skip
    (kept,) = gateway.interactions()
    assert (kept.user_id, kept.session_id, kept.segment) == ("ana", "s-1", "de")
    assert {
        name: kept.metadata.get(name)
        for name in ("training_consent", "tags", "prompt_version", "ticket", NOTE, "session_id")
    } == {
        "training_consent": "no", "tags": "beta,mobile", "prompt_version": "support@14",
        "ticket": "A-17", NOTE: None, "session_id": None,
    }  # fmt: skip


def test_a_stream_keeps_it_too_and_so_does_a_failed_attempt(serve, mock):
    gateway = serve(backend=mock.url)
    said = {"training_consent": "no", "retain_days": "30"}
    stream = client(gateway).chat.completions.create(
        model="m", messages=SAID, stream=True, metadata=said
    )
    assert len(list(stream)) > 1
    mock.behaviour = lambda body: 500
    with pytest.raises(openai.InternalServerError):
        client(gateway).chat.completions.create(model="m", messages=SAID, metadata=said)
    kept = gateway.interactions()
    assert [item.error is None for item in kept] == [True, False]
    for item in kept:
        assert item.metadata["training_consent"] == "no"
        until = datetime.fromisoformat(item.metadata["retain_until"])
        assert until == item.created_at + timedelta(days=30)


def test_headers_of_a_proxy_say_the_same_and_the_trace_goes_on_at_the_backend(gateway, mock):
    headers = {
        "x-ratchet-training-consent": "no", "x-ratchet-retain-days": "7",
        "x-ratchet-segment": "größe", "x-ratchet-tags": "a,b", "x-ratchet-prompt-version": "v2",
        "x-ratchet-user": "ben", "x-ratchet-session": "s-9", "x-request-id": "req-1",
        "traceparent": TRACEPARENT, "tracestate": "rojo=00f067aa0ba902b7",
    }  # fmt: skip
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    body = {"model": "m", "messages": SAID}
    assert gateway.post("/v1/chat/completions", body, headers=raw).status_code == 200
    gateway.post("/v1/completions", {"model": "m", "prompt": "x"}, headers=raw)
    (kept,) = gateway.interactions()
    assert (kept.user_id, kept.session_id, kept.segment) == ("ben", "s-9", "größe")
    names = ("training_consent", "tags", "prompt_version", "request_id", "trace_id", "span_id")
    assert [kept.metadata[name] for name in names] == ["no", "a,b", "v2", "req-1", TRACE, SPAN]
    for seen in mock.headers:
        assert (seen["traceparent"], seen["tracestate"]) == (TRACEPARENT, "rojo=00f067aa0ba902b7")
        assert not [name for name in seen if name.startswith("x-r")]
    assert mock.paths == ["/v1/chat/completions", "/v1/completions"]


def test_the_application_stays_known_beside_a_segment_of_the_clients_own(serve, mock):
    gateway = serve(backend=mock.url)
    record, key = new_key("shop", ["ingest"], now=datetime.now(UTC))
    gateway.store.append(record)
    gateway.app.state.gateway.router.refresh()
    ask = client(gateway, key).chat.completions.create
    ask(model="m", messages=SAID)
    ask(model="m", messages=SAID, metadata={"segment": "de"})
    found = {(item.segment, item.metadata["application"]) for item in gateway.interactions()}
    assert found == {("shop", "shop"), ("de", "shop")}


def test_a_client_cannot_write_what_the_gateway_found_itself(gateway):
    said = dict.fromkeys(sorted(RESERVED), "forged") | {"client.arm": "mine"}
    gateway.ask(metadata=said, temperature=0.5)
    (kept,) = gateway.interactions()
    assert kept.metadata["finish_reason"] == "stop"
    assert kept.metadata["temperature"] == "0.5"
    assert not [name for name in RESERVED if kept.metadata.get(name) == "forged"]
    assert {name: kept.metadata[f"client.{name}"] for name in said} == said


def test_every_name_that_the_gateway_writes_is_reserved(serve, mock):
    gateway = serve(backend=mock.url)
    record, key = new_key("shop", ["ingest"], now=datetime.now(UTC))
    gateway.store.append(record)
    gateway.store.append(routing(("m/2", 0.9), ("m/1", 0.1), previous="m/1"))
    gateway.app.state.gateway.router.refresh()
    mock.behaviour = lambda body: 500 if body["model"] == "m/2" else None
    turns = [
        {"role": "user", "content": "x\x00" + "y" * 100_001},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "done", "tool_call_id": "1"},
        {"role": "user", "content": "and"},
    ]
    options = {"max_completion_tokens": 9, "temperature": 0.1, "top_p": 0.5, "seed": 1}
    for stream in (False, True):
        body = {"model": "x", "messages": turns, "stream": stream} | options
        headers = {"authorization": f"Bearer {key}"}
        assert gateway.post("/v1/chat/completions", body, headers=headers).status_code == 200
    kept = gateway.interactions()
    written = {name for item in kept for name in item.metadata}
    assert len(written) > 14
    assert written <= RESERVED


def test_a_prompt_that_the_routing_chose_has_no_version_of_the_clients(gateway):
    from ratchet.records import Variant

    gateway.store.append(
        routing(("m/1", 1.0)).model_copy(
            update={"variants": (Variant(version="m/1", share=1.0, system_prompt="be brief"),)}
        )
    )
    gateway.app.state.gateway.router.refresh()
    gateway.ask(metadata={"prompt_version": "v3"})
    (kept,) = gateway.interactions()
    assert "prompt_version" not in kept.metadata
    assert kept.metadata["client.prompt_version"] == "v3"


def test_what_may_be_kept_for_a_time_only_is_set_aside_without_its_words(serve, mock):
    gateway = serve(backend=mock.url)
    mock.behaviour = lambda body: 422
    for days in (None, 5):
        metadata = {} if days is None else {"retain_days": days}
        body = {"model": "m", "messages": SAID, "metadata": metadata}
        assert gateway.post("/v1/chat/completions", body).status_code == 422
    gateway.settle()
    first, second = gateway.store.set_aside_rows(source="gateway")
    assert "parcel" in first.raw
    assert "parcel" not in second.raw


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
        | st.sampled_from(["training_consent", "retain_until", "retain-days", "tags", "segment",
                           "session_id", "user_id", "finish_reason", "client.x", "traceId"]),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(metadata=JSON, store=JSON)
def test_whatever_json_comes_as_metadata_is_an_interaction_that_can_be_stored(metadata, store):
    found = remarks(metadata, store=store)
    kept = Interaction(
        id="i", session_id="s", user_id="u", created_at=NOW, model_version="m", response="a",
        messages=(Message(role="user", content="q"),), metadata=dict(found.metadata),
        segment=found.segment or "all",
    )  # fmt: skip
    consent, until = kept.metadata.get("training_consent"), kept.metadata.get("retain_until")
    if store is False or (isinstance(metadata, dict) and metadata.get("training_consent") == "no"):
        assert Permission("i", consent, until).refuses(NOW, only_if_given=False)
    if until is not None:
        assert datetime.fromisoformat(until).utcoffset() == timedelta(0)
    assert not set(kept.metadata) & (RESERVED - {NOTE})


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(batch=st.lists(JSON, min_size=5, max_size=5))
def test_whatever_json_comes_as_metadata_the_request_is_answered_and_stored(gateway, batch):
    asked = []
    for metadata in batch:
        body = {"model": "m", "messages": SAID, "metadata": metadata}
        content = json.dumps(body).replace("Infinity", "1e999")
        reply = httpx.post(
            f"{gateway.url}/v1/chat/completions", content=content,
            headers={"content-type": "application/json"}, trust_env=False,
        )  # fmt: skip
        assert reply.status_code == 200, reply.text
        asked.append(reply.json()["id"])
    gateway.settle()
    assert set(gateway.store.stored_interactions(asked)) == set(asked)


# What a word means -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "header", "store", "kept"),
    [
        ("yes", None, True, "yes"),
        (True, None, True, "yes"),
        ("TRUE", None, True, "yes"),
        (False, None, True, "no"),
        ("perhaps", None, True, "no"),
        (1, None, True, "no"),
        ({"given": "yes"}, None, True, "no"),
        (None, None, True, None),
        (None, "no", True, "no"),
        ("yes", "no", True, "no"),
        ("no", "yes", True, "no"),
        ("yes", "yes", True, "yes"),
        (None, None, False, "no"),
        ("yes", None, False, "no"),
        (None, None, None, None),
    ],
)
def test_of_several_words_about_training_the_more_protective_one_wins(body, header, store, kept):
    headers = {} if header is None else {"x-ratchet-consent": header}
    found = remarks({"training_consent": body}, headers, store=store)
    assert found.metadata.get("training_consent") == kept


@pytest.mark.parametrize("name", ["training_consent", "training-consent", "trainingConsent"])
def test_a_refusal_is_understood_however_its_name_is_spelt(name):
    assert remarks({name: "no"}).metadata == {"training_consent": "no"}


@pytest.mark.parametrize(
    ("metadata", "headers", "until"),
    [
        ({"retain_until": "2027-01-01T00:00:00+02:00"}, {}, "2026-12-31T22:00:00+00:00"),
        ({"retain_until": "2027-01-01T00:00:00Z"}, {}, "2027-01-01T00:00:00+00:00"),
        ({"retain_days": 1}, {}, "2026-12-02T12:00:00+00:00"),
        ({"retain_days": "0.5"}, {}, "2026-12-02T00:00:00+00:00"),
        ({"retain_days": -3}, {}, "2026-12-01T12:00:00+00:00"),
        ({"retain_days": 7}, {"x-ratchet-retain-days": "2"}, "2026-12-03T12:00:00+00:00"),
        ({"retain_days": 2}, {"x-ratchet-retain-days": "7"}, "2026-12-03T12:00:00+00:00"),
        (
            {"retain_days": 2},
            {"x-ratchet-retain-until": "2026-12-02T00:00:00Z"},
            "2026-12-02T00:00:00+00:00",
        ),
    ],
)
def test_of_several_times_to_keep_the_earliest_counts(metadata, headers, until):
    found = remarks(metadata, headers).metadata
    assert found == {"retain_until": until}


@pytest.mark.parametrize(
    "said",
    [
        {"retain_until": "soon"}, {"retain_until": "2027-01-01"}, {"retain_days": "many"},
        {"retain_days": "nan"}, {"retain_until": ["2027-01-01T00:00:00Z"]},
        {"retain_until": "0001-01-01T00:00:00+14:00"}, {"retain_days": True},
    ],
)  # fmt: skip
def test_a_time_that_cannot_be_read_is_a_refusal_and_noted(said):
    found = remarks(said | {"training_consent": "yes"}).metadata
    assert found["training_consent"] == "no"
    assert "cannot be read: not trained on" in found[NOTE]
    assert "retain_until" not in found


@pytest.mark.parametrize("metadata", ["text", ["training_consent", "no"], 3, True])
def test_metadata_that_is_no_object_is_a_refusal_and_noted(metadata):
    assert remarks(metadata).metadata == {
        "training_consent": "no", NOTE: "metadata is no object, so it is not trained on"
    }  # fmt: skip


def test_numbers_and_booleans_become_text_as_json_writes_them():
    found = remarks({"a": 1, "b": 2.5, "c": True, "d": None, "e": "x\x00"}).metadata
    assert found == {"a": "1", "b": "2.5", "c": "true", "e": "x\ufffd"}


def test_what_is_nested_too_long_or_too_much_is_left_out_and_noted():
    many = {f"k{number}": "v" for number in range(MOST_PAIRS)}
    found = remarks({"deep": {"x": 1}, "long": "z" * 5_000} | many | {"training_consent": "no"})
    kept = dict(found.metadata)
    assert kept.pop(NOTE) == (
        "1 nested values left out (deep); 1 values cut at 2,000 characters; 1 pairs beyond 64 "
        "left out"
    )
    assert kept.pop("training_consent") == "no"  # whatever else is left out
    assert (len(kept), len(kept["long"])) == (MOST_PAIRS, LONGEST_VALUE)


def test_tags_are_a_list_or_a_text_and_add_up_with_those_of_the_header():
    found = remarks({"tags": ["a", " b", 3]}, {"x-ratchet-tags": "b, c"})
    assert found.metadata == {"tags": "a,b,3,c"}


def test_a_segment_of_the_body_stands_over_that_of_the_header():
    headers = {"x-ratchet-segment": "web"}
    assert remarks({"segment": "app"}, headers).segment == "app"
    assert remarks({"segment": ""}, headers).segment == "web"
    assert remarks({}, headers).segment == "web"
    assert remarks({"tag": "x"}).segment is None


@pytest.mark.parametrize(
    "parent",
    [
        "", "1", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-01-more", f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", TRACEPARENT.upper(),
    ],
)  # fmt: skip
def test_a_traceparent_that_breaks_the_rules_of_w3c_is_not_sent_on(parent):
    found = remarks(None, {"traceparent": parent, "tracestate": "a=b"})
    assert found.forwarded == {}
    assert "trace_id" not in found.metadata
    assert (NOTE in found.metadata) == bool(parent)


def test_a_later_version_of_traceparent_may_say_more():
    found = remarks(None, {"traceparent": f"01-{TRACE}-{SPAN}-01-what-comes"})
    assert found.metadata == {"trace_id": TRACE, "span_id": SPAN}


def test_a_trace_id_in_the_body_stays_beside_that_of_the_header():
    headers = {"traceparent": TRACEPARENT}
    found = remarks({"trace_id": "langfuse-1"}, headers).metadata
    assert found == {"trace_id": TRACE, "client.trace_id": "langfuse-1", "span_id": SPAN}
    assert remarks({"trace_id": "langfuse-1"}).metadata == {"trace_id": "langfuse-1"}


def test_a_header_of_ours_that_means_nothing_is_noted():
    found = remarks(None, {"x-ratchet-consnet": "no", "x-ratchet-user": "u"})
    assert found.metadata == {NOTE: "header x-ratchet-consnet means nothing here"}


def test_a_request_that_says_nothing_gets_nothing():
    headers = {"authorization": "x", "content-type": "application/json", "x-ratchet-user": "u"}
    assert remarks(None, headers).metadata == {}
    assert remarks({}, {}).metadata == {}
