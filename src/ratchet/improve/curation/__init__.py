"""Training sets from what users showed to be good.

| step | module |
|---|---|
| what is good: corrections, well-rated answers, judges' and experts' | `selection`, `evidence` |
| liked or not (KTO), better and worse (DPO) | `preferences` |
| duplicates, evaluation sets, trust, length, balance | `pool` and what it calls |
| conversations, redaction, split, card, files | `dataset` |

A name is imported when it is first asked for: training needs the rows alone, not the store.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratchet.improve.curation.config import (
        ClusterRequest,
        CurationConfig,
        Demonstration,
        JudgedPair,
        read_demonstrations,
        read_judged,
    )
    from ratchet.improve.curation.consent import refused
    from ratchet.improve.curation.dataset import (
        ROWS_FILE,
        build,
        build_labelled,
        build_pairs,
        build_rows,
        frame,
        read_any_rows,
        read_rows,
        without_leaks,
        write_training_set,
    )
    from ratchet.improve.curation.pool import Context
    from ratchet.improve.curation.preferences import choose, select_labelled, select_pairs
    from ratchet.improve.curation.rows import (
        LabelledRow,
        PreferenceRow,
        TrainingRow,
        for_trainer,
        row_of,
    )
    from ratchet.improve.curation.selection import Selected, Selection, select

__all__ = [
    "ROWS_FILE",
    "ClusterRequest",
    "Context",
    "CurationConfig",
    "Demonstration",
    "JudgedPair",
    "LabelledRow",
    "PreferenceRow",
    "Selected",
    "Selection",
    "TrainingRow",
    "build",
    "build_labelled",
    "build_pairs",
    "build_rows",
    "choose",
    "for_trainer",
    "frame",
    "read_any_rows",
    "read_demonstrations",
    "read_judged",
    "read_rows",
    "refused",
    "row_of",
    "select",
    "select_labelled",
    "select_pairs",
    "without_leaks",
    "write_training_set",
]

_HOMES = {
    "config": (
        "ClusterRequest",
        "CurationConfig",
        "Demonstration",
        "JudgedPair",
        "read_demonstrations",
        "read_judged",
    ),
    "consent": ("refused",),
    "dataset": (
        "ROWS_FILE",
        "build",
        "build_labelled",
        "build_pairs",
        "build_rows",
        "frame",
        "read_any_rows",
        "read_rows",
        "without_leaks",
        "write_training_set",
    ),
    "pool": ("Context",),
    "preferences": ("choose", "select_labelled", "select_pairs"),
    "rows": ("LabelledRow", "PreferenceRow", "TrainingRow", "for_trainer", "row_of"),
    "selection": ("Selected", "Selection", "select"),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a name of this package from the module that has it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = found
    return found
