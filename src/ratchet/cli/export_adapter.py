"""What `ratchet export adapter` exports: a version's adapter, its base, card and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from ratchet.cli.saying import say
from ratchet.cli.shared import open_tracker
from ratchet.deploy.adapters import AdapterShelf, candidate_of, place_adapter
from ratchet.errors import InvalidInputError
from ratchet.export.adapter import FoundAdapter
from ratchet.files.text import printable
from ratchet.improve.training.adapter_card import BaseFacts, CardOf
from ratchet.models import prepare_base_model
from ratchet.models.equal_answers import Prompt
from ratchet.operate.base_model import base_of
from ratchet.records import ExampleSet
from ratchet.settings import Settings
from ratchet.store import EVER, EventStore, Window

_LONGEST = 64
"""Most tokens of an answer: where two answers differ, they do so early."""
_SETS = 8


def found_adapter(settings: Settings, store: EventStore, name: str | None) -> FoundAdapter:
    """Find an adapter by its version or folder; the champion's without one.

    Raises:
        InvalidInputError: There is no champion, or the version has no adapter.
        ModelError, TrackingError: It is not there, or not as it was registered.
    """
    folder = Path(name).expanduser() if name else None
    if folder is not None and (folder / "adapter_config.json").exists():
        base = prepare_base_model(settings.base_model, settings.cache, settings.chat_template)
        return _with_prompts(store, folder, base, CardOf(folder.name, BaseFacts.of(base)))
    tracker = open_tracker(settings)
    version = tracker.version(name) if name else tracker.champion()
    if version is None:
        raise InvalidInputError(
            "an export of an adapter needs one, got no champion; name a version or a folder by "
            "--model-version"
        )
    shelf = AdapterShelf(settings.home, settings.adapter_root, settings.backend_adapter_root)
    place = place_adapter(shelf, store, lambda: tracker, version.reference)
    if place is None:
        raise InvalidInputError(
            f"an export of an adapter needs a version with one, got "
            f"{printable(version.reference)}, which is a base model alone; name another one by "
            "--model-version"
        )
    base = base_of(settings, version, place)
    candidate = candidate_of(store, version.reference)
    card = CardOf.stored(store, version.reference, base, candidate)
    return _with_prompts(store, place, base, card)


def _with_prompts(store: EventStore, folder: Path, base: Path, card: CardOf) -> FoundAdapter:
    sets = store.records(ExampleSet, latest=_SETS)
    longest = min(sets[-1].max_new_tokens if sets else _LONGEST, _LONGEST)
    say("an adapter is asked before and after, which takes minutes without a GPU", err=True)

    def prompts(most: int) -> list[Prompt]:
        return list(islice(_prompts(store, sets), most))

    return FoundAdapter(folder, base, card, prompts, longest)


def _prompts(store: EventStore, sets: Sequence[ExampleSet]) -> Iterator[Prompt]:
    """Yield what the gate asked, the latest set first, and then what users asked."""
    seen = set()
    for found in reversed(sets):
        for one in found.examples:
            if one.messages not in seen:
                seen.add(one.messages)
                yield Prompt(one.messages, one.tools)
    for batch in store.iter_interactions(Window(EVER, datetime.now(UTC))):
        for asked in batch:
            if asked.tools is None and asked.messages not in seen:
                seen.add(asked.messages)
                yield Prompt(asked.messages)
