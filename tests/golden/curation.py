"""What curating random small worlds gave when all of history was read at once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ratchet.store import EventStore
from tests.improve.curation.worlds import KINDS, curated, fill, world

SEEDS = range(24)


def golden_curation() -> dict[str, Any]:
    """Return counts, findings and digests of the sets of each world, by kind."""
    found = {}
    for seed in SEEDS:
        made = world(seed)
        with tempfile.TemporaryDirectory() as folder:
            store = EventStore.open(f"sqlite:///{Path(folder) / 'store.db'}")
            try:
                fill(store, made.interactions, made.feedback)
                found[str(seed)] = {kind: curated(store, made, kind) for kind in KINDS}
            finally:
                store.close()
    return found
