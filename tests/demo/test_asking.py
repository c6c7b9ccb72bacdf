"""The demonstration's users in front of a real gateway with a backend that echoes what they ask."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.demo.asking import Asking
from ratchet.demo.plan import DemoOptions, by_session, plan_visits, read_task, write_examples
from ratchet.errors import RatchetError
from ratchet.evaluation.example_files import read_examples
from ratchet.records.events import ORIGIN, SIMULATED
from ratchet.stats.comparisons.power import paired_rate_power
from tests.gateway.conftest import gateway, mock, serve, settings

__all__ = ["gateway", "mock", "serve", "settings"]
OPTIONS = DemoOptions(
    messages_limit=40, generated_messages=200, held_out=20, users=10, at_once=4,
    reactions={"correction_wrong": 1.0, "correction_error": 0.0},
)  # fmt: skip
TASK, _ = read_task(OPTIONS, datetime.now(UTC))
VISITS = plan_visits(TASK, OPTIONS, 1)


def asking(folder: Path) -> Asking:
    return Asking(folder / "asked.jsonl", OPTIONS, TASK.labels, VISITS)


def test_everybody_asks_once_and_their_feedback_is_in_the_store_as_simulated(
    gateway, tmp_path: Path
) -> None:
    asking(tmp_path).run(gateway.url)
    kept = gateway.interactions()
    assert Counter(item.prompt for item in kept) == Counter(visit.message for visit in VISITS)
    assert {(item.user_id, item.session_id) for item in kept} == {
        (visit.user_id, visit.session_id) for visit in VISITS
    }
    assert {item.metadata[ORIGIN] for item in kept} == {SIMULATED}
    truths = {visit.message: visit.truth for visit in VISITS}
    prompts = {item.id: item.prompt for item in kept}
    rows = gateway.feedback()
    corrected = {row["interaction_id"]: row["text"] for row in rows if row["kind"] == "correction"}
    assert corrected == {key: truths[prompt] for key, prompt in prompts.items()}  # all are echoes
    assert Counter(row["kind"] for row in rows)["copy"] == len(VISITS)
    origins = gateway.store.origins()
    assert (origins.real_since, origins.about_simulated) == (None, True)


def test_messages_of_one_session_come_one_after_the_other(gateway, tmp_path: Path) -> None:
    asking(tmp_path).run(gateway.url)
    sessions: dict[str, list[str]] = {}
    for item in sorted(gateway.interactions(), key=lambda item: item.created_at):
        sessions.setdefault(item.session_id, []).append(item.prompt)
    planned = {group[0].session_id: [one.message for one in group] for group in by_session(VISITS)}
    assert max(map(len, planned.values())) > 1
    assert sessions == planned


def test_stopped_and_started_again_they_go_on_with_what_is_left(gateway, tmp_path: Path) -> None:
    whole = asking(tmp_path)
    whole.run(gateway.url)
    lines = whole.path.read_text("utf-8").splitlines()
    # 30 lines are on the disk, the last of them in part, when the process is killed
    whole.path.write_text("\n".join(lines[:30]) + "\n" + lines[30][:20], "utf-8")
    known = {line for line in lines[:30] if '"answer"' in line}
    again = asking(tmp_path)
    assert not again.is_over
    again.run(gateway.url)
    assert len(gateway.interactions()) == len(VISITS) + len(VISITS) - len(known)
    kinds = Counter(row["kind"] for row in gateway.feedback())
    assert kinds["copy"] == len(VISITS) + len(VISITS) - len(known)  # none twice on one answer
    again.end()
    assert asking(tmp_path).is_over


def test_a_gateway_that_does_not_answer_is_named_after_some_tries(
    gateway, mock, tmp_path: Path
) -> None:
    mock.behaviour = lambda body: 400
    one = Asking(tmp_path / "asked.jsonl", OPTIONS, TASK.labels, VISITS[:2])
    with pytest.raises(
        RatchetError, match=r"got 2 requests that failed, the last with: \d{3} .+; its log is"
    ):
        one.run(gateway.url)


def test_a_real_user_ends_it_and_what_is_simulated_then_is_set_aside(gateway) -> None:
    gateway.ask("simulated", metadata={ORIGIN: SIMULATED})
    gateway.settle()
    assert gateway.store.origins().about_simulated
    gateway.ask("real")
    gateway.settle()
    gateway.ask("simulated again", metadata={ORIGIN: SIMULATED})
    assert [item.prompt for item in gateway.interactions()] == ["real"]
    origins, counts = gateway.store.origins(), gateway.store.counts()
    assert origins.simulated == ((1, 1),)
    assert (counts["interactions"], counts["set_aside"]) == (2, 1)


def test_what_is_held_out_is_the_same_set_from_the_file(tmp_path: Path) -> None:
    path = write_examples(TASK, None, tmp_path)
    assert read_examples(path) == TASK.examples(None)
    assert write_examples(TASK, None, tmp_path) == path
    assert {one.prompt for one in read_examples(path)}.isdisjoint(v.message for v in VISITS)


def test_the_next_cycle_brings_other_messages_and_other_sessions() -> None:
    later = plan_visits(TASK, OPTIONS, 2)
    assert {v.message for v in later}.isdisjoint(v.message for v in VISITS)
    assert {v.session_id for v in later}.isdisjoint(v.session_id for v in VISITS)
    assert plan_visits(TASK, OPTIONS, 1) == VISITS


def test_the_gate_of_the_demonstration_shows_ten_points_in_four_runs_of_five() -> None:
    pairs = DemoOptions().held_out
    assert paired_rate_power(pairs=pairs, discordance=0.3, difference=0.1) >= 0.8
