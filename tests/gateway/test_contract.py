"""The gateway keeps its own OpenAPI description, and hostile strings come through unharmed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.browser.hostile import HOSTILE

NEEDS = "sends what Schemathesis makes of the description, and it is not installed"


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """The description that a running gateway serves."""
    schemathesis = pytest.importorskip("schemathesis", reason=NEEDS)
    from ratchet.gateway.options import GatewayOptions
    from ratchet.settings import load_settings
    from tests.gateway.conftest import running
    from tests.servers.mock_backend import MockBackend

    folder = tmp_path_factory.mktemp("contract")
    found = load_settings({"RATCHET_HOME": str(folder / "home")}, folder)
    with (
        MockBackend() as mock,
        running(GatewayOptions(settings=found, backend=mock.url, rate_per_second=0)) as gateway,
    ):
        yield schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")


def keep_to_the_description(schema, examples):
    """Send valid and invalid requests to every operation; a break of the contract raises."""
    from schemathesis import GenerationMode

    seen = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not len(operation.body):
                continue  # nothing of it can be invalid

            @settings(
                max_examples=examples,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case):
                case.call_and_validate()

            check()
            seen.add((operation.label, mode))
    assert len(seen) == 6


def test_every_answer_is_one_that_the_description_has(schema):
    keep_to_the_description(schema, 20)


@pytest.mark.slow
def test_every_answer_is_one_that_the_description_has_at_length(schema):
    keep_to_the_description(schema, 2_000)


def test_four_hundred_hostile_strings_come_through_api_and_store_unharmed(serve, mock):
    gateway = serve(backend=mock.url, rate_per_second=0)
    assert len(HOSTILE) == 400
    answers, events = [], []
    for number, text in enumerate(HOSTILE):
        done = gateway.ask(text, user=text[:100] if "\x00" not in text else "nul", stream=False)
        assert done["choices"][0]["message"]["content"] == text
        answers.append(done["id"])
        events.append({"id": f"f-{number}", "interaction_id": done["id"], "kind": "comment",
                       "value": text})  # fmt: skip
    receipt = gateway.post("/v1/feedback", {"events": events}).json()
    assert receipt == {"accepted": 400, "rejected": []}
    gateway.settle()
    kept = gateway.store.stored_interactions(answers)
    # one rule of the store: NUL becomes U+FFFD, and the record says so
    expected = [text.replace("\x00", "\ufffd") for text in HOSTILE]
    assert [kept[key].prompt for key in answers] == expected
    assert [kept[key].response for key in answers] == expected
    assert [("altered" in kept[key].metadata) for key in answers] == ["\x00" in t for t in HOSTILE]
    comments = gateway.store.stored_feedback([event["id"] for event in events])
    assert [comments[event["id"]].value for event in events] == expected


def test_hostile_strings_are_streamed_unharmed(gateway, mock):
    import openai

    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
    for text in HOSTILE[::20]:
        turns = [{"role": "user", "content": text}]
        stream = client.chat.completions.create(model="m", messages=turns, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text


def test_hostile_strings_in_every_other_place_are_no_server_error(serve, mock):
    gateway = serve(backend=mock.url, rate_per_second=0)
    for text in HOSTILE[::5]:
        ask = {
            "model": text, "user": text, "metadata": {"session_id": text, "x": text},
            "messages": [{"role": "user", "content": "x", "name": text}],
        }  # fmt: skip
        assert gateway.post("/v1/chat/completions", ask).status_code in (200, 400)
        event = {"id": text, "interaction_id": text, "kind": text, "value": text, "token": text}
        assert gateway.post("/v1/feedback", event).status_code in (400, 403)
        for headers in ({"authorization": f"Bearer {text}"}, {"x-ratchet-user": text}):
            try:
                reply = gateway.get("/v1/models", headers=headers)
            except Exception:
                continue  # the client itself refuses to send such a header
            assert reply.status_code < 500
