"""Win rates through a judge of pairs that is asked in both orders, and what the gate decides."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.policy import GatePolicy, Primary
from ratchet.deploy.gate.scores import GateScores, MetricScores
from ratchet.errors import InvalidInputError
from ratchet.judges.judge import Judge, asker, judge_items
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import JudgeSpec
from ratchet.judges.win_rate import is_same, pairs_of, win_rate
from ratchet.models import ScriptedModel
from ratchet.records import Example, Message

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
POLICY = GatePolicy(primary=Primary(metric="win_rate", hold_margin=0.05))
GOOD, BAD = "It is so.", "It is not."


def example(number):
    text = f"Question {number}?"
    return Example(id=f"e-{number}", messages=(Message(role="user", content=text),), target="")


def answers(rng, count, *, good, words):
    """Answers that are good so often, with filler of so many words on average."""
    return {
        f"e-{number}": (GOOD if rng.random() < good else BAD) + " well" * int(rng.poisson(words))
        for number in range(count)
    }


def shown(conversation):
    """The two answers as the judge sees them."""
    text = conversation[-1].content
    return [
        text.split(f"<{name} ", 1)[1].split(">\n", 1)[1].split(f"\n</{name} ", 1)[0]
        for name in ("answer A", "answer B")
    ]


def likes_length(conversation):
    """The longer answer wins by a third or more; else the good one; else A, as it comes first."""
    one, two = shown(conversation)
    if max(len(one), len(two)) > 1.3 * min(len(one), len(two)):
        return "A" if len(one) > len(two) else "B"
    if (GOOD in one) != (GOOD in two):
        return "A" if GOOD in one else "B"
    return "A"


def people(pair):
    """People ask for what is good; without a difference some like one, some the other."""
    if (GOOD in pair.answer) != (GOOD in pair.other):
        return float(GOOD in pair.answer)
    return 0.5


def judged(pairs, answer=likes_length):
    spec = JudgeSpec.model_validate(
        {"name": "pairs", "local": "scripted", "explain": False, "mode": "pairwise"}
    )
    model = ScriptedModel(answer)
    return judge_items(
        Judge(spec, model_digest=model.digest),
        [pair for pair in pairs if not is_same(pair)],
        ask=asker(spec, model),
        recorded=lambda keys: {},
        save=lambda verdicts: None,
        now=lambda: NOW,
    ).judgements


def measured(*, good, words, labels=150, decision="usable", seed=0, count=500):
    rng = np.random.default_rng(seed)
    champion = answers(rng, count, good=0.5, words=3)
    challenger = answers(rng, count, good=good, words=words)
    pairs = pairs_of([example(number) for number in range(count)], champion, challenger)
    chosen = set(rng.choice([pair.id for pair in pairs], labels, replace=False))
    human = {pair.id: people(pair) for pair in pairs if pair.id in chosen}
    return pairs, win_rate(pairs, judged(pairs), human, decision=decision)


def gated(found, **options):
    scores = MetricScores("win_rate", found.champion.values, found.challenger.values)
    return run_gate(GateScores({"win_rate": scores}), POLICY, **options)


def figure(found, name):
    return next(one for one in found.figures if one.name == name)


def test_a_better_challenger_is_promoted():
    _, found = measured(good=0.75, words=3)
    assert found.reason is None
    assert figure(found, "win_rate").lower > 0.5
    assert gated(found).verdict == "promote"


def test_one_that_only_writes_more_wins_by_the_judge_and_not_by_the_gate():
    _, found = measured(good=0.5, words=8)
    assert figure(found, "judge_raw_win_rate").lower > 0.6
    assert figure(found, "win_rate").upper >= 0.5
    assert figure(found, "win_rate").lower < 0.5
    assert gated(found).verdict != "promote"


def test_a_worse_one_that_writes_more_is_rejected():
    _, found = measured(good=0.25, words=8)
    assert figure(found, "judge_raw_win_rate").lower > 0.5
    assert gated(found).verdict == "reject"


@pytest.mark.parametrize("decision", ["not usable", "not enough labels"])
def test_a_judge_that_is_not_usable_gives_no_scores_and_never_a_promotion(decision):
    _, found = measured(good=0.95, words=3, decision=decision)
    assert np.isnan(found.challenger.values).all()
    assert decision in found.reason
    assert gated(found).verdict == "inconclusive"
    assert figure(found, "win_rate").value is None


def test_too_few_labels_give_no_scores_and_say_what_is_missing():
    _, found = measured(good=0.95, words=3, labels=29)
    assert "29 labelled" in found.reason
    assert gated(found).verdict == "inconclusive"


def test_a_judge_that_goes_by_place_makes_ties_and_is_shown_to():
    pairs, _ = measured(good=0.9, words=3, count=200, labels=60)
    human = {pair.id: people(pair) for pair in pairs[:60]}
    found = win_rate(pairs, judged(pairs, lambda _: "A"), human, decision="usable")
    assert figure(found, "same_winner_in_both_orders").value == 0.0
    # all verdicts are ties: what is left are the labels
    assert figure(found, "win_rate_uncontrolled").lower > 0.5


def test_one_order_alone_is_no_verdict():
    pairs, _ = measured(good=0.9, words=3, count=200, labels=60)
    spec = JudgeSpec.model_validate(
        {"name": "pairs", "local": "scripted", "explain": False, "mode": "pairwise",
         "both_orders": False}
    )  # fmt: skip
    model = ScriptedModel(likes_length)
    once = judge_items(
        Judge(spec, model_digest=model.digest),
        pairs,
        ask=asker(spec, model),
        recorded=lambda keys: {},
        save=lambda verdicts: None,
        now=lambda: NOW,
    ).judgements
    human = {pair.id: people(pair) for pair in pairs[:60]}
    found = win_rate(pairs, once, human, decision="usable")
    assert gated(found).verdict == "inconclusive"
    assert found.unscored["one order alone"] == sum(not is_same(pair) for pair in pairs)


def test_the_same_text_twice_is_a_tie_that_nobody_is_asked_about():
    texts = {f"e-{number}": GOOD for number in range(40)}
    pairs = pairs_of([example(number) for number in range(40)], texts, texts)
    human = {pair.id: 0.5 for pair in pairs[:30]}
    found = win_rate(pairs, [], human, decision="usable")
    assert not found.unscored
    assert figure(found, "win_rate_uncontrolled").value == pytest.approx(0.5)


def test_verdicts_that_are_missing_are_counted_and_block_the_gate():
    pairs, _ = measured(good=0.9, words=3)
    verdicts = [one for one in judged(pairs) if int(one.item_id[2:]) % 10]
    human = {pair.id: people(pair) for pair in pairs[:150]}
    found = win_rate(pairs, verdicts, human, decision="usable")
    assert 40 <= found.unscored["not asked"] <= 50
    assert gated(found).verdict == "inconclusive"
    assert np.nanmean(found.challenger.values) == pytest.approx(figure(found, "win_rate").value)


def test_verdicts_that_are_missing_mostly_where_people_labelled_give_no_scores_but_a_reason():
    pairs, _ = measured(good=0.9, words=3, count=400, labels=60)
    human = {pair.id: people(pair) for pair in pairs[:100]}
    verdicts = [one for one in judged(pairs) if one.item_id not in list(human)[:60]]
    found = win_rate(pairs, verdicts, human, decision="usable")
    assert "as often on labelled pairs as on others" in found.reason
    assert np.isnan(found.challenger.values).all()


def test_a_label_out_of_range_is_the_callers_mistake_and_is_raised():
    pairs, _ = measured(good=0.9, words=3, count=200, labels=60)
    human = {pair.id: people(pair) for pair in pairs[:60]} | {pairs[0].id: 2.0}
    with pytest.raises(InvalidInputError, match="2"):
        win_rate(pairs, judged(pairs), human, decision="usable")


def test_examples_that_one_of_the_two_did_not_answer_make_no_pair():
    pairs = pairs_of([example(0), example(1)], {"e-0": "a", "e-1": "b"}, {"e-1": "c"})
    assert [(pair.id, pair.answer, pair.other) for pair in pairs] == [("e-1", "c", "b")]


def test_what_belongs_to_no_pair_is_refused():
    pairs, _ = measured(good=0.9, words=3, count=100, labels=40)
    with pytest.raises(InvalidInputError, match="about the pairs, got 'x'"):
        win_rate(pairs, [], {"x": 1.0}, decision="usable")
    with pytest.raises(InvalidInputError, match="got one twice"):
        win_rate([*pairs, pairs[0]], [], {}, decision="usable")
    with pytest.raises(InvalidInputError, match="two answers"):
        win_rate([Item("i", pairs[0].conversation, "a")], [], {}, decision="usable")
    with pytest.raises(InvalidInputError, match="labels must be in"):
        win_rate(pairs, [], {pair.id: 2.0 for pair in pairs[:40]}, decision="usable")


def test_a_difference_in_length_that_nobody_sees_does_not_explain_who_is_better():
    """Every better answer is longer by two characters of fifty."""
    better, worse = GOOD.ljust(49, "."), BAD.ljust(47, ".")
    pairs = [Item(f"e-{n}", example(n).messages, better, worse) for n in range(150)]
    pairs += [Item(f"e-{n}", example(n).messages, better, better) for n in range(150, 240)]
    labels = {pair.id: people(pair) for pair in pairs[::2]}
    found = win_rate(pairs, judged(pairs), labels, decision="usable")
    assert found.reason is None
    assert figure(found, "win_rate").lower > 0.7  # 75 wins and 45 ties among the labels: 0.81
    seen = [replace(pair, answer=better * 2) if pair.other == worse else pair for pair in pairs]
    found = win_rate(seen, judged(seen), labels, decision="usable")
    assert "length separates them" in (found.reason or "")
    assert figure(found, "win_rate_uncontrolled").lower > 0.7


def test_where_all_answers_are_equally_long_there_is_nothing_to_control():
    pairs = [
        Item(f"e-{n}", example(n).messages, f"{n % 3} well", f"{n % 2} well") for n in range(300)
    ]
    labels = {pair.id: float(pair.answer > pair.other) for pair in pairs[:100]}
    found = win_rate(pairs, judged(pairs), labels, decision="usable")
    assert found.reason is None
    uncontrolled = figure(found, "win_rate_uncontrolled").model_copy(update={"name": "win_rate"})
    assert figure(found, "win_rate") == uncontrolled
