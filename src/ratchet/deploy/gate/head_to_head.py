"""Champion and challenger on the same examples: both answer, every metric scores, a judge compares.

    examples = FrozenSets(golden=set_id).read(store)
    scores = score_answers(examples, policy, (champion_answers, challenger_answers))

The flow `deploy` and the command `ratchet gate` both do it by these functions.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ratchet.deploy.gate.decision import compare_on_cluster
from ratchet.deploy.gate.policy import GatePolicy
from ratchet.deploy.gate.scores import (
    OPTIONAL,
    REGRESSION,
    REQUIRED,
    FloatArray,
    GateScores,
    MetricScores,
    metric_scores,
)
from ratchet.evaluation.answer_scores import score_pairs
from ratchet.evaluation.metrics import constant_answer_rate
from ratchet.evaluation.paired import answer_examples, compare, question_digest, questions
from ratchet.judges.judged_win_rate import JudgedWinRate
from ratchet.judges.prompts import Item
from ratchet.judges.win_rate import pairs_of
from ratchet.models import Completion, LanguageModel
from ratchet.records import WIN_RATE, ClusterComparison, Decision, Example, RegressionSet
from ratchet.store import EventStore
from ratchet.store.cycles import example_set

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answers:
    """One model's answers by the digest of the question; a question whose answer failed is missing.

    Attributes:
        model_digest: Of the model that answered.
        texts: The answers.
        seconds: How long each took, where that is known: the wall time of its batch.
    """

    model_digest: str
    texts: dict[str, str]
    seconds: dict[str, float]

    def to(self, examples: Sequence[Example]) -> list[str | None]:
        """Return the answers to examples, None where there is none."""
        return [self.texts.get(question_digest(example)) for example in examples]

    def by_example(self, examples: Sequence[Example]) -> dict[str, str]:
        """Return the answers that there are by example id."""
        found = zip(examples, self.to(examples), strict=True)
        return {example.id: text for example, text in found if text is not None}

    def took(self, examples: Sequence[Example]) -> list[float | None]:
        """Return the seconds of the answers to examples, None where they are not known."""
        return [self.seconds.get(question_digest(example)) for example in examples]


Pair: TypeAlias = tuple[Answers, Answers]
"""The champion's answers and the challenger's."""


@dataclass(frozen=True, slots=True)
class GateExamples:
    """What both models answer.

    Attributes:
        golden: What the primary metric is measured on.
        clusters: Each failure cluster's regression set with its examples; None where no set of
            examples is to be called `regression`, as for a file of examples.
        others: Further examples by the name that guardrails use, such as `safety`.
        max_new_tokens: Longest answer that any of them asks for.
    """

    golden: tuple[Example, ...]
    clusters: tuple[tuple[RegressionSet, tuple[Example, ...]], ...] | None = None
    others: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    max_new_tokens: int = 0

    @property
    def regression(self) -> tuple[Example, ...]:
        """The examples of all failure clusters, each under its cluster's name."""
        return tuple(
            example.model_copy(update={"cluster": cluster_name(found)})
            for found, examples in self.clusters or ()
            for example in examples
        )

    @property
    def by_set(self) -> tuple[tuple[str, Example], ...]:
        """Every example with the name of its set, the golden ones first."""
        clusters = [(cluster_name(found), examples) for found, examples in self.clusters or ()]
        sets = (("golden", self.golden), *clusters, *self.others.items())
        return tuple((name, example) for name, examples in sets for example in examples)

    @property
    def all(self) -> tuple[Example, ...]:
        """Every example, the golden ones first."""
        return tuple(example for _, example in self.by_set)


