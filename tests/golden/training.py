"""Training sets from a simulated store, and adapters of the tiny model, for all three methods."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.dataset import (
    build,
    choose,
    read_any_rows,
    without_leaks,
    write_training_set,
)
from ratchet.improve.curation.pool import Context
from ratchet.improve.training.callbacks import Checkpoints
from ratchet.improve.training.config import FinetuneConfig, finetune_key
from ratchet.improve.training.examples import Method
from ratchet.improve.training.finetune import finetune
from ratchet.models import Completion
from ratchet.outcomes.join import Outcomes, join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import digest
from ratchet.simulation.messages import QUEUES, support_messages
from ratchet.simulation.routing import build_examples, record_answers
from ratchet.simulation.users import ReactionRates, plan_traffic
from ratchet.store import EventStore, Window
from tests.conftest import write_tiny_model
from tests.golden.digests import digest_of
from tests.improve.training.cases import made_up
from tests.simulated_traffic import reactions

METHODS: tuple[Method, ...] = ("sft", "kto", "dpo")
START, END = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 9, tzinfo=UTC)
MESSAGES, ANSWERED_RIGHT = 400, 0.6
# Of an adapter's settings those that the project chooses; peft adds more from release to release.
ADAPTER_SETTINGS = (
    "base_model_name_or_path", "bias", "lora_alpha", "lora_dropout", "peft_type", "r",
    "target_modules", "task_type", "use_dora", "use_rslora",
)  # fmt: skip
OTHERS_FORMATS = {"adapter_config.json", "scheduler.json", "trainer_state.json"}
CHECKPOINT_AT = 2  # of four steps


# Training sets ------------------------------------------------------------------------------------


def golden_training_sets() -> dict[str, Any]:
    """Return digests of the sets that are curated from one simulated store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = EventStore.open(f"sqlite:///{folder / 'store.db'}", clock=lambda: END)
        try:
            protected = _simulate(store)
            found = {method: _curated(store, protected, method, folder) for method in METHODS}
        finally:
            store.close()
    return {"config": digest(CurationConfig().model_dump(mode="json")), **found}


def _simulate(store: EventStore) -> list[str]:
    """Fill the store with a week of traffic; return the prompts that no set may hold."""
    rng = np.random.default_rng(7)
    messages = support_messages(rng, MESSAGES)
    visits = plan_traffic(
        messages, traffic_id="golden", users=80, start=START, end=END, rng=np.random.default_rng(8)
    )
    right = rng.random(MESSAGES) < ANSWERED_RIGHT
    others = rng.integers(0, len(QUEUES), MESSAGES)
    answers = [
        Completion(visit.truth if right[place] else QUEUES[others[place]], 0.1)
        for place, visit in enumerate(visits)
    ]
    interactions = record_answers(visits, answers, labels=QUEUES, model_version="support-router/1")
    store.add_interactions(interactions)
    by_id = {interaction.id: interaction for interaction in interactions}
    rates = ReactionRates(thumbs=0.6, stars=0.15)
    store.add_feedback(
        reactions(visits, by_id, rates=rates, labels=QUEUES, seed=9, until=END)
    )  # fmt: skip
    return [example.prompt for example in build_examples(messages[:12], QUEUES)]


def _curated(
    store: EventStore, protected: list[str], method: Method, folder: Path
) -> dict[str, Any]:
    config, weights = CurationConfig(), QualityWeights()
    outcomes = _outcomes(store)
    selection = choose(
        method, outcomes, quality(outcomes, weights), protected, config,
        context=Context(weights=weights),
    )  # fmt: skip
    stored = store.stored_interactions([row.interaction_id for row in selection.rows])
    rows = without_leaks(build(selection, stored, config, 0), protected, config)
    made = write_training_set(
        rows, selection, protected, home=folder, cycle_id="golden", now=END, config=config
    )
    card = (folder / made.path / "README.md").read_text("utf-8")
    splits = {name: read_any_rows(folder / made.path, name) for name in ("train", "validation")}
    return {
        "digest": made.digest,
        "card": digest_of(card),
        "rows_on_disk": digest_of({k: [row.canonical() for row in v] for k, v in splits.items()}),
        "files": sorted(path.name for path in (folder / made.path).iterdir()),
        "record": made.canonical(),
    }


def _outcomes(store: EventStore) -> Outcomes:
    window = Window(START, END)
    return join_feedback(store.interactions(window), store.feedback(window))


# Adapters -----------------------------------------------------------------------------------------


def golden_adapters() -> dict[str, Any]:
    """Return what training the tiny model for four steps gives, by method.

    Weights differ in their last digits from one processor to another, so that their norms are
    kept, not their digests.
    """
    with tempfile.TemporaryDirectory() as name, _one_thread():
        base = Path(name) / "tiny-model"
        base.mkdir()
        write_tiny_model(base)
        return {method: _trained(method, base, Path(name) / method) for method in METHODS}


def config_of(method: Method) -> FinetuneConfig:
    """Return the settings that the golden adapters are trained with."""
    return FinetuneConfig(
        method=method, rank=8, alpha=16, epochs=2.0, learning_rate=1e-2, warmup_steps=0,
        precision="float32",
    )  # fmt: skip


def _trained(method: Method, base: Path, home: Path) -> dict[str, Any]:
    config, seen = config_of(method), {}

    def look(step: int, numbers: Mapping[str, float]) -> None:
        folder = next(home.glob(f"adapters/*/checkpoint-{CHECKPOINT_AT}"), None)
        if folder is not None and not seen:
            seen.update(_checkpoint(folder))

    result = finetune(
        made_up(method, 16), config, base=base, start_from=None, key="a" * 64, home=home,
        checkpoints=Checkpoints(steps=CHECKPOINT_AT), report=look,
    )  # fmt: skip
    folder = home / result.folder
    tensors = _tensors(folder / "adapter_model.safetensors")
    settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    chosen = {name: settings[name] for name in ADAPTER_SETTINGS}
    chosen["target_modules"] = sorted(chosen["target_modules"])
    return {
        "config_digest": digest(config.model_dump(mode="json")),
        "default_config_digest": digest(FinetuneConfig(method=method).model_dump(mode="json")),
        "key": finetune_key("data", config, "base", None),
        "folder": result.folder,
        "files": sorted(path.name for path in folder.iterdir()),
        "result_keys": sorted(result.model_dump(mode="json")),
        "settings": chosen,
        "names_and_settings": digest_of([sorted(tensors), chosen]),
        "tensors": {
            name: {"shape": list(values.shape), "norm": float(np.linalg.norm(values))}
            for name, values in sorted(tensors.items())
        },
        "losses": list(result.losses),
        "tokens": result.tokens,
        "batch": list(result.batch),
        "checkpoint": seen,
    }


def _checkpoint(folder: Path) -> dict[str, Any]:
    """Return what identifies the format of a checkpoint: files, keys and tensors by name."""
    found: dict[str, Any] = {"files": sorted(path.name for path in folder.iterdir())}
    for path in sorted(folder.glob("*.json")):
        if path.name not in OTHERS_FORMATS:
            found[path.name] = sorted(json.loads(path.read_text("utf-8")))
    for path in sorted(folder.glob("*.safetensors")):
        tensors = _tensors(path)
        shapes = [[name, list(values.shape)] for name, values in sorted(tensors.items())]
        found[path.name] = {"tensors": len(tensors), "names_and_shapes": digest_of(shapes)}
    return found


def _tensors(path: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(path))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, and no threads that wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
