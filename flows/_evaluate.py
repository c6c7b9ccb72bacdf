"""The evaluation part of deploy: both models answer the frozen examples, which makes scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.deploy.gate.decision import compare_on_cluster
from ratchet.deploy.gate.policy import GatePolicy
from ratchet.deploy.gate.scores import (
    REGRESSION,
    FloatArray,
    GateScores,
    MetricScores,
    metric_scores,
)
from ratchet.evaluation.answer_scores import score_pairs
from ratchet.evaluation.metrics import constant_answer_rate
from ratchet.evaluation.paired import (
    answer_examples,
    compare,
    decoding_name,
    question_digest,
    questions,
)
from ratchet.flows._runtime import load_model, workspace
from ratchet.judges.judged_win_rate import JudgedWinRate
from ratchet.models import Completion
from ratchet.records import WIN_RATE, ClusterComparison, Example, RegressionSet
from ratchet.store.cycles import example_set


@dataclass(frozen=True, slots=True)
class Answers:
    """One model's answers by what is asked; a question whose answer failed is missing.

    Attributes:
        seconds: How long each took, where that is known: the wall time of its batch.
    """

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


@dataclass(frozen=True, slots=True)
class FrozenSets:
    """What both models answer.

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


@task(name="evaluate", task_run_name="evaluate-{reference}", cache_policy=NO_CACHE)
def evaluate(set_ids: tuple[str, ...], reference: str) -> Answers:
    """Answer the frozen examples with one version; recorded answers are not made again."""
    work = workspace()
    sets = [example_set(work.store, key) for key in set_ids]
    examples = [example for found in sets for example in found.examples]
    longest = max(found.max_new_tokens for found in sets)
    name, decoding = work.tracker.version(reference).digest, decoding_name(longest)
    asked = questions(examples)
    texts = work.store.answers(name, decoding, list(asked))

    def save(fresh: Mapping[str, Completion]) -> None:
        made = {key: completion.text for key, completion in fresh.items()}
        took = {key: completion.latency_seconds for key, completion in fresh.items()}
        work.store.add_answers(name, decoding, made, took)

    if len(texts) < len(asked):
        texts = answer_examples(
            load_model(reference),
            list(asked.values()),
            texts,
            save,
            max_new_tokens=longest,
        )
    seconds = work.store.answer_seconds(name, decoding, list(asked))
    return Answers(texts, seconds)


def gate_scores(
    sets: FrozenSets,
    policy: GatePolicy,
    first: Answers,
    second: Answers,
    judged: JudgedWinRate | None,
) -> GateScores:
    """Score both models' answers by every metric that the policy names."""
    store = workspace().store
    examples = example_set(store, sets.golden).examples
    metrics, names = _scored(examples, policy, first, second, judged)
    parts = [
        example.model_copy(update={"cluster": cluster_name(item)})
        for item in sets.regression
        for example in example_set(store, item.example_set_id).examples
    ]
    clustered, cluster_names = _scored(parts, policy, first, second, judged)
    named = {name: example_set(store, key).examples for name, key in sets.others}
    others = {name: _scored(part, policy, first, second, judged)[0] for name, part in named.items()}
    everything = [*examples, *parts, *(example for part in named.values() for example in part)]
    return GateScores(
        metrics=metrics,
        cluster_names=cluster_names or names,
        identical_outputs=None not in (answered := first.to(everything))
        and answered == second.to(everything),
        sets={**others, REGRESSION: clustered if parts else {}},
        constant_answer_rate=constant_answer_rate([example.target for example in examples]),
    )


def on_clusters(sets: FrozenSets, first: Answers, second: Answers) -> list[ClusterComparison]:
    """Compare both models' answers on the frozen examples of each failure cluster."""
    compared = []
    for regression in sets.regression:
        examples = example_set(workspace().store, regression.example_set_id).examples
        scores = compare(examples, first.by_example(examples), second.by_example(examples))
        compared.append(compare_on_cluster(regression, scores.champion, scores.challenger))
    return compared


def cluster_name(regression: RegressionSet) -> str:
    """Name a failure cluster so that two of one name are told apart."""
    return f"{regression.name} ({regression.id[:8]})"


def pair_scores(
    metrics: Sequence[str],
    examples: Sequence[Example],
    answers: tuple[Answers, Answers],
    judged: JudgedWinRate | None,
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return both models' scores of examples by metric; nan for no score."""
    first, second = answers
    return score_pairs(
        metrics,
        first.to(examples),
        second.to(examples),
        [example.target for example in examples],
        seconds=(first.took(examples), second.took(examples)),
        judged={WIN_RATE: judged.scores(examples)} if judged else {},
    )


def _scored(
    examples: Sequence[Example],
    policy: GatePolicy,
    first: Answers,
    second: Answers,
    judged: JudgedWinRate | None,
) -> tuple[dict[str, MetricScores], tuple[str, ...]]:
    return metric_scores(
        pair_scores(policy.metrics, examples, (first, second), judged),
        users=[example.user_id for example in examples],
        clusters=[example.cluster for example in examples],
    )
