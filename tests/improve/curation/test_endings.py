"""Only whole answers are trained on: which finish reasons count, in each kind of set."""

from datetime import UTC, datetime

import numpy as np
import pytest

from ratchet.errors import InsufficientDataError
from ratchet.improve.curation.config import CurationConfig, JudgedPair
from ratchet.improve.curation.endings import WHOLE, cut_answers
from ratchet.improve.curation.pool import Context
from ratchet.improve.curation.preferences import select_labelled, select_pairs
from ratchet.improve.curation.selection import select
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Interaction, Message
from ratchet.store import Window
from tests.improve.curation.outcomes import outcomes_of

ANY_SIZE = CurationConfig(minimum_examples=1)
NOW = datetime(2026, 11, 24, tzinfo=UTC)
NAN = np.nan
CUT = ["length", "content_filter", "disconnected", "MAX_TOKENS", " Abort ", "a new reason"]


def chosen(by, size, endings=None, judged=(), **columns):
    outcomes = outcomes_of(size, **columns)
    by_id = {f"i{place:06d}": reason for place, reason in (endings or {}).items()}
    context = Context(endings=by_id, judged=judged)
    return by(outcomes, quality(outcomes, QualityWeights()), (), ANY_SIZE, context=context)


def places(selection):
    return [int(row.interaction_id[1:]) for row in selection.rows]


@pytest.mark.parametrize("reason", CUT)
@pytest.mark.parametrize("by", [select, select_labelled], ids=["sft", "kto"])
def test_a_liked_answer_that_is_not_whole_is_left_out_and_counted(by, reason):
    found = chosen(by, 3, {1: reason}, thumbs=np.ones(3))
    assert places(found) == [0, 2]
    name = " ".join(reason.split())
    assert dict(found.set_aside) == {f"answer is not whole: finish reason {name}": 1}


@pytest.mark.parametrize("reason", ["stop", "STOP", "end_turn", "tool_calls", " Eos_Token", ""])
def test_an_answer_that_the_model_ended_itself_is_whole(reason):
    assert places(chosen(select, 2, {1: reason}, thumbs=np.ones(2))) == [0, 1]


@pytest.mark.parametrize("by", [select, select_labelled], ids=["sft", "kto"])
def test_a_liked_answer_that_broke_off_is_left_out(by):
    failed = np.array([False, True, False])
    assert places(chosen(by, 3, thumbs=np.ones(3), failed_with_error=failed)) == [0, 2]


def test_a_disliked_answer_that_was_cut_is_no_unwanted_one():
    found = chosen(select_labelled, 3, {2: "length"}, thumbs=np.array([1.0, 0.0, 0.0]))
    assert [(place, row.desirable) for place, row in zip(places(found), found.rows, strict=True)] \
        == [(0, True), (1, False)]  # fmt: skip


def test_the_correction_of_a_cut_answer_is_learnt_and_makes_no_pair():
    columns = {"corrections": ["right", "good"], "responses": ["wro", "bad"]}
    assert places(chosen(select, 2, {0: "length"}, **columns)) == [0, 1]
    assert places(chosen(select_pairs, 2, {0: "length"}, **columns)) == [1]


@pytest.mark.parametrize("cut", [0, 1])
def test_a_pair_needs_two_whole_answers_when_one_was_asked_for_again(cut):
    columns = {
        "session_ids": list("sst"), "prompts": list("qqr"), "responses": ["a", "b", "wrong"],
        "regenerated": np.array([1.0, NAN, NAN]), "corrections": [None, None, "right"],
    }  # fmt: skip
    assert places(chosen(select_pairs, 3, **columns)) == [0, 2]
    assert places(chosen(select_pairs, 3, {cut: "content_filter"}, **columns)) == [2]


@pytest.mark.parametrize("by", [select, select_pairs], ids=["sft", "dpo"])
@pytest.mark.parametrize("cut", ["length", "error"])
def test_a_cut_answer_that_a_judge_prefers_is_not_learnt(by, cut):
    pair = JudgedPair(first_id="i000000", second_id="i000001", given="first", swapped="first")
    columns = {"prompts": ["same", "same"], "responses": ["a", "b"]}
    assert chosen(by, 2, judged=(pair,), **columns).rows
    endings = {0: cut} if cut == "length" else {}
    failed = np.array([cut == "error", False])
    with pytest.raises(InsufficientDataError):
        chosen(by, 2, endings, judged=(pair,), failed_with_error=failed, **columns)


def test_a_reason_with_control_characters_is_shown_harmlessly():
    (_, reason) = cut_answers(outcomes_of(2), {"i000001": "\x1b[2J" + "x" * 300})
    assert "\x1b" not in reason
    assert len(reason) < 120


def test_finish_reasons_are_read_from_the_metadata_by_their_usual_names(store):
    metadata = [
        {}, {"finish_reason": "stop"}, {"finish_reason": "length"}, {"stop_reason": "max_tokens"},
        {"finishReason": "SAFETY", "note": "x"}, {"done_reason": "Stop "},
    ]  # fmt: skip
    store.add_interactions(
        [
            Interaction(
                id=f"i{place}", session_id="s", user_id="u", created_at=NOW, model_version="m",
                messages=(Message(role="user", content="q"),), response="a", metadata=said,
            )
            for place, said in enumerate(metadata)
        ]
    )  # fmt: skip
    window = Window(NOW, NOW.replace(year=2027))
    assert store.endings(window, besides=WHOLE) == {
        "i2": "length", "i3": "max_tokens", "i4": "SAFETY",
    }  # fmt: skip
    assert store.endings(Window(NOW.replace(year=2025), NOW), besides=WHOLE) == {}