@dataclass(frozen=True, slots=True)
class FrozenSets:
    """The frozen sets of examples that both models answer, by their ids.

    Attributes:
        golden: Id of the set that the primary metric is measured on.
        regression: The sets of failure clusters.
        others: Ids of further sets by their names, such as `safety` and `traffic`.
    """

    golden: str
    regression: tuple[RegressionSet, ...] = ()
    others: tuple[tuple[str, str], ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all sets, the golden one first."""
        clusters = tuple(item.example_set_id for item in self.regression)
        return (self.golden, *clusters, *(key for _, key in self.others))

    def read(self, store: EventStore) -> GateExamples:
        """Read the examples of all sets."""
        found = {key: example_set(store, key) for key in self.ids}
        return GateExamples(
            golden=found[self.golden].examples,
            clusters=tuple((item, found[item.example_set_id].examples) for item in self.regression),
            others={name: found[key].examples for name, key in self.others},
            max_new_tokens=max(item.max_new_tokens for item in found.values()),
        )


def cluster_name(regression: RegressionSet) -> str:
    """Name a failure cluster so that two of one name are told apart."""
    return f"{regression.name} ({regression.id[:8]})"


def answer_recorded(
    examples: Sequence[Example],
    load: Callable[[], LanguageModel],
    store: EventStore,
    *,
    name: str,
    model_digest: str,
    decoding: str,
    max_new_tokens: int,
    fresh: bool = False,
) -> Answers:
    """Answer every example; answers that the store has recorded before are not made again.

    Args:
        examples: The examples; what several ask alike is asked once.
        load: Loads the model; called only where an answer is missing.
        store: Keeps each chunk of answers as it comes.
        name: Of the model, for the log.
        model_digest: Of the model; answers are recorded under it.
        decoding: How the model is asked; answers are recorded under it too.
        max_new_tokens: Longest answer.
        fresh: Whether to answer everything anew and record nothing.
    """
    asked = questions(examples)
    keys = list(asked)
    texts = {} if fresh else store.answers(model_digest, decoding, keys)
    seconds = {} if fresh else store.answer_seconds(model_digest, decoding, keys)
    logger.info("%s: %d of %d answers are recorded", name, len(texts), len(asked))

    def save(made: Mapping[str, Completion]) -> None:
        took = {key: completion.latency_seconds for key, completion in made.items()}
        seconds.update(took)
        if not fresh:
            said = {key: completion.text for key, completion in made.items()}
            store.add_answers(model_digest, decoding, said, took)

    if len(texts) < len(asked):
        texts = answer_examples(
            load(), list(asked.values()), texts, save, max_new_tokens=max_new_tokens
        )
    return Answers(model_digest, texts, seconds)


def unanswered(name: str, answers: Answers, examples: Sequence[Example]) -> str | None:
    """Say that a model answered nothing, which is a failed evaluation."""
    if answers.texts:
        return None
    return f"{name} answered none of {len(examples)} examples; is it up?"


def answer_pairs(examples: Sequence[Example], answers: Pair) -> list[Item]:
    """Return what a judge of pairs compares."""
    champion, challenger = (found.by_example(examples) for found in answers)
    return pairs_of(examples, champion, challenger)


def score_answers(
    examples: GateExamples, policy: GatePolicy, answers: Pair, judged: JudgedWinRate | None = None
) -> GateScores:
    """Score both models' answers by every metric that the policy names."""
    metrics, names = _scored(examples.golden, policy, answers, judged)
    sets = {
        name: _scored(part, policy, answers, judged)[0] for name, part in examples.others.items()
    }
    if examples.clusters is not None:
        clustered, cluster_names = _scored(examples.regression, policy, answers, judged)
        sets[REGRESSION] = clustered if examples.regression else {}
        names = cluster_names or names
    champion, challenger = (found.to(examples.all) for found in answers)
    return GateScores(
        metrics=metrics,
        cluster_names=names,
        identical_outputs=None not in champion and champion == challenger,
        sets=sets,
        constant_answer_rate=constant_answer_rate([each.target for each in examples.golden]),
    )


def compare_clusters(examples: GateExamples, answers: Pair) -> list[ClusterComparison]:
    """Compare both models' answers on the examples of each failure cluster."""
    compared = []
    for regression, part in examples.clusters or ():
        champion, challenger = (found.by_example(part) for found in answers)
        scores = compare(part, champion, challenger)
        compared.append(compare_on_cluster(regression, scores.champion, scores.challenger))
    return compared


def pair_scores(
    metrics: Sequence[str],
    examples: Sequence[Example],
    answers: Pair,
    judged: JudgedWinRate | None,
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return both models' scores of examples by metric, shape (n,); nan for no score."""
    champion, challenger = answers
    return score_pairs(
        metrics,
        champion.to(examples),
        challenger.to(examples),
        [example.target for example in examples],
        seconds=(champion.took(examples), challenger.took(examples)),
        judged={WIN_RATE: judged.scores(examples)} if judged else {},
    )


def answer_table(
    decision: Decision, examples: GateExamples, answers: Pair, judged: JudgedWinRate | None
) -> tuple[dict[str, list[object]], FloatArray]:
    """Return a table by example and the golden examples' differences of the primary metric.

    Returns:
        Columns by name, and challenger minus champion, shape (golden examples,).
    """
    champion, challenger = answers
    metrics = list(dict.fromkeys(item.metric for item in decision.measured))
    pairs = pair_scores(metrics, examples.all, answers, judged)
    columns: dict[str, list[object]] = {
        "set": [name for name, _ in examples.by_set],
        "example": [example.id for example in examples.all],
        "message": [example.prompt for example in examples.all],
        "target": [example.target for example in examples.all],
        "champion": list(champion.to(examples.all)),
        "challenger": list(challenger.to(examples.all)),
    }
    for metric, values in pairs.items():
        for who, scored in zip(("champion", "challenger"), values, strict=True):
            numbers = scored.tolist()
            columns[f"{who} {metric}"] = [None if n != n else n for n in numbers]
    before, after = pairs[decision.primary_metric]
    return columns, (after - before)[: len(examples.golden)]


def write_scores(
    path: Path, examples: Sequence[Example], answers: Pair, scores: GateScores
) -> None:
    """Write what was decided on as a file for `ratchet gate --scores`."""
    said = [found.to(examples) for found in answers]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*REQUIRED, *OPTIONAL))
        for metric, found in scores.metrics.items():
            values = zip(found.champion.tolist(), found.challenger.tolist(), strict=True)
            for example, pair, texts in zip(examples, values, zip(*said, strict=True), strict=True):
                numbers = ["" if number != number else repr(number) for number in pair]
                whose = (example.user_id or "", example.cluster or "")
                writer.writerow((example.id, metric, *numbers, *whose, *texts))


def _scored(
    examples: Sequence[Example], policy: GatePolicy, answers: Pair, judged: JudgedWinRate | None
) -> tuple[dict[str, MetricScores], tuple[str, ...]]:
    return metric_scores(
        pair_scores(policy.metrics, examples, answers, judged),
        users=[example.user_id for example in examples],
        clusters=[example.cluster for example in examples],
    )
