"""Training sets from what users showed to be good. See `selection` and `dataset`."""

from ratchet.improve.curation.selection import (
    ROWS_FILE,
    CurationConfig,
    Selected,
    Selection,
    TrainingRow,
    build_rows,
    frame,
    read_rows,
    select,
    write_training_set,
)

__all__ = [
    "ROWS_FILE",
    "CurationConfig",
    "Selected",
    "Selection",
    "TrainingRow",
    "build_rows",
    "frame",
    "read_rows",
    "select",
    "write_training_set",
]
