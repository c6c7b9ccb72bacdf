"""What curation is told besides interactions and feedback, for the flow `improve`."""

from __future__ import annotations

from ratchet.analyze.failures.embedding import steady_vectors
from ratchet.executors import executor_of
from ratchet.flows._runtime import Workspace
from ratchet.improve.curation.agreement import KeptNeighbours
from ratchet.improve.curation.curating import MEMORY, Asked, CurateOptions, Known, curate
from ratchet.improve.curation.dataset import Prepared
from ratchet.improve.curation.rows import RowKind
from ratchet.judges.usable import usable_versions
from ratchet.records import Cycle
from ratchet.review.queue import open_safety_ids
from ratchet.store.history import History


def curated(work: Workspace, cycle: Cycle, kind: RowKind, options: CurateOptions) -> Prepared:
    """Curate a cycle's set out of everything stored up to the end of its window.

    Raises:
        InsufficientDataError: Too little is left to train on; the error names what was left out.
    """
    known = Known(
        judges=usable_versions(work.store),
        withheld=open_safety_ids(work.store),
        vectors=steady_vectors,
        executor=executor_of(work.settings.executor),
    )
    found = curate(
        work.store,
        History.open(work.settings.history, memory=MEMORY, of=work.store),
        Asked(kind, cycle.window_end, options, cycle),
        known,
        neighbours=KeptNeighbours(work.settings.home.joinpath("neighbours")),
    )
    return found.required()
