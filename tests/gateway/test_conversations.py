"""Tools, forms, pictures and refusals through the gateway with the official client."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from datetime import UTC, datetime

import pytest

from ratchet.records import Blob, Message
from ratchet.records.asking import Usage, asked_with
from ratchet.store.forget import forget
from ratchet.store.vectors import text_key
from tests.servers.mock_backend import Raw

openai = pytest.importorskip("openai")

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["town"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
ASKED = [{"role": "user", "content": "weather in Köln and Ulm?"}]
CALLS = [
    {"id": "call_1", "type": "function",
     "function": {"name": "weather", "arguments": '{"town": "Köln"}'}},
    {"id": "call_2", "type": "function",
     "function": {"name": "weather", "arguments": '{"town": "Ulm", "days": 2}'}},
]  # fmt: skip
USAGE = {
    "prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42, "cost": 0.00042,
    "prompt_tokens_details": {"cached_tokens": 16},
    "completion_tokens_details": {"reasoning_tokens": 5},
}  # fmt: skip


def client(gateway):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="anything", max_retries=0)


def whole(message, reason="stop", **fields):
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": reason}
    found = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    body = json.dumps(found | {"choices": [choice], "usage": USAGE} | fields)
    return Raw(body.encode(), headers={"Content-Type": "application/json"})


def streamed(*deltas, reason="stop", usage=None):
    events = [({"role": "assistant"}, None), *((delta, None) for delta in deltas), ({}, reason)]
    chunks = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
         "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in events
    ]  # fmt: skip
    chunks += [chunks[0] | {"choices": [], "usage": usage}] if usage else []
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return Raw("".join([*lines, "data: [DONE]\n\n"]).encode())


def in_fragments(calls, size=4):
    """Yield parallel calls as servers stream them: begun one after the other, then in pieces."""
    for index, call in enumerate(calls):
        head = call["function"] | {"arguments": ""}
        yield {"tool_calls": [call | {"index": index, "function": head}]}
        text = call["function"]["arguments"]
        for start in range(0, len(text), size):
            piece = {"arguments": text[start : start + size]}
            yield {"tool_calls": [{"index": index, "function": piece}]}


def test_parallel_calls_in_a_stream_come_out_of_the_store_as_the_clients_helper_has_them(
    gateway, mock
):
    mock.behaviour = lambda body: streamed(*in_fragments(CALLS), reason="tool_calls", usage=USAGE)
    with client(gateway).chat.completions.stream(
        model="m", messages=ASKED, tools=[WEATHER], user="ana", parallel_tool_calls=True
    ) as stream:
        names = [e.name for e in stream if e.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert names == ["weather", "weather"]
    (kept,) = gateway.interactions()
    assert [call.canonical() for call in kept.tool_calls] == CALLS
    assert [call.name for call in kept.tool_calls] == names
    assert (kept.id, kept.response, kept.error) == (final.id, "", None)
    assert kept.metadata["finish_reason"] == "tool_calls"
    assert kept.metadata["parallel_tool_calls"] == "true"
    assert 0 < float(kept.metadata["first_token_seconds"]) <= kept.latency_seconds
    assert gateway.store.definitions([kept.tools])[kept.tools].body == [WEATHER]


def test_an_agents_turns_come_out_of_the_store_as_they_were_sent_and_are_one_conversation(
    gateway, mock
):
    asked = [{"role": "developer", "content": "be brief"}, *ASKED]
    api = client(gateway).chat.completions
    mock.behaviour = lambda body: whole({"content": None, "tool_calls": CALLS}, "tool_calls")
    first = api.create(model="m", messages=asked, tools=[WEATHER], user="ana")
    said = first.choices[0].message.model_dump(exclude_none=True, exclude={"ratchet"})
    results = [
        {"role": "tool", "tool_call_id": "call_1", "content": "12C"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "9C"}]},
    ]
    mock.behaviour = lambda body: whole({"content": "12 and 9 degrees"})
    api.create(model="m", messages=[*asked, said, *results], tools=[WEATHER], user="ana")
    one, two = gateway.interactions()
    assert [m.canonical() for m in one.messages] == asked
    calling = {"role": "assistant", "content": None, "tool_calls": CALLS}
    assert [m.canonical() for m in two.messages] == [*asked, calling, *results]
    assert two.messages[2] == one.answer
    assert (one.continues, two.continues) == (None, one.id)
    assert (one.session_id, one.tools) == (two.session_id, two.tools)
    assert two.response == "12 and 9 degrees"


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_no_answer_in_words(gateway, mock, stream):
    deltas = [{"refusal": "I can"}, {"refusal": "not."}]
    mock.behaviour = lambda body: (
        streamed(*deltas) if stream else whole({"content": None, "refusal": "I cannot."})
    )
    reply = client(gateway).chat.completions.create(model="m", messages=ASKED, stream=stream)
    list(reply)
    (kept,) = gateway.interactions()
    assert (kept.response, kept.refusal) == ("", "I cannot.")
    assert kept.answer == Message(role="assistant", refusal="I cannot.")


def test_the_form_of_an_answer_is_kept_once_and_what_it_took_with_it(gateway, mock):
    form = {
        "type": "json_schema",
        "json_schema": {"name": "town", "schema": WEATHER["function"]["parameters"]},
    }
    mock.behaviour = lambda body: whole({"content": '{"town": "Ulm"}'})
    for _ in range(3):
        client(gateway).chat.completions.create(
            model="m", messages=ASKED, response_format=form, temperature=0.5, stop=["\n"],
            tool_choice="none", tools=[WEATHER], max_tokens=9,
        )  # fmt: skip
    kept = gateway.interactions()
    assert len({(one.response_format, one.tools) for one in kept}) == 1
    found = gateway.store.definitions([kept[0].response_format, kept[0].tools])
    assert [found[kept[0].response_format].kind, found[kept[0].tools].kind] == [
        "response_format", "tools",
    ]  # fmt: skip
    assert found[kept[0].response_format].body == form
    assert Usage.of(kept[0].metadata) == Usage(
        prompt_tokens=30, completion_tokens=12, cached_tokens=16, reasoning_tokens=5, cost=0.00042
    )
    assert asked_with(kept[0].metadata) == {
        "temperature": 0.5, "stop": ["\n"], "tool_choice": "none", "max_tokens": 9,
    }  # fmt: skip


def picture(content=PIXEL):
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def test_a_picture_is_kept_by_its_digest_and_its_bytes_where_asked_for(serve, mock, tmp_path):
    gateway = serve(backend=mock.url, blobs=tmp_path / "blobs")
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    content = [{"type": "text", "text": "what is it?"}, picture(), sound]
    client(gateway).chat.completions.create(
        model="m", messages=[{"role": "user", "content": content}]
    )
    assert mock.seen[-1]["messages"][0]["content"] == content
    (kept,) = gateway.interactions()
    text, image, audio = kept.messages[0].content
    key = hashlib.sha256(PIXEL).hexdigest()
    assert (text.text, image.blob) == ("what is it?", Blob(key, "image/png", len(PIXEL)))
    assert image.canonical()["image_url"]["detail"] == "low"
    assert audio.blob == Blob(hashlib.sha256(bytes(3)).hexdigest(), "audio/wav", 3)
    (there,) = (tmp_path / "blobs").rglob(key)
    assert there.read_bytes() == PIXEL
    assert stat.S_IMODE(there.stat().st_mode) == 0o600


def test_bytes_of_what_may_be_kept_for_a_time_only_are_not_kept(serve, mock, tmp_path):
    gateway = serve(backend=mock.url, blobs=tmp_path / "blobs")
    said = [{"role": "user", "content": [picture()]}]
    gateway.ask(messages=said, metadata={"retain_days": "1"})
    assert gateway.interactions()[0].messages[0].content[0].blob is not None
    assert not (tmp_path / "blobs").exists()


def test_bytes_are_not_kept_unless_asked_for(gateway, settings):
    gateway.ask(messages=[{"role": "user", "content": [picture()]}])
    assert gateway.interactions()[0].messages[0].content[0].blob is not None
    encoded = base64.b64encode(PIXEL)
    files = [path for path in settings.home.rglob("*") if path.is_file()]
    assert files
    assert not any(encoded in path.read_bytes() or PIXEL in path.read_bytes() for path in files)


def test_documents_are_kept_with_the_answer_and_metadata_go_no_further(gateway, mock):
    found = [{"title": "Opening hours", "text": "9 to 5"}]
    gateway.ask(metadata={"documents": found, "team": "a"}, user="ana")
    assert mock.seen[-1]["metadata"] == {"team": "a"}
    gateway.ask(documents=found, user="ben")
    assert mock.seen[-1]["documents"] == found  # the backend's own field
    one, two = gateway.interactions()
    assert one.documents == two.documents
    assert gateway.store.definitions([one.documents])[one.documents].body == found


def test_documents_go_with_the_last_user_who_was_answered_with_them(gateway, settings):
    shared, own = [{"text": "shared"}], [{"text": "about ana"}]
    gateway.ask(metadata={"documents": shared}, user="ana")
    gateway.ask(metadata={"documents": own}, user="ana", tools=[WEATHER])
    gateway.ask(metadata={"documents": shared}, user="ben")
    _, second, third = gateway.interactions()
    forget(gateway.store, settings.home, "ana", now=datetime.now(UTC), text_key=text_key)
    left = gateway.store.definitions([second.documents, third.documents, second.tools])
    assert set(left) == {third.documents, second.tools}
    assert gateway.store.stored_interactions([second.id])[second.id].tools is None


def test_definitions_are_written_once_a_segment_and_before_what_refers_to_them(gateway, settings):
    for _ in range(3):
        gateway.ask(tools=[WEATHER])
    log = gateway.app.state.gateway.records.log
    log._begin(lambda _: b"")  # a new segment, as when the old one is full
    gateway.ask(tools=[WEATHER])
    segments = sorted((settings.home / "gateway" / "wal").glob("*.wal2"))
    kinds = [[line.split(b" ")[3] for line in s.read_bytes().splitlines()] for s in segments]
    assert kinds == [[b"h", b"d", b"i", b"i", b"i"], [b"h", b"d", b"i"]]
    assert len({one.tools for one in gateway.interactions()}) == 1


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_is_kept_with_the_answer_and_is_no_part_of_its_turn(gateway, mock, name, stream):
    deltas = [{name: "They ask "}, {name: "for the time."}, {"content": "Noon."}]
    mock.behaviour = lambda body: (
        streamed(*deltas) if stream else whole({"content": "Noon.", name: "They ask for the time."})
    )
    reply = client(gateway).chat.completions.create(model="m", messages=ASKED, stream=stream)
    list(reply)
    (kept,) = gateway.interactions()
    assert kept.metadata["answer_reasoning"] == "They ask for the time."
    assert kept.answer == Message(role="assistant", content="Noon.")
    assert "for the time" not in json.dumps([kept.answer.canonical(), kept.response])


@pytest.mark.parametrize("stream", [False, True])
def test_the_sound_of_an_answer_is_kept_by_reference_with_what_it_says(
    serve, mock, tmp_path, stream
):
    sound = [b"one ", b"two"]
    pieces = [{"data": base64.b64encode(part).decode()} for part in sound]
    said = {"id": "audio_1", "transcript": "Noon."}
    mock.behaviour = lambda body: (
        streamed({"audio": said}, *({"audio": piece} for piece in pieces))
        if stream
        else whole(
            {"content": None, "audio": said | {"data": base64.b64encode(b"".join(sound)).decode()}}
        )
    )
    gateway = serve(backend=mock.url, blobs=tmp_path / "bytes")
    reply = client(gateway).chat.completions.create(model="m", messages=ASKED, stream=stream)
    list(reply)
    (kept,) = gateway.interactions()
    digest = hashlib.sha256(b"one two").hexdigest()
    assert Blob.read(kept.metadata["answer_audio"]).digest == digest
    assert (kept.metadata["answer_audio_id"], kept.response) == ("audio_1", "Noon.")
    assert (tmp_path / "bytes" / digest[:2] / digest).read_bytes() == b"one two"


def test_a_picture_and_a_parsed_form_come_out_of_the_store_as_the_client_sent_and_got_them(
    gateway, mock
):
    pydantic = pytest.importorskip("pydantic")

    class Seen(pydantic.BaseModel):
        animal: str
        legs: int

    url = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    content = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]
    mock.behaviour = lambda body: whole({"content": '{"animal": "cat", "legs": 4}'})
    reply = client(gateway).chat.completions.parse(
        model="m", messages=[{"role": "user", "content": content}], response_format=Seen
    )
    assert reply.choices[0].message.parsed == Seen(animal="cat", legs=4)
    (kept,) = gateway.interactions()
    assert json.loads(kept.response) == {"animal": "cat", "legs": 4}
    form = gateway.store.definitions([kept.response_format])[kept.response_format].body
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"]["required"] == ["animal", "legs"]
    words, picture = kept.messages[0].content
    assert words.text == "what is it?"
    assert picture.blob == Blob(hashlib.sha256(PIXEL).hexdigest(), "image/png", len(PIXEL))
    assert picture.canonical()["image_url"]["detail"] == "low"
    assert mock.seen[-1]["messages"][0]["content"] == content  # the backend got the bytes


def test_the_streamed_helper_parses_arguments_and_a_form_as_they_are_stored(gateway, mock):
    parsed = []
    mock.behaviour = lambda body: streamed(*in_fragments(CALLS), reason="tool_calls")
    with client(gateway).chat.completions.stream(
        model="m", messages=ASKED, tools=[WEATHER], user="ana"
    ) as stream:
        for event in stream:
            if event.type == "tool_calls.function.arguments.done":
                parsed.append(event.parsed_arguments)
        message = stream.get_final_completion().choices[0].message
    (kept,) = gateway.interactions()
    assert parsed == [call.arguments for call in kept.tool_calls]
    assert [call.id for call in kept.tool_calls] == [call.id for call in message.tool_calls]
