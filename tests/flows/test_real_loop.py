"""Whole loops at full size on the real model; slow, about ten minutes on two cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ratchet.demo.plan import DemoOptions
from ratchet.records import Decision, Release
from ratchet.servers import Servers
from ratchet.settings import load_settings
from ratchet.store import EventStore
from tests.simulated_traffic import record_traffic

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def _environment(home: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "RATCHET_")) or name == "RATCHET_CACHE"
    }
    return kept | {"RATCHET_HOME": str(home)}


def _loop(home: Path, options: dict[str, Any], *, right: float = 0.0) -> None:
    """Record what users asked of the champion, and run one loop about it in a process of its own.

    Args:
        home: The home folder.
        options: Of the loop.
        right: Share of the champion's answers that were right.
    """
    environment, store = _environment(home), _store(home)
    latest = store.latest(Release)
    champion = "support-router/1" if latest is None else latest.champion
    collect = record_traffic(store, home, champion=champion, right=right, **TRAFFIC)
    options = {"collect": collect, **options}
    servers = Servers(settings=load_settings(environment, ROOT), say=print)
    try:
        servers.start_prefect(port=4200, environ=environment)
        assert servers.run(["ratchet.flows.loop", json.dumps(options)]) == 0
    finally:
        servers.stop()


def _store(home: Path) -> EventStore:
    return EventStore.open(f"sqlite:///{home / 'store.db'}")


def test_bank_messages_teach_the_untrained_model_to_route(
    tmp_path: Path, shared_data: Path
) -> None:
    home = tmp_path / "home"
    command = [
        sys.executable, "-m", "ratchet.cli", "demo",
        "--messages", str(shared_data / "banking77" / "train.csv"),
        "--queues", str(ROOT / "notebooks" / "queues" / "banking77.csv"),
    ]  # fmt: skip
    done = subprocess.run(command, env=_environment(home), cwd=ROOT, timeout=3000)
    assert done.returncode == 0
    decision = _store(home).records(Decision)[-1]
    assert decision.examples == DemoOptions().held_out
    assert decision.champion_value <= 0.05
    assert decision.challenger_value >= 0.65
    assert decision.verdict == "promote"


TRAFFIC: dict[str, Any] = {
    "messages_limit": 120,
    "held_out": 120,
    "generated_messages": 800,
    "reactions": {"correction_wrong": 0.9},
}
TRAINED = 0.6
"""What the champion of the first loop gets right, about."""


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose champion is what its first loop trained."""
    home = tmp_path_factory.mktemp("promoted") / "home"
    home.mkdir(mode=0o700)
    _loop(home, {"improve": {"curation": {"maximum_examples": 96}}})
    assert _store(home).records(Release)[-1].action == "promote"
    return home


def test_the_next_cycle_starts_from_the_champion_and_shuffled_labels_are_rejected(
    promoted: Path,
) -> None:
    before, interactions = _store(promoted).records(Release), _interactions(promoted)
    curation = {"maximum_examples": 48, "shuffle_targets": True}
    _loop(promoted, {"improve": {"curation": curation}}, right=TRAINED)
    decision = _store(promoted).records(Decision)[-1]
    assert decision.champion == before[-1].champion
    assert decision.verdict == "reject", decision
    assert _store(promoted).records(Release) == before
    assert _interactions(promoted) == interactions + 120


def _interactions(home: Path) -> int:
    return _store(home).counts()["interactions"]


def test_a_candidate_that_learned_nothing_is_the_same_artefact(promoted: Path) -> None:
    before = _store(promoted).records(Release)
    idle = {"curation": {"maximum_examples": 16}, "finetune": {"learning_rate": 1e-30}}
    _loop(promoted, {"improve": idle}, right=TRAINED)
    decision = _store(promoted).records(Decision)[-1]
    assert decision.champion == before[-1].champion
    assert decision.verdict == "hold"
    assert decision.reasons[0].startswith("same artefact")
    assert _store(promoted).records(Release) == before
