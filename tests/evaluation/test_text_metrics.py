import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InsufficientDataError, InvalidInputError, ModelError
from ratchet.evaluation import metrics
from ratchet.evaluation.scored import bootstrap_scored
from ratchet.evaluation.text_metrics import (
    answer_length,
    answer_tokens,
    contains_answer,
    empty_answers,
    is_refusal,
    normalised_accuracy,
    perplexity,
    refusals,
    token_f1,
)
from ratchet.models import HuggingFaceModel
from ratchet.records import Message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Cat, sat.", ["cat", "sat"]),
        ("U.S.A.", ["usa"]),
        ("$1,000,000", ["1000000"]),
        ("1,2,3", ["123"]),
        ("Straße", ["strasse"]),
        ("ﬁne", ["fine"]),
        ("the", ["the"]),
        ("?!", ["?!"]),
        ("", []),
    ],
)
def test_answers_are_compared_without_case_punctuation_and_articles(text, words):
    assert answer_tokens(text) == words


def test_accuracy_is_1_for_the_words_of_any_target_in_their_order():
    scored = normalised_accuracy(
        ["The Eiffel Tower!", "tower eiffel", "Paris", None],
        ["eiffel tower", "eiffel tower", ["London", "paris"], "x"],
    )
    assert scored.values[:3].tolist() == [1.0, 0.0, 1.0]
    assert math.isnan(scored.values[3])
    assert scored.whole == pytest.approx(2 / 3)


def test_token_f1_is_that_of_squads_script():
    # precision 2/3, recall 2/4: 2 p r / (p + r) = 4/7
    scored = token_f1(["the big red cat", ""], ["red cat sat down", "x"])
    assert scored.values.tolist() == pytest.approx([4 / 7, 0.0])


@given(st.text(max_size=40))
def test_every_answer_is_right_about_itself(text):
    assert normalised_accuracy([text], [text]).values[0] == 1.0
    assert token_f1([text], [text]).values[0] == 1.0


def test_several_empty_targets_are_no_score():
    assert math.isnan(token_f1(["a"], [[]]).values[0])


def test_length_is_in_words_or_as_it_is_counted():
    assert answer_length(["one two", "", None]).values[:2].tolist() == [2.0, 0.0]
    assert answer_length(["one two"], len).values.tolist() == [7.0]
    assert not answer_length([]).higher_is_better


REFUSED = [
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "Sorry, I won't do that",
    "As an AI language model, I am unable to give medical advice.",
    "Unfortunately, we are closed to such questions",
    "I must decline.",
    "I'm sorry to hear that, but I can't help you with it.",
    "**I can’t provide** that",
]
ANSWERED = [
    "I'm sorry to hear that. Your card is on its way.",
    "Sorry is a word.",
    "You cannot open a second account online.",
    "I can help with that.",
    "Of course! If that fails, say: I'm sorry, I can't help.",
    "",
]


def test_an_answer_of_white_space_is_empty_and_a_missing_one_has_no_score():
    values = empty_answers(["", " \n\t", "no", "\u200b?", None]).values
    assert values[:4].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert np.isnan(values[4])


def test_an_answer_that_opens_by_refusing_is_a_refusal():
    assert [text for text in REFUSED if not is_refusal(text)] == []
    assert [text for text in ANSWERED if is_refusal(text)] == []
    assert refusals([*REFUSED, *ANSWERED, None]).whole == len(REFUSED) / (
        len(REFUSED) + len(ANSWERED)
    )


def test_perplexity_is_of_all_tokens_and_its_parts_are_by_example():
    # two targets with every token at probability 1/4 and 1/2: exp((3 ln 4 + 1 ln 2) / 4)
    scored = perplexity([3 * math.log(0.25), math.log(0.5), math.nan], [3, 1, 2])
    assert scored.values[:2].tolist() == pytest.approx([math.log(4), math.log(2)])
    assert scored.whole == pytest.approx(math.exp((3 * math.log(4) + math.log(2)) / 4))
    assert not scored.higher_is_better


def test_two_systems_are_compared_by_bootstrap_on_what_both_scored():
    rng = np.random.default_rng(0)
    one, two = (perplexity(-rng.gamma(9.0 + more, 1.0, 200), [10] * 200) for more in (2.0, 0.0))
    one.statistics[0], one.values[0] = np.nan, np.nan
    result = bootstrap_scored(one, two, rng=np.random.default_rng(1))
    assert result.difference < 0.0
    assert result.p_value < 0.05
    with pytest.raises(InvalidInputError, match="same metric"):
        bootstrap_scored(one, answer_length(["a"] * 200), rng=rng)


def test_without_any_score_there_is_no_whole():
    with pytest.raises(InsufficientDataError, match="token_f1 needs at least 1"):
        _ = token_f1([None], ["a"]).whole


def test_lists_that_do_not_match_are_refused():
    with pytest.raises(InvalidInputError, match="got 1 and 2"):
        token_f1(["a"], ["a", "b"])
    with pytest.raises(InvalidInputError, match="number of tokens"):
        perplexity([-1.0], [1, 2])
    with pytest.raises(InvalidInputError, match="at most 0"):
        perplexity([1.0], [1])


def test_the_metrics_are_found_where_users_look_for_them():
    assert metrics.token_f1 is token_f1
    assert {"bleu", "chrf", "rouge", "perplexity", "field_f1", "refusals"} <= set(dir(metrics))


def test_likelihoods_of_a_model_are_those_of_its_own_forward_pass(tiny_model):
    import torch

    model = HuggingFaceModel.load(tiny_model, batch_size=3)
    questions = ["hi", "where is my card now?", "a longer question about fees and so on", "x"]
    turns = [(Message(role="user", content=text),) for text in questions]
    answers = ["card", "card payments and more of it", "fees", "account"]
    found = model.log_likelihoods(turns, answers)
    raw, tokenizer = model._model, model._tokenizer
    for turn, answer, (likely, tokens) in zip(turns, answers, found, strict=True):
        before = tokenizer(
            tokenizer.apply_chat_template(
                [m.canonical() for m in turn], add_generation_prompt=True, tokenize=False
            ),
            add_special_tokens=False,
        ).input_ids
        after = tokenizer(answer, add_special_tokens=False).input_ids
        logits = raw(torch.tensor([before + after])).logits[0].detach().log_softmax(-1)
        alone = sum(
            float(logits[len(before) + place - 1, token]) for place, token in enumerate(after)
        )
        assert tokens == len(after)
        assert likely == pytest.approx(alone, abs=1e-3)
    assert perplexity(*zip(*found, strict=True)).whole > 1.0


def test_an_answer_without_tokens_has_no_likelihood(tiny_model):
    model = HuggingFaceModel.load(tiny_model)
    turns = [(Message(role="user", content="hi"),)]
    with pytest.raises(ModelError, match="at least 1 token"):
        model.log_likelihoods(turns, [""])
    with pytest.raises(ModelError, match="needs its answer"):
        model.log_likelihoods(turns, [])


def test_an_answer_in_a_sentence_contains_the_target_as_whole_words_in_order():
    answers = ["It goes to account access.", "access account", "the accounts accessed", None, ""]
    scored = contains_answer(answers, ["account access"] * 5)
    assert scored.values[:3].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(scored.values[3])
    assert scored.values[4] == 0.0
