"""Rules that every stored record keeps."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.records import (
    ASSESSED_KINDS,
    EXPLICIT_KINDS,
    FEEDBACK,
    FEEDBACK_KINDS,
    IMPLICIT_KINDS,
    TRAFFIC_KINDS,
    Comment,
    Copy,
    Correction,
    Dimension,
    Example,
    ExampleSet,
    Feedback,
    Interaction,
    JudgeScore,
    LabelledMessage,
    Message,
    Regenerate,
    SafetyViolation,
    SessionEnd,
    SessionScore,
    Stars,
    TaskCompleted,
    Thumbs,
    derive_id,
    digest,
)
from ratchet.records.events import (
    AskedAgain,
    Continued,
    Edited,
    Left,
    NextTurn,
    VisitSeconds,
)

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


def interaction(**changes: Any) -> Interaction:
    row = {
        "id": "i-1",
        "session_id": "s",
        "user_id": "u",
        "created_at": NOW,
        "model_version": "router/1",
        "messages": [{"role": "user", "content": "Where is my card?"}],
        "response": "card delivery",
    }
    return Interaction.model_validate(row | changes)


def feedback(kind: str, value: object) -> Feedback:
    row = {"id": "f-1", "interaction_id": "i-1", "created_at": NOW, "kind": kind, "value": value}
    return FEEDBACK.validate_python(row)


# Times ------------------------------------------------------------------------------------------


def test_a_time_without_a_zone_is_refused_and_the_way_out_is_named() -> None:
    with pytest.raises(ValidationError, match=r"got 2026-01-05T08:00:00; add 'Z' for UTC"):
        interaction(created_at=datetime(2026, 1, 5, 8))  # noqa: DTZ001
    with pytest.raises(ValidationError, match="time must carry a time zone"):
        interaction(created_at="2026-01-05T08:00:00")


@pytest.mark.parametrize(
    "moment",
    [
        "2026-01-05T08:00:00Z",
        "2026-01-05T09:00:00+01:00",
        datetime(2026, 1, 5, 3, tzinfo=timezone(timedelta(hours=-5))),
        datetime(2026, 1, 5, 13, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
def test_a_time_in_another_zone_is_the_same_moment_in_utc(moment: object) -> None:
    stored = interaction(created_at=moment)
    assert stored.created_at == NOW
    assert stored.created_at.tzinfo is UTC
    assert stored == interaction()
    assert stored.canonical()["created_at"] == "2026-01-05T08:00:00Z"


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
    ],
)
def test_a_time_that_utc_cannot_hold_is_refused(moment: datetime) -> None:
    with pytest.raises(ValidationError, match="time must lie in the years 1 to 9999 in UTC"):
        interaction(created_at=moment)


# Fields -----------------------------------------------------------------------------------------


def test_a_record_refuses_fields_that_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        interaction(colour="blue")


def test_a_turn_keeps_fields_that_it_does_not_know() -> None:
    turn = {"role": "user", "content": "Hi", "colour": "blue"}
    assert interaction(messages=[turn]).canonical()["messages"] == [turn]


def test_a_record_cannot_be_changed() -> None:
    record = interaction()
    with pytest.raises(ValidationError, match="frozen"):
        record.response = "another"  # type: ignore[misc]
    assert record.response == "card delivery"


@pytest.mark.parametrize("name", ["id", "session_id", "user_id", "model_version", "segment"])
def test_an_identifier_has_one_to_two_hundred_characters(name: str) -> None:
    assert getattr(interaction(**{name: "é" * 200}), name) == "é" * 200
    for wrong in ("", "x" * 201):
        with pytest.raises(ValidationError, match=name):
            interaction(**{name: wrong})


def test_a_text_has_at_most_a_hundred_thousand_characters() -> None:
    assert len(interaction(response="x" * 100_000).response) == 100_000
    with pytest.raises(ValidationError, match="at most 100000 characters"):
        interaction(response="x" * 100_001)


@pytest.mark.parametrize("latency", [float("nan"), float("inf"), -0.001])
def test_a_latency_is_finite_and_not_negative(latency: float) -> None:
    with pytest.raises(ValidationError, match="latency_seconds"):
        interaction(latency_seconds=latency)


@pytest.mark.parametrize("text", ["a\ud800b", "a\x00b"])
@pytest.mark.parametrize("name", ["id", "user_id", "response", "error", "segment"])
def test_surrogates_and_nul_are_refused_in_every_text(name: str, text: str) -> None:
    with pytest.raises(ValidationError, match=name):
        interaction(**{name: text})


@pytest.mark.parametrize("text", ["a\ud800b", "a\x00b"])
def test_surrogates_and_nul_are_refused_inside_other_records(text: str) -> None:
    for changes in ({"metadata": {"a": text}}, {"metadata": {text: "a"}}):
        with pytest.raises(ValidationError, match="metadata"):
            interaction(**changes)
    with pytest.raises(ValidationError, match="content"):
        Message(role="user", content=text)
    for kind in ("comment", "correction"):
        with pytest.raises(ValidationError, match=kind):
            feedback(kind, text)
    with pytest.raises(ValidationError, match="text"):
        LabelledMessage(text=text, label="card")


def test_text_beyond_the_basic_plane_is_kept() -> None:
    assert interaction(response="𝒳 🏦 e\u0301").response == "𝒳 🏦 e\u0301"


# Prompt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("user", "first"), ("assistant", "reply"), ("user", "second")], "second"),
        ([("system", "rules"), ("user", "only")], "only"),
        ([("user", "asked"), ("assistant", "thinking")], "asked"),
        ([("system", "rules")], ""),
    ],
)
def test_the_prompt_is_the_last_thing_the_user_said(
    turns: list[tuple[str, str]], expected: str
) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    assert interaction(messages=messages).prompt == expected
    example = Example.model_validate({"id": "e", "messages": messages, "target": "t"})
    assert example.prompt == expected


# Ids and digests --------------------------------------------------------------------------------


def test_a_derived_id_is_the_version_five_uuid_of_the_parts() -> None:
    # RFC 9562, 5.5: SHA-1 over the name space and the name, with version and variant set.
    hashed = bytearray(hashlib.sha1(NAMESPACE_URL.bytes + b"cycle\x1f7").digest()[:16])
    hashed[6] = hashed[6] & 0x0F | 0x50
    hashed[8] = hashed[8] & 0x3F | 0x80
    assert derive_id("cycle", 7) == str(UUID(bytes=bytes(hashed)))
    assert derive_id("cycle", 7) == str(uuid5(NAMESPACE_URL, "cycle\x1f7"))


def test_a_derived_id_depends_on_every_part_its_order_and_its_limits() -> None:
    parts = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("", "a", "b"), ("a", "B"), ()]
    assert len({derive_id(*each) for each in parts}) == len(parts)


def test_a_digest_is_the_sha_256_of_sorted_json_without_spaces() -> None:
    expected = hashlib.sha256('{"a":[1,null],"ü":"é"}'.encode()).hexdigest()
    assert digest({"ü": "é", "a": [1, None]}) == expected
    assert len(expected) == 64


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(), max_size=6))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_a_digest_depends_on_the_order_of_a_list_and_on_types() -> None:
    values: list[object] = [[1, 2], [2, 1], [1, 2.5], ["1", "2"], {"1": 2}, None]
    assert len({digest(value) for value in values}) == len(values)


# Feedback ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("thumbs", "down", Thumbs),
        ("stars", 5, Stars),
        ("comment", "no", Comment),
        ("correction", "card arrival", Correction),
        ("copy", False, Copy),
        ("regenerate", True, Regenerate),
        ("task_completed", False, TaskCompleted),
        ("session_end", 12.5, SessionEnd),
    ],
)
def test_the_kind_chooses_the_record_and_json_gives_it_back(
    kind: str, value: object, expected: type
) -> None:
    record = feedback(kind, value)
    assert type(record) is expected
    assert record.value == value
    assert FEEDBACK.validate_json(record.model_dump_json()) == record


def test_every_kind_of_feedback_is_explicit_implicit_assessed_or_seen_in_traffic() -> None:
    given = (Thumbs, Stars, Dimension, Comment, Correction, Copy, Regenerate, TaskCompleted)
    seen = (AskedAgain, Edited, Continued, Left, VisitSeconds, NextTurn)
    classes = (*given, SessionEnd, SafetyViolation, JudgeScore, SessionScore, *seen)
    assert tuple(each.model_fields["kind"].default for each in classes) == FEEDBACK_KINDS
    assert (*EXPLICIT_KINDS, *IMPLICIT_KINDS, *ASSESSED_KINDS, *TRAFFIC_KINDS) == FEEDBACK_KINDS
    assert len(set(FEEDBACK_KINDS)) == len(FEEDBACK_KINDS)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("applause", True),
        ("thumbs", "UP"),
        ("thumbs", True),
        ("stars", 0),
        ("stars", 6),
        ("stars", "5"),
        ("stars", 4.0),
        ("stars", True),
        ("comment", ""),
        ("comment", "x" * 10_001),
        ("comment", 5),
        ("correction", ""),
        ("correction", None),
        ("copy", 1),
        ("copy", "true"),
        ("regenerate", "yes"),
        ("task_completed", 0),
        ("task_completed", None),
        ("session_end", -1.0),
        ("session_end", float("inf")),
        ("session_end", float("nan")),
        ("safety_violation", 1),
        ("judge_score", 1.01),
        ("judge_score", float("nan")),
    ],
)
def test_a_value_of_another_kind_is_refused_and_never_converted(kind: str, value: object) -> None:
    with pytest.raises(ValidationError):
        feedback(kind, value)


# Evaluation sets --------------------------------------------------------------------------------


def example(key: str, target: str = "card arrival") -> Example:
    message = Message(role="user", content=f"question {key}")
    return Example(id=key, messages=(message,), target=target)


def test_the_id_of_a_frozen_set_depends_on_its_content_only() -> None:
    examples = (example("a"), example("b"))
    first = ExampleSet.freeze("heldout", examples, NOW)
    later = ExampleSet.freeze("heldout", (example("a"), example("b")), NOW + timedelta(days=9))
    assert first.id == later.id
    assert first.id == "heldout-" + digest([each.canonical() for each in examples])[:12]
    assert first.examples == examples


@pytest.mark.parametrize(
    "examples",
    [
        (example("a"),),
        (example("b"), example("a")),
        (example("a"), example("b", "lost card")),
        (example("a"), example("c")),
    ],
)
def test_any_other_content_is_another_set(examples: tuple[Example, ...]) -> None:
    first = ExampleSet.freeze("heldout", (example("a"), example("b")), NOW)
    assert ExampleSet.freeze("heldout", examples, NOW).id != first.id


def test_an_evaluation_set_without_examples_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        ExampleSet.freeze("heldout", (), NOW)


def test_a_longer_answer_makes_another_evaluation_set():
    first = ExampleSet.freeze("heldout", (example("a"),), NOW)
    longer = ExampleSet.freeze("heldout", (example("a"),), NOW, 64)
    assert (first.max_new_tokens, longer.max_new_tokens) == (12, 64)
    assert first.id != longer.id


def test_examples_without_tests_are_frozen_under_the_ids_of_before_there_were_any():
    first = ExampleSet.freeze("heldout", (example("a"), example("b")), NOW)
    # the content that the id is the digest of, as it was
    content = [
        {"id": one.id, "messages": [m.canonical() for m in one.messages], "target": one.target}
        for one in first.examples
    ]
    assert first.id == f"heldout-{digest(content)[:12]}"
    code = first.examples[0].model_copy(update={"tests": "pass"})
    assert ExampleSet.freeze("heldout", (code, first.examples[1]), NOW).id != first.id
