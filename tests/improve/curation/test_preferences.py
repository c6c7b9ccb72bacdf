import numpy as np
import pytest

from ratchet.errors import InsufficientDataError
from ratchet.improve.curation.config import CurationConfig, JudgedPair
from ratchet.improve.curation.pool import Context
from ratchet.improve.curation.preferences import select_labelled, select_pairs
from ratchet.outcomes.quality import QualityWeights, quality
from tests.improve.curation.outcomes import outcomes_of

ANY_SIZE = CurationConfig(minimum_examples=1)
NAN = np.nan


def labelled(size, config=ANY_SIZE, **columns):
    outcomes = outcomes_of(size, **columns)
    scores = quality(outcomes, QualityWeights())
    return select_labelled(outcomes, scores, (), config)


def pairs(size, config=ANY_SIZE, context=None, **columns):
    outcomes = outcomes_of(size, **columns)
    scores = quality(outcomes, QualityWeights())
    return select_pairs(outcomes, scores, (), config, context=context or Context())


def said(selection):
    return [
        (row.interaction_id[-1], row.target, row.rejected, row.source) for row in selection.rows
    ]


def test_what_is_liked_and_disliked_is_labelled_and_what_is_neither_is_not():
    found = labelled(
        6,
        thumbs=np.array([1.0, 0.0, NAN, NAN, NAN, 1.0]),
        stars=np.array([NAN, NAN, 5.0, 2.0, 3.0, NAN]),
        failed_with_error=np.array([False] * 5 + [True]),
    )
    labels = [(row.interaction_id[-1], row.desirable) for row in found.rows]
    assert labels == [("0", True), ("1", False), ("2", True), ("3", False)]
    assert found.kind == "kto"
    assert all(row.target == "a" for row in found.rows)


def test_a_corrected_answer_is_disliked_and_stays_as_it_was():
    found = labelled(1, corrections=["better"], responses=["worse"])
    assert [(row.target, row.desirable) for row in found.rows] == [("worse", False)]


def test_an_answer_that_is_liked_by_some_keeps_the_label_of_most_users():
    found = labelled(
        5, prompts=["Same?", "same", "SAME!", "tied", "tied."],
        thumbs=np.array([1.0, 0.0, 0.0, 1.0, 0.0]),
    )  # fmt: skip
    assert [(row.prompt, row.desirable) for row in found.rows] == [("SAME!", False)]


def test_two_answers_to_one_prompt_keep_a_label_each():
    found = labelled(2, prompts=["same", "same"], responses=["a", "b"], thumbs=np.array([1.0, 0.0]))
    assert [(row.target, row.desirable) for row in found.rows] == [("a", True), ("b", False)]


def test_labels_are_balanced_when_there_are_too_many():
    config = CurationConfig(minimum_examples=1, maximum_examples=6)
    found = labelled(40, config, thumbs=np.array([1.0] * 36 + [0.0] * 4))
    labels = [row.desirable for row in found.rows]
    assert (labels.count(True), labels.count(False)) == (3, 3)


def test_a_correction_is_better_than_what_it_corrects():
    found = pairs(
        4,
        responses=["wrong", "Right", "", "failed"],
        corrections=["right", "right.", "right", "right"],
        failed_with_error=np.array([False, False, False, True]),
    )
    # the second says the same, the third has nothing to be worse, the fourth was no answer
    assert said(found) == [("0", "right", "wrong", "correction")]
    assert found.kind == "dpo"


def test_the_next_answer_is_better_than_one_that_was_asked_for_again():
    found = pairs(
        8,
        session_ids=["s", "s", "s", "t", "t", "u", "u", "v"],
        prompts=["where?", "Where", "else", "one", "one", "two", "other", "where?"],
        responses=["a", "b", "c", "a", "b", "a", "b", "z"],
        regenerated=np.array([1.0, NAN, NAN, 1.0, NAN, 1.0, NAN, NAN]),
        thumbs=np.array([NAN, NAN, NAN, NAN, 0.0, NAN, NAN, NAN]),
    )
    # t disliked the second answer too, u went on with another question
    assert said(found) == [("0", "b", "a", "regenerate")]
    assert found.rows[0].chosen_id == "i000001"


def test_an_answer_that_was_asked_for_again_itself_is_no_better_one():
    found = pairs(
        3, session_ids=["s"] * 3, prompts=["q"] * 3, responses=["a", "b", "c"],
        regenerated=np.array([1.0, 1.0, NAN]),
    )  # fmt: skip
    assert said(found) == [("1", "c", "b", "regenerate")]


def judged(second, given, swapped):
    return JudgedPair(first_id="i000000", second_id=second, given=given, swapped=swapped)


@pytest.mark.parametrize(
    ("given", "swapped", "kept"),
    [
        ("first", "first", [("1", "a", "b", "judge pair")]),
        ("second", "second", [("0", "b", "a", "judge pair")]),
        ("first", "second", []),
        ("tie", "tie", []),
        ("first", None, []),
    ],
)
def test_a_judge_is_believed_where_both_orders_agree(given, swapped, kept):
    context = Context(judged=(judged("i000001", given, swapped),))
    columns = {"prompts": ["same", "same"], "responses": ["a", "b"]}
    if kept:
        assert said(pairs(2, context=context, **columns)) == kept
    else:
        with pytest.raises(InsufficientDataError):
            pairs(2, context=context, **columns)


def test_a_judge_that_compared_other_interactions_gives_no_pair():
    context = Context(judged=(judged("elsewhere", "first", "first"),))
    with pytest.raises(InsufficientDataError, match="pairs of answers: 0"):
        pairs(2, context=context)


def test_pairs_whose_better_answer_is_much_longer_go_first():
    words = [f"{n} " + "x" * 300 for n in range(4)]
    found = pairs(
        8, session_ids=list("aabbccdd"), prompts=list("11223344"),
        responses=[words[0], words[1] + "y" * 2000, *words[2:], *["q" * 250, "r" * 250] * 2],
        regenerated=np.array([1.0, NAN] * 4),
    )  # fmt: skip
    assert [row.prompt for row in found.rows] == ["2", "3", "4"]
    assert dict(found.funnel)["of ordinary length"] == 3


@pytest.mark.parametrize("what", ["refused", "withheld"])
@pytest.mark.parametrize("half", ["i000000", "i000001"])
def test_a_pair_needs_both_of_its_answers_to_be_allowed(what, half):
    columns = {
        "prompts": ["same"] * 2, "responses": ["worse", "better"],
        "regenerated": np.array([1.0, NAN]), "session_ids": np.array(["s", "s"], dtype=object),
    }  # fmt: skip
    assert said(pairs(2, **columns)) == [("0", "better", "worse", "regenerate")]
    with pytest.raises(InsufficientDataError):
        pairs(2, context=Context(**{what: {half}}), **columns)
