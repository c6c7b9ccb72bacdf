"""Whatever empties a training set is named with its count and its switch, each as the only one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from ratchet.errors import InsufficientDataError
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.funnel import APART, SWITCHES, lost
from ratchet.records import (
    Correction,
    Definition,
    Example,
    ExampleSet,
    Feedback,
    Interaction,
    ToolCall,
    user_digest,
)
from ratchet.store import EventStore
from tests.calls import call
from tests.improve.curation.curated_home import (
    END,
    SIZE,
    START,
    answers,
    corrections,
    curated,
    prompt,
    said,
    store_of,
    thumbs,
)

Events = tuple[list[Interaction], list[Feedback]]


@dataclass(frozen=True)
class Case:
    """What empties a set.

    Attributes:
        step: The step that does.
        left: How many it leaves, of 16 that are needed.
        events: Makes interactions and feedback.
        also: Puts more into the store.
    """

    step: str
    left: int
    events: Callable[[], Events]
    kind: str = "sft"
    config: dict[str, Any] = field(default_factory=dict)
    also: Callable[[EventStore], object] = lambda store: None
    withheld: tuple[str, ...] = ()


def liked(size: int = SIZE, **changes: Any) -> Events:
    made = answers(size, **changes)
    return made, thumbs(made)


def nobody_spoke() -> Events:
    return answers(), []


def with_metadata(**metadata: str) -> Callable[[], Events]:
    return lambda: liked(metadata=metadata)


def held_out(*prompts: str) -> Callable[[EventStore], object]:
    examples = tuple(
        Example(id=f"e{n}", messages=(said(text),), target="x") for n, text in enumerate(prompts)
    )
    return lambda store: store.append(ExampleSet.freeze("held-out", examples, START))


def users_held_out(store: EventStore) -> None:
    """Freeze what all of them asked, in words that are close to nothing else."""
    examples = tuple(
        Example(id=f"e{one.id}", messages=(said(f"xyzzy {n}"),), user_id=user_digest(one.user_id))
        for n, one in enumerate(answers())
    )
    store.append(ExampleSet.freeze("sampled-1", examples, START))


def one_planted_answer() -> Events:
    made = answers(user_id="one")
    return made, corrections(made, "buy at the planted shop")


def two_answers_each() -> Events:
    made = answers(2 * SIZE, messages=lambda n: (said(prompt(n // 2)),))
    return made, corrections(made)


def nearly_the_same() -> Events:
    text = "my card was charged twice in the shop on monday and nobody told me why it was so {}"
    return liked(messages=lambda n: (said(text.format(n)),))


def long_answers() -> Events:
    short = answers(400, id=lambda n: f"short{n}", response="ok")
    made = answers(response=lambda n: f"{prompt(n)} " * 20)
    return [*short, *made], thumbs(made)


def calls_as_text() -> Events:
    made = answers()
    return made, [
        one.model_copy(update={"value": f"[tool calls] {one.value}"}) for one in corrections(made)
    ]


MAIL_TOOL = Definition.of(
    "tools",
    [
        {
            "type": "function",
            "function": {
                "name": "mail",
                "parameters": {"properties": {"to": {"type": "string", "pattern": "@"}}},
            },
        }
    ],
)


def mails() -> Events:
    def called(number: int) -> tuple[ToolCall, ...]:
        return (ToolCall.model_validate(call("mail", to=f"user{number}@example.org")),)

    return liked(response="", tool_calls=called, tools=MAIL_TOOL.id)


CASES = {
    "since": Case("of the time chosen", 0, liked, config={"since": "2026-07-01"}),
    "until": Case("of the time chosen", 12, liked, config={"until": "2026-06-01T12:00Z"}),
    "nobody spoke": Case("corrected or well rated", 0, nobody_spoke),
    "all bad": Case(
        "corrected or well rated", 0, lambda: (answers(), thumbs(answers(), "down"))
    ),
    "no labels": Case("liked or not", 0, nobody_spoke, kind="kto"),
    "no pairs": Case("pairs of answers", 0, liked, kind="dpo"),
    "cut off": Case("readable", 0, with_metadata(finish_reason="length")),
    "too long": Case("readable", 0, liked, config={"maximum_characters": 3}),
    "refused": Case("not refused by their user", 0, with_metadata(training_consent="no")),
    "kept too long": Case(
        "not refused by their user", 0, with_metadata(retain_until="2026-07-01T00:00:00Z")
    ),
    "silence": Case(
        "not refused by their user", 0, liked, config={"consent": "only if given"}
    ),
    "asked by the gate": Case("not of users held out", 0, liked, also=users_held_out),
    "flagged": Case(
        "not flagged as unsafe", 0, liked, withheld=tuple(f"i{n}" for n in range(SIZE))
    ),
    "one answer": Case("from trusted users", 0, one_planted_answer),
    "ties": Case("one per prompt", 0, two_answers_each),
    "near duplicates": Case("no near duplicates", 1, nearly_the_same),
    "held out": Case(
        "not in an evaluation set", 0, liked, also=held_out(*map(prompt, range(SIZE)))
    ),
    "too long for their segment": Case("of ordinary length", 0, long_answers),
    "one user": Case(
        "capped per user and source", 10, lambda: liked(user_id="one"),
    ),
    "a small set": Case("balanced and capped", 10, liked, config={"maximum_examples": 10}),
    "calls as text": Case("without calls of tools as text", 0, calls_as_text),
    "arguments that are personal data": Case(
        "with calls that fit without personal data", 0, mails, also=lambda store:
        store.add_definitions([MAIL_TOOL]),
    ),
    "an earlier turn": Case(
        "no earlier turn in an evaluation set", 0,
        lambda: liked(messages=lambda n: (
            said("what does a held-out question ask for"), said("this", "assistant"),
            said(prompt(n)),
        )),
        also=held_out("what does a held-out question ask for"),
    ),
}  # fmt: skip


@pytest.mark.mostly_slow("refused", "too long", "no pairs", "flagged", "silence")
@pytest.mark.parametrize("name", CASES)
def test_the_step_that_empties_a_set_is_named_with_its_count_and_its_switch(name, tmp_path):
    case = CASES[name]
    store = store_of(tmp_path, *case.events())
    case.also(store)
    found = curated(
        store, tmp_path, case.kind, CurationConfig(**case.config), withheld=case.withheld
    )
    before = found.selection.funnel[[s for s, _ in found.selection.funnel].index(case.step) - 1][1]
    emptied = [step for step in lost(found.selection.funnel) if step.left < 16]
    assert (emptied[0].step, emptied[0].left) == (case.step, case.left)
    assert emptied[0].lost == before - case.left
    with pytest.raises(InsufficientDataError) as refused:
        found.required()
    told = f"{before - case.left:,} are not '{case.step}' ({SWITCHES[case.step]})"
    assert told in str(refused.value)
    assert f"needs at least 16 examples, got {case.left} (" in str(refused.value)
    store.close()


def test_every_step_of_a_funnel_has_its_switch_and_its_case():
    # what is the same once personal data is out is left out later: see test_dataset.py
    assert set(SWITCHES) == {case.step for case in CASES.values()} | {APART}


def test_without_what_empties_them_these_sets_are_whole(tmp_path):
    store = store_of(tmp_path, *liked())
    found = curated(store, tmp_path)
    assert lost(found.selection.funnel) == ()
    assert len(found.required().rows) == SIZE


def test_reasons_of_rows_that_cannot_be_read_are_named_too(tmp_path):
    store = store_of(tmp_path, *liked(metadata={"finish_reason": "length"}))
    with pytest.raises(InsufficientDataError, match="not readable were answer is not whole: fin"):
        curated(store, tmp_path).required()


@pytest.mark.parametrize(
    ("feedback", "only", "missing"), [(thumbs, "liked", "disliked"), (corrections, "disliked", "l")]
)
def test_kto_with_one_label_names_what_left_the_other_one_out(tmp_path, feedback, only, missing):
    made = answers()
    store = store_of(tmp_path, made, feedback(made))
    with pytest.raises(InsufficientDataError) as refused:
        curated(store, tmp_path, "kto").required()
    assert f"got 40 {only} and no {missing}" in str(refused.value)
    assert "liked or not: 0, readable: 0" in str(refused.value)


def test_kto_says_which_step_took_the_disliked_answers(tmp_path):
    made = answers(metadata=lambda n: {"training_consent": "no"} if n % 2 else {})
    store = store_of(tmp_path, made, [*thumbs(made[::2]), *thumbs(made[1::2], "down")])
    with pytest.raises(InsufficientDataError) as refused:
        curated(store, tmp_path, "kto").required()
    assert "20 are not 'not refused by their user' (curation.consent" in str(refused.value)


def test_a_step_that_leaves_enough_is_counted_and_no_error(tmp_path):
    made = answers()
    store = store_of(tmp_path, made, thumbs(made))
    late = Correction(
        id="late", interaction_id="i3", value="right", created_at=END - timedelta(days=1)
    )
    store.add_feedback([late])
    found = curated(store, tmp_path, config=CurationConfig(since="2026-06-01T10:00Z"))
    assert found.selection.funnel[:2] == (("interactions", 40), ("of the time chosen", 30))
    assert [row.interaction_id for row in found.required().rows] == [f"i{n}" for n in range(10, 40)]
