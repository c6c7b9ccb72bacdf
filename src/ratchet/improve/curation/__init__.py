"""Training sets from what users showed to be good.

| step | module |
|---|---|
| what is good: corrections, well-rated answers, judges' and experts' | `selection`, `evidence` |
| liked or not (KTO), better and worse (DPO) | `preferences` |
| duplicates, evaluation sets, trust, length, balance | `pool` and what it calls |
| conversations, redaction, split, card, files | `dataset` |
"""

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
    "refused",
    "row_of",
    "select",
    "select_labelled",
    "select_pairs",
    "without_leaks",
    "write_training_set",
]
