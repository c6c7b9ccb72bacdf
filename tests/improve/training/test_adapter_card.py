"""The card of an adapter, as huggingface_hub reads it."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from pathlib import Path

from huggingface_hub import ModelCard

from ratchet.improve.training.adapter_card import BaseFacts, CardOf, card_text, write_card
from ratchet.records import Candidate, Decision, TrainingSet

NOW = datetime(2026, 12, 2, tzinfo=UTC)
SET = TrainingSet(
    id="t", cycle_id="c", created_at=NOW, digest="d" * 64, path="datasets/d", size=288,
    funnel=(("interactions", 640), ("corrected", 320)), validation=32, license="other",
    redactions=(("EMAIL_ADDRESS", 3),),
)  # fmt: skip
CANDIDATE = Candidate(
    id="a", cycle_id="c", created_at=NOW, model_name="support-router", version="2",
    adapter_digest="e" * 64, path="adapters/e", training_set_id="t", run_id="r",
    losses=(2.5, 0.5), training_seconds=90.0,
)  # fmt: skip
DECISION = Decision(
    id="decision-1", cycle_id="c", created_at=NOW, champion="support-router/1",
    challenger="support-router/2", verdict="promote", reasons=("exact_match is better",),
    primary_metric="exact_match", champion_value=0.0, challenger_value=0.77, difference=0.77,
    interval=(0.7, 0.83), p_value=1e-9, examples=200, example_set_id="held-out-1", policy={},
    evidence={},
)  # fmt: skip
BASE = BaseFacts("team/small", "f" * 40, "apache-2.0")


def test_a_card_holds_data_metrics_licence_and_decision_where_the_hub_looks_for_them(
    tmp_path: Path,
) -> None:
    of = CardOf("support-router/2", BASE, CANDIDATE, SET, DECISION, champion="support-router/2")
    write_card(of, tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "team/small"
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "peft"
    assert card.data.tags == ["ratchet", "lora", "sft"]
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("exact_match", 0.77)
    assert "held-out-1 (200 examples)" in result.dataset_name
    for words in (
        "288 rows of answers (SFT), 32 rows for validation",
        "| corrected | 320 |",
        "Personal data taken out: 3 × EMAIL",
        "2 steps in 1.5 minutes, loss 2.500 to 0.500",
        "| exact_match | 0.000 | 0.770 |",
        "**promote** against support-router/1 on 2026-12-02",
        "It is in use.",
        "Of the base model: apache-2.0. Of the data: other.",
    ):
        assert words in html.unescape(card.text), words


def test_before_the_gate_a_card_says_so_and_names_the_data_set_of_the_hub() -> None:
    given = SET.model_copy(update={"origin": "team/parcels at revision " + "a" * 40})
    card = ModelCard(card_text(CardOf("m/2", BASE, CANDIDATE, given)))
    assert card.data.datasets == ["team/parcels"]
    assert card.data.eval_results is None
    assert "The gate has not decided yet" in card.text
    assert "from team/parcels at revision" in card.text


def test_the_licence_is_that_of_the_base_models_own_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Small\n", "utf-8")
    assert BaseFacts.of(tmp_path) == BaseFacts(tmp_path.name, license="mit")
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\n", "utf-8")
    assert BaseFacts.of(tmp_path).license == ""
    card = card_text(CardOf("m/2", BaseFacts("small")))
    assert "names none: ask whoever gave it to you" in card
    assert "license: other" in card
