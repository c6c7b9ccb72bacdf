"""Training sets from what users showed to be good.

| step | module |
|---|---|
| what is good: corrections, well-rated answers, judges' and experts' | `selection`, `evidence` |
| liked or not (KTO), better and worse (DPO) | `preferences` |
| duplicates, evaluation sets, trust, length, balance | `pool` and what it calls |
| conversations, redaction, split, card, files | `dataset` |

The names are imported when one of them is first asked for: training takes `rows` alone, and runs
where there is no store and no scipy.
"""

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


def __getattr__(name: str) -> object:
    """Import the package's names, and return one of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ratchet.improve.curation import (
        config,
        consent,
        dataset,
        pool,
        preferences,
        rows,
        selection,
    )

    homes = (config, consent, dataset, pool, preferences, rows, selection)
    globals().update(
        {one: getattr(home, one) for home in homes for one in __all__ if hasattr(home, one)}
    )
    return globals()[name]
