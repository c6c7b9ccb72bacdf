"""Curate a set out of history: one way for the flow `improve` and for `ratchet curate`.

    curated = curate(store, history, Asked("sft", end=now), known)
    curated.difference_to(latest_set(store, "sft"), home)   # rows added, removed, changed
    curated.required().write(folder)

Nothing is written but history itself and what is derived from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from ratchet.errors import InsufficientDataError
from ratchet.executors import INLINE, Executor
from ratchet.improve.curation.agreement import KeptNeighbours
from ratchet.improve.curation.calls import tools_by_digest
from ratchet.improve.curation.config import (
    GOOD_LABELS,
    ClusterRequest,
    CurationConfig,
    read_demonstrations,
    read_judged,
)
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.dataset import (
    Prepared,
    Requests,
    build,
    choose_any,
    fitting,
    of_words,
    prepare,
    without_leaks,
)
from ratchet.improve.curation.derived import Derived
from ratchet.improve.curation.difference import Difference, compare
from ratchet.improve.curation.funnel import (
    FITTING,
    UNSEEN_BEFORE,
    WITHOUT_CALLS,
    require_both_labels,
    require_enough,
)
from ratchet.improve.curation.pool import Background
from ratchet.improve.curation.rows import RowKind
from ratchet.improve.curation.selection import Selection
from ratchet.improve.curation.stored import stored_traffic
from ratchet.improve.curation.traffic import Texts, Traffic, read_at
from ratchet.outcomes.quality import QualityWeights
from ratchet.records import (
    Cycle,
    ExampleSet,
    HumanLabel,
    TrainingRequest,
    TrainingSet,
)
from ratchet.store import EventStore
from ratchet.store.cycles import cycle_window, held_out_users
from ratchet.store.history import Advanced, History
from ratchet.store.review_labels import NO_OPINION, agreed_labels, human_labels

logger = logging.getLogger(__name__)

MEMORY = "600MB"
"""What DuckDB may take; what does not fit lies in a temporary folder."""
EARLIER_REQUESTS = 2_000


class Sources(BaseModel):
    """Where examples come from besides users.

    Attributes:
        demonstrations: JSON Lines with id, messages and target.
        preferences: JSON Lines of two interactions that a judge compared, in both orders.
        per_cluster: Examples to take first for each failure cluster that the analysis found.
        good_labels: Labels of reviewers that call an answer good; any other calls it bad.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    demonstrations: Path | None = None
    preferences: Path | None = None
    per_cluster: Annotated[int, Field(ge=0)] = 16
    good_labels: tuple[str, ...] = GOOD_LABELS

    @model_validator(mode="before")
    @classmethod
    def _compares_at_any_size(cls, given: object) -> object:
        """Take settings from when users were compared up to a number of interactions."""
        if not isinstance(given, Mapping) or "compare_users" not in given:
            return given
        if given["compare_users"] == 0:
            raise ValueError(
                "compare_users must not be 0: users are compared at any number of interactions; "
                "leave it out, or pass enabled: false in curation.poisoning to believe everybody"
            )
        return {name: value for name, value in given.items() if name != "compare_users"}


class CurateOptions(BaseModel):
    """What is trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: QualityWeights = QualityWeights()
    curation: CurationConfig = CurationConfig()
    sources: Sources = Sources()


@dataclass(frozen=True, slots=True)
class Asked:
    """What set is wanted.

    Attributes:
        kind: The method that it is for.
        end: Until when interactions count at most.
        cycle: The cycle, whose analysis may ask for examples; None without one.
    """

    kind: RowKind
    end: datetime
    options: CurateOptions
    cycle: Cycle | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What other rooms know.

    Attributes:
        judges: Versions of judges that were found usable.
        withheld: Interactions that are flagged as unsafe and that nobody decided about.
        vectors: Returns vectors of prompts, the same for the same texts in any run.
        executor: Signs texts.
    """

    judges: Collection[str]
    withheld: Collection[str]
    vectors: Callable[[Sequence[str]], NDArray[np.float32]]
    executor: Executor = INLINE


@dataclass(frozen=True, slots=True)
class Curated:
    """A set that was curated, and how it came about.

    Attributes:
        prepared: The rows as they would be written; None where there are none.
        refusal: Why it cannot be trained on; None where it can.
    """

    asked: Asked
    derived: Derived
    traffic: Traffic
    selection: Selection
    prepared: Prepared | None
    refusal: InsufficientDataError | None

    def required(self) -> Prepared:
        """Return the set.

        Raises:
            InsufficientDataError: Too little is left to train on.
        """
        if self.refusal is not None:
            raise self.refusal
        assert self.prepared is not None  # enough rows are some rows
        return self.prepared

    def difference_to(self, before: TrainingSet, home: Path) -> Difference:
        """Return what changed since an earlier set of this home.

        Raises:
            InvalidInputError: That set is not on disk any more.
        """
        rows = self.prepared.rows if self.prepared else ()
        period = self.asked.options.curation.period(self.asked.end)
        return compare(
            rows, before, home / before.path, self.derived, self.traffic, self.selection, period
        )


