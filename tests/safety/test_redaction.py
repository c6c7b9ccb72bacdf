import csv
import json
import socket
import string
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import ModelError
from ratchet.gateway.access import new_key
from ratchet.safety.redaction import KINDS, RedactionConfig, Redactor, _suspects, redactor
from tests.parameters import examples

FOUND = [
    ("CREDIT_CARD", "my card 4095-2609-9393-4932 was charged", "4095-2609-9393-4932"),
    ("EMAIL_ADDRESS", "write to john.doe@gmail.com, please", "john.doe@gmail.com"),
    ("IBAN_CODE", "send it to GB82 WEST 1234 5698 7654 32 today", "GB82 WEST 1234 5698 7654 32"),
    ("IP_ADDRESS", "it came from 192.168.0.17 last night", "192.168.0.17"),
    ("MAC_ADDRESS", "device 00:1B:44:11:3A:B7 is mine", "00:1B:44:11:3A:B7"),
    ("PHONE_NUMBER", "call me on +44 7911 123456 tonight", "+44 7911 123456"),
    ("PHONE_NUMBER", "call (415) 555-2671 tonight", "(415) 555-2671"),
    ("US_SSN", "my number is 219-09-9999 and", "219-09-9999"),
    ("CRYPTO", "pay 1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2 now", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"),
    (
        "SECRET",
        "token ghp_8dJ2kLmN0pQrStUvWxYz1a2b3c4d5e6f7g8h here",
        "ghp_8dJ2kLmN0pQrStUvWxYz1a2b3c4d5e6f7g8h",
    ),
    (
        "SECRET",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY----- is it",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
    ),
]  # fmt: skip


WIDE = "４１１１１１１１１１１１１１１１"
MORE = [
    ("EMAIL_ADDRESS", "write to jane at example dot com please", "jane at example dot com"),
    ("EMAIL_ADDRESS", "jane[at]example.com it is", "jane[at]example.com"),
    (
        "EMAIL_ADDRESS",
        "it is jane (at) example (dot) co (dot) uk",
        "jane (at) example (dot) co (dot) uk",
    ),
    ("IBAN_CODE", "send it to gb82 west 1234 5698 7654 32 today", "gb82 west 1234 5698 7654 32"),
    # test numbers that the networks publish
    ("CREDIT_CARD", "mastercard 2223 0031 2200 3222 was", "2223 0031 2200 3222"),
    ("CREDIT_CARD", "unionpay 6200000000000005 was", "6200000000000005"),
    ("CREDIT_CARD", "maestro 6759649826438453 was", "6759649826438453"),
    ("PHONE_NUMBER", "ruf 030 12345678 an", "030 12345678"),
    ("PHONE_NUMBER", "au 06 12 34 56 78 merci", "06 12 34 56 78"),
    (
        "SECRET",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
    (
        "SECRET",
        "see postgresql://bob:hunter@db.example.com/x now",
        "postgresql://bob:hunter@db.example.com/x",
    ),
    ("SECRET", "Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("SECRET", "npm_" + "aB" * 18 + " it is", "npm_" + "aB" * 18),
    ("CREDIT_CARD", "full " + WIDE + " width", WIDE),
    ("CREDIT_CARD", "4111\u200b1111\u200b11111111 zero width", "4111\u200b1111\u200b11111111"),
    ("EMAIL_ADDRESS", "see john%40example.com", "john%40example.com"),
]  # fmt: skip


@pytest.fixture(scope="module")
def default():
    return redactor(RedactionConfig())


@pytest.mark.parametrize(("kind", "text", "passage"), FOUND)
def test_a_passage_is_replaced_by_its_kind(default, kind, text, passage):
    redacted = default.redact([text])
    assert redacted.texts == (text.replace(passage, f"<{kind}>"),)
    assert redacted.counts == {kind: 1}
    assert redacted.changed == 1
    assert passage not in redacted.sample[0]


@pytest.mark.parametrize(("kind", "text", "passage"), MORE)
def test_disguised_and_foreign_forms_are_found_as_well(default, kind, text, passage):
    redacted = default.redact([text])
    assert redacted.counts == {kind: 1}
    assert redacted.texts[0].replace(f"<{kind}>", "") == text.replace(passage, "")


def test_a_key_of_ratchets_own_is_a_secret(default):
    _, key = new_key("app", ["ingest"], now=datetime(2026, 1, 1, tzinfo=UTC))
    assert default.redact([f"my key is {key}"]).texts == ("my key is <SECRET>",)


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        "I bought it at amazon.com",
        "look at the dot on the map",
        "basic training is at noon, bearer of bad news",
        "INV-2024-004711 was wrong",
        "see https://example.org/a/b?c=1 and sk-learn-like-names-in-words",
        "naïve café № 5 costs 20 %, 100%20 is a number",
        "at 12:30 on 2026-11-24, order 12345, 3.5 %",
        "card 4095-2609-9393-4931 has a wrong check digit",
        "",
        "{\"intent\": \"AddToPlaylist\", \"slots\": {\"year\": \"1998\"}}",
    ],
)  # fmt: skip
def test_what_holds_no_personal_data_stays(default, text):
    redacted = default.redact([text])
    assert (redacted.texts, redacted.counts, redacted.changed) == ((text,), {}, 0)


def test_redacting_twice_changes_nothing_more(default):
    once = default.redact([text for _, text, _ in FOUND])
    assert sum(once.counts.values()) == len(FOUND)
    assert default.redact(once.texts).texts == once.texts
    assert default.redact(once.texts).counts == {}


def test_names_are_not_found_without_a_model(default):
    # stated in the module's text: names have no form
    assert default.redact(["I am Maria Schneider"]).texts == ("I am Maria Schneider",)


def test_only_the_kinds_that_are_asked_for_go():
    text = "john.doe@gmail.com or +44 7911 123456"
    config = RedactionConfig(kinds=("PHONE_NUMBER",))
    assert Redactor(config).redact([text]).texts == ("john.doe@gmail.com or <PHONE_NUMBER>",)
    assert Redactor(RedactionConfig(enabled=False)).redact([text]).texts == (text,)


def test_nothing_is_fetched(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    fresh = Redactor(RedactionConfig(kinds=("EMAIL_ADDRESS",)))
    assert fresh.redact(["a.b@firma.co.uk"]).texts == ("<EMAIL_ADDRESS>",)


PIECES = [passage for _, _, passage in FOUND + MORE] + [
    "card",
    "the 3rd",
    ":",
    "a@b",
    "2026",
    "::",
    "at",
    "dot com",
    "%",
]


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(string.printable, max_size=12))))
def test_a_text_that_is_not_looked_at_holds_nothing(default, pieces):
    text = " ".join(pieces)
    for kind in KINDS:
        if not list(_suspects(pa.array([text], pa.large_string()), kind)):
            assert not default._recognisers[kind].analyze(text, [kind], None)


