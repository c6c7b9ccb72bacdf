"""Right or wrong answers of two models by how many examples there are of each kind."""

from datetime import UTC, datetime

import numpy as np

from ratchet.deploy.gate.decision import Gated, decide
from ratchet.deploy.gate.policy import loop_policy
from ratchet.deploy.gate.scores import REGRESSION, GateScores, metric_scores
from ratchet.tracking import ModelVersion

OLD = ModelVersion("support-router/1", "1", None, "digest-1", None)
NEW = ModelVersion("support-router/2", "2", None, "digest-2", None)
AT = datetime(2026, 11, 24, tzinfo=UTC)
POLICY = loop_policy()


def columns(both=0, only_champion=0, only_challenger=0, neither=0, unscored=0):
    """Return champion's and challenger's scores; what is unscored only the champion answered."""
    kinds = ((1, 1), (1, 0), (0, 1), (0, 0), (1, np.nan))
    counts = (both, only_champion, only_challenger, neither, unscored)
    rows = [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]
    pairs = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def scores(*cells, constant=0.125, identical=False, clusters=None, users=(), **more):
    """Score examples; `clusters` gives the cells of each failure cluster."""
    metrics, names = metric_scores({"exact_match": columns(*cells, **more)}, users=users)
    clustered = {}
    if clusters:
        parts = [columns(*part) for part in clusters.values()]
        named = [name for name, part in zip(clusters, parts, strict=True) for _ in part[0]]
        pair = tuple(np.concatenate([part[place] for part in parts]) for place in (0, 1))
        clustered, names = metric_scores({"exact_match": pair}, clusters=named)
    return GateScores(
        metrics,
        names,
        identical_outputs=identical,
        sets={REGRESSION: clustered},
        constant_answer_rate=constant,
    )


def gated(champion=OLD, challenger=NEW, cycle="c", sets=("e",)):
    """Name what is gated."""
    return Gated(champion, challenger, cycle, tuple(sets))


def decided_on(made, policy=None, *, champion=OLD, challenger=NEW, now=AT, **more):
    """Run the gate of one candidate."""
    return decide(made, policy or POLICY, gated(champion, challenger), now=now, **more)
