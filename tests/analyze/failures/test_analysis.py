"""One analysis of failures: what can be told, names, what is known again, what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from ratchet.analyze.failures.analysis import FailureAnalysis, analyze_failures, load_encoder
from ratchet.analyze.failures.titles import Untitled
from ratchet.errors import ModelError
from ratchet.outcomes.quality import QualityWeights, quality
from tests.outcomes.made_outcomes import outcomes

NOW = datetime(2026, 11, 2, tzinfo=UTC)
TOPICS = {
    "card": ("my card was stolen", "card lost on the train", "somebody took my card"),
    "pin": ("how do I change my pin", "new pin please", "pin forgotten today"),
    "loan": ("what is a loan for a house", "loan rates for a car", "loan to buy a boat"),
}


def traffic(failing: dict[str, float], *, silent: float = 0.0, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(900):
        topic = sorted(TOPICS)[number % 3]
        end = ("now", "again", "hello")[rng.integers(3)]
        text = f"{TOPICS[topic][rng.integers(3)]} {end} {number % 60}"
        row: dict[str, Any] = {
            "prompts": text,
            "responses": f"about {topic}",
            "user_ids": f"u{number % 90}",
            "segments": ("web", "app")[number % 2],
            "model_versions": "m/1",
        }
        if rng.random() >= silent:
            failed = rng.random() < failing.get(topic, 0.05)
            row["thumbs"] = 0.0 if failed else 1.0
            if failed and rng.random() < 0.5:
                row["corrections"] = f"rightly about {topic}"
        rows.append(row)
    return outcomes(rows)


def analyzed(found: Any, **changes: Any) -> FailureAnalysis:
    weights = QualityWeights()
    arguments: dict[str, Any] = {
        "encoder": None,
        "cache": None,
        "previous": None,
        "rng": np.random.default_rng(1),
        "now": NOW,
    }
    return analyze_failures(found, quality(found, weights), weights, **(arguments | changes))


def test_a_failing_topic_is_found_with_whom_it_touches() -> None:
    found = analyzed(traffic({"card": 0.6}))
    assert len(found.clusters) >= 1
    first = found.clusters[0]
    assert "card" in first.name
    assert first.trend == "new"
    assert first.first_seen == NOW
    assert {item.name for item in first.segments} == {"web", "app"}
    assert sum(item.interactions for item in first.versions) == first.interactions
    assert 1 <= (first.users or 0) <= min(90, first.size)


def test_failures_stand_beside_what_is_right() -> None:
    first = analyzed(traffic({"card": 0.6})).clusters[0]
    assert first.beside
    for example in first.beside:
        assert "thumbs down" in example.why
        if example.source == "correction":
            assert example.better == "rightly about card"
            assert example.better_prompt is None
        elif example.source == "similar":
            assert "card" in str(example.better_prompt)
    assert {example.source for example in first.beside} <= {"correction", "similar", None}
    assert len({example.prompt for example in first.beside}) == len(first.beside)


def test_what_cannot_be_told_is_left_out_and_counted() -> None:
    found = analyzed(traffic({"card": 0.6}, silent=0.5))
    assert found.failed.untold + len(found.outcomes) == 900
    assert 350 < found.failed.untold < 550
    # were the untold taken as good, the rate would be near 0.3
    assert found.clusters[0].failure_rate == pytest.approx(0.6, abs=0.12)


def test_a_language_model_names_what_it_can() -> None:
    def titles(groups: Sequence[Untitled]) -> list[str | None]:
        assert all(group.examples for group in groups)
        return ["Stolen cards" if "card" in group.keywords else None for group in groups]

    found = analyzed(traffic({"card": 0.6, "pin": 0.5}), titles=titles)
    names = [cluster.name for cluster in found.clusters]
    assert any(name.startswith("Stolen cards") for name in names)
    assert any("pin" in name for name in names)
    assert len(set(names)) == len(names)
    assert {item.name for item in found.known.clusters} == set(names)


def test_keywords_stand_where_the_model_cannot_be_asked(caplog: pytest.LogCaptureFixture) -> None:
    def titles(groups: Sequence[Untitled]) -> list[str | None]:
        raise ModelError("the endpoint must accept the API key")

    found = analyzed(traffic({"card": 0.6}), titles=titles)
    assert "card" in found.clusters[0].name
    assert "named by their words" in caplog.text


def test_the_next_run_knows_a_cluster_and_says_what_is_gone() -> None:
    first = analyzed(traffic({"card": 0.6, "pin": 0.6}))
    second = analyzed(
        traffic({"card": 0.6}, seed=5), previous=first.known, now=NOW + timedelta(days=1)
    )
    assert (first.first_run, second.first_run) == (True, False)
    before = {cluster.id for cluster in first.clusters if "card" in cluster.name}
    after = {cluster.id for cluster in second.clusters if "card" in cluster.name}
    assert before & after
    pins = {cluster.id for cluster in first.clusters if "pin" in cluster.name}
    assert pins & {item.id for item in second.earlier if item.trend == "gone"}


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_little_is_a_reason_and_no_error(count: int) -> None:
    found = traffic({"card": 0.6}).take(np.arange(count))
    done = analyzed(found)
    assert done.clusters == ()
    assert done.result.reason is not None


def test_an_encoder_that_is_no_folder_is_refused() -> None:
    with pytest.raises(ModelError):
        load_encoder("/nowhere/at/all")
    assert load_encoder("words") is None


# Too many to look at all of them ----------------------------------------------------------------


def test_of_too_many_interactions_a_random_part_is_looked_at_and_the_rest_is_said() -> None:
    everything = traffic({"card": 0.6})
    asked: list[int] = []

    def texts(part: Any) -> Any:
        asked.append(len(part))
        return part

    found = analyzed(everything, most=600, texts=texts)
    assert asked == [600]  # the texts of the others are never read
    assert (len(found.outcomes), found.left_out) == (600, 300)
    assert found.part is not None
    assert found.part.startswith("600 of 900 interactions were looked at, drawn at random")
    assert "card" in found.clusters[0].name
    # the rate stays, whatever part is looked at: three standard errors of 200 messages at 0.6
    assert found.clusters[0].failure_rate == pytest.approx(0.6, abs=3 * (0.24 / 200) ** 0.5)
    rows = list(found.outcomes.interaction_ids)
    turned = analyzed(everything.take(np.arange(900)[::-1]), most=600)
    assert sorted(turned.outcomes.interaction_ids) == sorted(rows)


def test_what_fits_is_looked_at_whole() -> None:
    everything = traffic({"card": 0.6})
    found = analyzed(everything, most=900)
    assert (len(found.outcomes), found.left_out, found.part) == (900, 0, None)
    assert found.clusters == analyzed(everything).clusters


def test_examples_show_answers_as_people_are_shown_them() -> None:
    everything = traffic({"card": 0.6})

    def shown(ids: Any) -> dict[str, str]:
        return {key: f"calls find(id={key!r})" for key in ids}

    found = analyzed(everything, shown=shown)
    examples = [example for cluster in found.clusters for example in cluster.beside]
    assert [one.answer for one in examples] == [
        f"calls find(id={one.interaction_id!r})" for one in examples
    ]
    rated = [
        one for one in examples if one.source == "similar" and one.better != "rightly about card"
    ]
    assert rated
    assert all(str(one.better).startswith("calls find(id=") for one in rated)
    words = [example for cluster in analyzed(everything).clusters for example in cluster.beside]
    assert not any("calls" in example.answer for example in words)


def test_a_correction_that_calls_a_tool_is_shown_as_a_call() -> None:
    given = '<tool_call>\n{"name": "find", "arguments": {"card": "blue"}}\n</tool_call>'
    everything = traffic({"card": 0.6})
    calls = [None if text is None else given for text in everything.corrections]
    found = analyzed(replace(everything, corrections=np.array(calls, dtype=np.object_)))
    examples = [example for cluster in found.clusters for example in cluster.beside]
    corrected = [example.better for example in examples if example.source == "correction"]
    assert set(corrected) == {'calls find(card="blue")'}
    assert not any("<tool_call>" in str(example.better) for example in examples)
