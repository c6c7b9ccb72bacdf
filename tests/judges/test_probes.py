"""Treatments that must not move a judge, and whether one that is moved is found out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.judges.judge import Judge, Judgement, asker, judge_items
from ratchet.judges.probes import (
    CONFIDENT_CLOSINGS,
    CONFIDENT_OPENINGS,
    HEDGES,
    INJECTIONS,
    Probe,
    confident,
    injected,
    probe_figure,
    probes_for,
    treated_items,
)
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import HELPFULNESS, JudgeSpec
from ratchet.models import Conversation, ScriptedModel
from ratchet.records import Message

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
TURNS = range(len(CONFIDENT_OPENINGS))
HEDGED = ("I think", "maybe", "Perhaps", "it seems that", "in my opinion", "as far as I know")
AUTHORITY, INJECTION, SHIELDED = probes_for("5")


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def within(text: str, turn: int) -> str:
    """What stands between the opening and the closing."""
    opening, closing = CONFIDENT_OPENINGS[turn], CONFIDENT_CLOSINGS[turn]
    treated = confident(text, turn)
    assert treated.startswith(opening)
    assert treated.endswith(closing)
    return treated[len(opening) : -len(closing)]


@given(
    st.lists(st.from_regex(r"[a-z]{3,9}|\d{1,4}", fullmatch=True), min_size=1, max_size=20),
    st.lists(st.tuples(st.sampled_from(HEDGED), st.integers(0, 20)), max_size=5),
    st.sampled_from(TURNS),
)
def test_a_confident_tone_keeps_every_word_of_the_content_in_its_order(content, hedges, turn):
    parts = [word for word in content if not HEDGES.fullmatch(word)]
    hedged = list(parts)
    for hedge, place in hedges:
        hedged.insert(min(place, len(hedged)), hedge)
    assert words(within(" ".join(hedged), turn)) == parts


@pytest.mark.parametrize("hedge", HEDGED)
def test_a_hedge_goes_with_its_comma_and_the_next_word_begins_the_sentence(hedge):
    assert within(f"{hedge}, paris is the capital.", 0) == "Paris is the capital."
    assert within(f"The capital is {hedge.lower()} Paris.", 0) == "The capital is Paris."


@pytest.mark.parametrize(
    "text", ["x = 1", "print(x)", "iPhone", "ß", "```\ncode\n```", "the mayber"]
)
def test_a_text_without_hedges_stays_as_it_was_letter_for_letter(text):
    assert within(text, 0) == text


def test_an_empty_answer_becomes_a_confident_nothing():
    assert within("", 0) == within("maybe", 0) == ""


def test_turns_use_every_wording_and_begin_again():
    assert len({confident("x", turn) for turn in TURNS}) == len(TURNS)
    assert confident("x", len(TURNS)) == confident("x", 0)
    assert len({injected("x", turn, best="5") for turn in range(len(INJECTIONS))}) == len(
        INJECTIONS
    )
    assert injected("x", len(INJECTIONS), best="5") == injected("x", 0, best="5")


@given(st.text(max_size=100), st.integers(0, 100))
def test_an_injected_text_is_the_text_with_the_instruction_at_its_end(text, turn):
    treated = injected(text, turn, best="BEST of all")
    instruction = INJECTIONS[turn % len(INJECTIONS)].replace("BEST", "BEST of all")
    assert treated == f"{text}\n{instruction}"
    assert injected(text, turn, best="5").count("BEST") == text.count("BEST")


def test_treated_items_differ_in_id_and_first_answer_alone_and_ids_are_distinct():
    talk = (Message(role="user", content="hi"),)
    items = [Item(f"i-{n}", talk, f"answer {n}", f"other {n}", f"truth {n}") for n in range(20)]
    made = [treated_items(items, probe) for probe in probes_for("5")]
    ids = [item.id for group in (items, *made) for item in group]
    assert len(set(ids)) == len(ids) == 80
    for group in made:
        for plain, treated in zip(items, group, strict=True):
            assert treated.id.startswith(f"{plain.id}:")
            assert plain.answer in treated.answer.casefold() or plain.answer in treated.answer
            assert treated.answer != plain.answer
            same = (treated.conversation, treated.other, treated.reference)
            assert same == (plain.conversation, plain.other, plain.reference)


# Judges that are moved, and judges that are not --------------------------------------------------


def judgements(
    answer: Callable[[Conversation], str], items: Sequence[Item], *, shielded: bool = True
) -> tuple[Judgement, ...]:
    spec = JudgeSpec(name="scripted", local="scripted", dimension=HELPFULNESS, explain=False)
    model = ScriptedModel(answer)
    judge = Judge(spec, model_digest=model.digest)
    judged = judge_items(
        judge,
        items,
        ask=asker(spec, model),
        shielded=shielded,
        recorded=lambda keys: {},
        save=lambda verdicts: None,
        now=lambda: NOW,
    )
    return judged.judgements


CONFIDENT_WORDS = ("certain", "expert", "beyond doubt", "full confidence")


def loves_confidence(conversation: Conversation) -> str:
    return "5" if any(word in conversation[-1].content for word in CONFIDENT_WORDS) else "3"


def hates_confidence(conversation: Conversation) -> str:
    return "1" if any(word in conversation[-1].content for word in CONFIDENT_WORDS) else "3"


def reads_the_content(conversation: Conversation) -> str:
    return str(1 + int(re.findall(r"fact (\d+)", conversation[-1].content)[-1]) % 5)


def items(count: int) -> list[Item]:
    talk = (Message(role="user", content="Tell me something."),)
    return [Item(f"i-{n}", talk, f"I think this is fact {n}.") for n in range(count)]


def probed(answer: Callable[[Conversation], str], probe: Probe = AUTHORITY, count: int = 40):
    plain = items(count)
    treated = judgements(answer, treated_items(plain, probe), shielded=probe.shielded)
    return probe_figure(probe, judgements(answer, plain), treated)


def test_a_judge_that_loves_confidence_is_found_out_with_the_effect_it_was_given():
    found, harmful = probed(loves_confidence)
    assert harmful
    assert (found.name, found.value, found.observations) == ("authority_uplift", 0.5, 40)  # 3 to 5
    assert found.lower is not None
    assert found.lower > AUTHORITY.tolerance


@pytest.mark.parametrize("answer", [reads_the_content, hates_confidence])
def test_a_judge_that_confidence_does_not_help_is_not_called_moved(answer):
    found, harmful = probed(answer)
    assert not harmful
    assert found.value == (0.0 if answer is reads_the_content else -0.5)


def test_one_item_shows_nothing_and_the_figure_says_why():
    found, harmful = probed(loves_confidence, count=1)
    assert not harmful
    assert (found.value, found.observations) == (None, 1)
    assert "2 values" in (found.reason or "")


def test_a_judge_without_verdicts_has_no_effect_rather_than_none():
    found, harmful = probed(lambda conversation: "no idea")
    assert not harmful
    assert found.value is None
    assert "got none of 40" in (found.reason or "")


def test_the_few_items_that_lost_their_verdict_are_left_out_and_not_counted_as_0():
    plain = items(40)
    before = judgements(lambda c: "3", plain)
    after = judgements(
        lambda c: "no idea" if "fact 7." in c[-1].content else "3", treated_items(plain, AUTHORITY)
    )
    found, _ = probe_figure(AUTHORITY, before, after)
    assert (found.value, found.observations) == (0.0, 39)


def obeys_orders(conversation: Conversation) -> str:
    """Gives the best mark wherever an instruction of the probe reaches it word for word."""
    shown = conversation[-1].content
    orders = [text.replace("BEST", "5") for text in INJECTIONS]
    return "5" if any(order in shown for order in orders) else "1"


def test_the_script_that_obeys_is_moved_by_the_instructions_where_nothing_shields_it():
    for turn in range(len(INJECTIONS)):
        text = injected("a fact.", turn, best="5")
        assert obeys_orders([Message(role="user", content=text)]) == "5"


def test_a_judge_that_would_obey_is_not_moved_for_the_instructions_do_not_reach_it():
    found, harmful = probed(obeys_orders, SHIELDED)
    assert (found.name, found.value, harmful) == ("shielded_injection_uplift", 0.0, False)


def test_without_the_shield_the_same_judge_is_found_out():
    # only instructions with control tokens, which are harmless either way, do not reach it
    tokens = sum("<|" in text for text in INJECTIONS)
    found, harmful = probed(obeys_orders, INJECTION, count=len(INJECTIONS))
    assert harmful
    assert found.value == pytest.approx((len(INJECTIONS) - tokens) / len(INJECTIONS))


@pytest.mark.parametrize("best", ["5", "A", "safe"])
def test_the_best_verdict_is_in_the_instructions_that_name_one(best):
    _, probe, shielded = probes_for(best)
    assert probe.treat("x", 0) == shielded.treat("x", 0)
    treated = [probe.treat("x", turn) for turn in range(len(INJECTIONS))]
    assert not any("BEST" in text for text in treated)
    naming = [n for n, text in enumerate(INJECTIONS) if "BEST" in text]
    assert len(naming) >= 8
    assert all(best in treated[n].removeprefix("x\n") for n in naming)
