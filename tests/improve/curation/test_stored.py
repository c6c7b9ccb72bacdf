"""Curation from history gives what curation of everything in memory gave, however history grew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ratchet.errors import InsufficientDataError
from ratchet.improve.curation.dataset import choose_among
from ratchet.improve.curation.derived import Derived
from ratchet.improve.curation.pool import Background
from ratchet.improve.curation.stored import stored_traffic
from ratchet.store import EventStore
from ratchet.store.history import History
from tests.golden.make import recorded
from tests.improve.curation.worlds import KINDS, USABLE, fill, summary, vectors, world

GOLDEN = recorded("curation")


@pytest.fixture
def store(tmp_path):
    opened = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def chosen(derived, made, kind):
    """Select out of history."""
    traffic = stored_traffic(
        derived, kind, end=made.end, judges=USABLE, consent=made.config.consent,
        context=made.context,
    )  # fmt: skip

    def vectors_of(rows):
        texts = {}
        for places, (prompts,) in traffic.texts.read(rows, "prompt"):
            texts |= dict(zip(places.tolist(), prompts, strict=True))
        return vectors([texts[place] for place in range(len(rows))])

    context = replace(made.context, vectors_of=vectors_of if made.compare else None)
    return choose_among(kind, Background(traffic, made.protected, made.config, context))


def curated(store, derived, made, kind):
    try:
        return summary(store, made, chosen(derived, made, kind))
    except InsufficientDataError as error:
        return {"refused": str(error)}


@pytest.mark.parametrize("seed", range(24))
def test_history_gives_the_recorded_sets(store, tmp_path, seed):
    made = world(seed)
    fill(store, made.interactions, made.feedback)
    history = History.open(tmp_path / "history")
    history.advance(store)
    derived = Derived.open(history)
    derived.advance()
    for kind in KINDS:
        assert curated(store, derived, made, kind) == GOLDEN[str(seed)][kind]