def test_customer_messages_hold_hardly_any(default, shared_data):
    with (shared_data / "banking77" / "train.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    # the publishers took personal data out; what is found now would be a false alarm
    assert default.redact(texts).changed <= 10


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"without a config\.json"):
        Redactor(RedactionConfig(ner_model=tmp_path))


def test_a_model_of_the_users_own_finds_names(tmp_path):
    folder = tiny_ner(tmp_path)
    redacted = Redactor(RedactionConfig(kinds=(), ner_model=folder)).redact(["hello maria today"])
    assert redacted.texts == ("hello <PERSON> today",)
    assert redacted.counts == {"PERSON": 1}


def tiny_ner(folder):
    """A model made by hand that calls the one token `maria` a person."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    words = {"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "maria": 5}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    names |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, max_position_embeddings=64,
        id2label={0: "O", 1: "B-PER"}, label2id={"O": 0, "B-PER": 1},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" not in name:
                parameter.zero_()
        # the word alone decides: its embedding is one direction, all others another
        model.bert.embeddings.word_embeddings.weight[:, 0] = 1.0
        model.bert.embeddings.word_embeddings.weight[5] = torch.eye(8)[1]
        model.classifier.weight[0] = 5.0 * torch.eye(8)[0]
        model.classifier.weight[1] = 5.0 * torch.eye(8)[1]
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["id2label"]["1"] == "B-PER"
    return folder