def curate(
    store: EventStore,
    history: History,
    asked: Asked,
    known: Known,
    *,
    neighbours: KeptNeighbours | None = None,
) -> Curated:
    """Curate a set out of everything that is stored up to a time.

    History is brought up to date first, and what is derived of it: a run that was stopped goes on
    where it was.

    Args:
        store: The store.
        history: Its history.
        asked: What is wanted.
        known: What other rooms know.
        neighbours: What earlier runs found of users' agreement.
    """
    derived = bring_up_to_date(store, history)
    config, kind = asked.options.curation, asked.kind
    protected = [e.prompt for found in store.records(ExampleSet) for e in found.examples]
    context = _context(store, asked, known, neighbours)
    chosen = config.since is not None or config.until is not None
    traffic = stored_traffic(
        derived, kind, end=asked.end, judges=known.judges, consent=config.consent, context=context,
        period=config.period(asked.end) if chosen else None,
        of=store.origins().in_sql("position", _simulated(asked.cycle)),
    )  # fmt: skip
    logger.info("joined %d interactions; somebody spoke about %d", traffic.size, len(traffic))
    context = replace(context, vectors_of=_vectors_of(traffic.texts, known))
    selection = choose_any(kind, Background(traffic, protected, config, context))
    requests = _asked_for(store, derived, selection)
    built = build(selection, requests, config, asked.cycle.seed if asked.cycle else 0)
    rows = without_leaks(built, protected, config)
    selection = selection.keeping({row.interaction_id for row in rows}, UNSEEN_BEFORE)
    rows = of_words(rows)
    selection = selection.keeping({row.interaction_id for row in rows}, WITHOUT_CALLS)
    rows = fitting(rows, config)
    selection = selection.keeping({row.interaction_id for row in rows}, FITTING)
    prepared, refusal = None, _refusal(selection, config)
    if rows:
        try:
            prepared = prepare(rows, selection, protected, config)
        except InsufficientDataError as error:
            refusal = error
        else:
            selection, refusal = prepared.selection, _refusal(prepared.selection, config)
    return Curated(asked, derived, traffic, selection, prepared, refusal)


def _simulated(cycle: Cycle | None) -> bool | None:
    """Tell whether a set is made of what simulated users did; None: of what the store is about."""
    return None if cycle is None else cycle_window(cycle).simulated


def bring_up_to_date(store: EventStore, history: History) -> Derived:
    """Copy what is new in the store into history, and compute what curation needs of it."""
    new = history.advance(store, progress=_log_copied)
    derived = Derived.open(history)
    files = derived.advance(_log_derived)
    logger.info(
        "history: %d new interactions and %d new events of feedback; %d files derived",
        new.interactions, new.feedback, files,
    )  # fmt: skip
    return derived


def latest_set(store: EventStore, kind: RowKind) -> TrainingSet | None:
    """Return the training set of a kind that was written last."""
    found = [record for record in store.records(TrainingSet) if record.kind == kind]
    return found[-1] if found else None


def _log_copied(copied: Advanced) -> None:
    logger.info("copied %d interactions and %d events", copied.interactions, copied.feedback)


def _log_derived(made: int, files: int) -> None:
    logger.info("derived %d of %d files", made, files)


def _context(
    store: EventStore, asked: Asked, known: Known, neighbours: KeptNeighbours | None
) -> Context:
    """Read from the store what a selection has to know."""
    sources = asked.options.sources
    return Context(
        withheld=known.withheld,
        demonstrations=read_demonstrations(sources.demonstrations)
        if sources.demonstrations
        else (),
        judged=read_judged(sources.preferences) if sources.preferences else (),
        requests=_requests(store, asked.cycle, sources.per_cluster),
        reviewed=_reviewed(store, sources.good_labels),
        neighbours=neighbours,
        weights=asked.options.weights,
        reporting=store.reporting().declared_only(),
        held_out=held_out_users(store),
        definitions=partial(_bodies, store),
        executor=known.executor,
    )


def _reviewed(store: EventStore, good_labels: Collection[str]) -> dict[str, bool]:
    """Return whether people hold each labelled answer to be good, by the label that stands for it.

    Of several dimensions the one that was labelled last counts.
    """
    by_dimension: dict[str, list[HumanLabel]] = {}
    for label in human_labels(store):
        if label.unit == "answer" and label.dimension not in NO_OPINION:
            by_dimension.setdefault(label.dimension, []).append(label)
    latest = sorted(by_dimension.values(), key=lambda labels: labels[-1].created_at)
    return {
        key: agreed.label.casefold() in good_labels
        for labels in latest
        for key, agreed in agreed_labels(labels).items()
    }


def _requests(store: EventStore, cycle: Cycle | None, most: int) -> tuple[ClusterRequest, ...]:
    """Return what the analysis of the cycle asked for, for each cluster that may be trained on."""
    asked = {
        request.cluster_id: request
        for request in store.records(TrainingRequest, latest=EARLIER_REQUESTS)
        if cycle is not None and request.cycle_id == cycle.id
    }
    return tuple(
        ClusterRequest.of(request, most)
        for request in asked.values()
        if most and request.wanted and request.interaction_ids and request.blocked is None
    )


def _vectors_of(texts: Texts, known: Known) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    def vectors_of(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        (prompts,) = read_at(texts, rows, "asked")
        return known.vectors([str(text) for text in prompts])

    return vectors_of


def _asked_for(store: EventStore, derived: Derived, selection: Selection) -> Requests:
    """Return what was asked for the answers of a selection: from the store, else from history."""
    ids = [row.interaction_id for row in selection.rows]
    stored = store.stored_interactions(ids)
    demonstrated = selection.demonstrations
    gone = [key for key in ids if key not in stored and key not in demonstrated]
    found = {**stored, **(derived.history.fetch_interactions(gone) if gone else {})}
    named = {item.tools for item in found.values() if item.tools}
    return Requests(found, tools_by_digest(_bodies(store, named)))


def _bodies(store: EventStore, digests: Collection[str]) -> dict[str, JsonValue]:
    return {key: found.body for key, found in store.definitions(digests).items()}


def _refusal(selection: Selection, config: CurationConfig) -> InsufficientDataError | None:
    try:
        require_both_labels(require_enough(selection, config))
    except InsufficientDataError as error:
        return error
    return None
