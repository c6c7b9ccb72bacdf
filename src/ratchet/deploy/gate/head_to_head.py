"""Champion and challenger on the same examples: both answer, every metric scores, a judge compares.

    examples = FrozenSets(golden=set_id).read(store)
    scores = score_answers(examples, policy, (champion_answers, challenger_answers))

The flow `deploy` and the command `ratchet gate` both do it by these functions.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ratchet.deploy.gate.decision import compare_on_cluster
from ratchet.deploy.gate.policy import GatePolicy
from ratchet.deploy.gate.scores import (
    REGRESSION,
    REQUIRED,
    GateScores,
    MetricScores,
    metric_scores,
)
from ratchet.evaluation.answer_scores import check_needs, measured_on, score_pairs
from ratchet.evaluation.code_execution import run_programs
from ratchet.evaluation.code_execution.answers import answer_program
from ratchet.evaluation.code_execution.sandbox import Execution, Program, require_isolation
from ratchet.evaluation.metrics import constant_answer_rate, pass_k
from ratchet.evaluation.paired import (
    Draw,
    answer_examples,
    compare,
    decoding_name,
    question_digest,
    questions,
)
from ratchet.files.text import harmless_cell
from ratchet.judges.judged_win_rate import JudgedWinRate
from ratchet.judges.prompts import Item
from ratchet.judges.win_rate import pairs_of
from ratchet.models import Completion, LanguageModel
from ratchet.records import (
    WIN_RATE,
    ClusterComparison,
    Decision,
    Example,
    RegressionSet,
    digest,
)
from ratchet.records.asking import Usage
from ratchet.records.prices import NO_PRICES
from ratchet.stats.arrays import FloatArray
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
        usage: Tokens of each and its request, and what it cost, as far as they are known.
        more: Its further answers to the same questions, where they are sampled.
        executions: How programs of answers and tests ran, by the program's digest.
    """

    model_digest: str
    texts: dict[str, str]
    seconds: dict[str, float]
    usage: dict[str, Usage] = field(default_factory=dict)
    more: tuple[Answers, ...] = ()
    executions: Mapping[str, Execution] = field(default_factory=dict)

    @property
    def every(self) -> tuple[Answers, ...]:
        """The first answers, then the further ones."""
        return (self, *self.more)

    def to(self, examples: Sequence[Example]) -> list[str | None]:
        """Return the answers to examples, None where there is none."""
        return [self.texts.get(question_digest(example)) for example in examples]

    def by_example(self, examples: Sequence[Example]) -> dict[str, str]:
        """Return the answers that there are by example id."""
        answered = zip(examples, self.to(examples), strict=True)
        return {example.id: text for example, text in answered if text is not None}

    def all_to(self, examples: Sequence[Example]) -> list[tuple[str | None, ...]]:
        """Return every answer to each example, None where there is none."""
        return list(zip(*(one.to(examples) for one in self.every), strict=True))

    def runs(self, examples: Sequence[Example]) -> list[list[Execution]]:
        """Return how the answers to each example ran against its tests.

        None where the example has no tests or one of its answers is missing: of the others alone
        pass@k would be too high where a model fails to answer what is hard.
        """
        return [
            []
            if example.tests is None or None in texts or not self.executions
            else [
                self.executions[digest(_program(example, text).text())]
                for text in texts
                if text is not None
            ]
            for example, texts in zip(examples, self.all_to(examples), strict=True)
        ]

    def took(self, examples: Sequence[Example]) -> list[float | None]:
        """Return the seconds of the answers to examples, None where they are not known."""
        return [self.seconds.get(question_digest(example)) for example in examples]

    def used(self, examples: Sequence[Example]) -> list[Usage | None]:
        """Return tokens and cost of the answers to examples, None where they are not known."""
        return [self.usage.get(question_digest(example)) for example in examples]


Pair: TypeAlias = tuple[Answers, Answers]
"""The champion's answers and the challenger's."""


@dataclass(frozen=True, slots=True)
class GateExamples:
    """The examples that both models answer at the gate.

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
            example.model_copy(update={"cluster": cluster_name(cluster)})
            for cluster, examples in self.clusters or ()
            for example in examples
        )

    @property
    def by_set(self) -> tuple[tuple[str, Example], ...]:
        """Every example with the name of its set, the golden ones first."""
        clusters = [(cluster_name(cluster), examples) for cluster, examples in self.clusters or ()]
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
        sets = {key: example_set(store, key) for key in self.ids}
        return GateExamples(
            golden=sets[self.golden].examples,
            clusters=tuple((item, sets[item.example_set_id].examples) for item in self.regression),
            others={name: sets[key].examples for name, key in self.others},
            max_new_tokens=max(item.max_new_tokens for item in sets.values()),
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
    draws: Sequence[Draw | None] = (None,),
    ask: bool = True,
) -> Answers:
    """Answer every example; answers that the store has recorded before are not made again.

    Args:
        examples: The examples; what several ask alike is asked once.
        load: Loads the model; called only where an answer is missing.
        store: Keeps each chunk of answers as it comes.
        name: Of the model, for the log.
        model_digest: Of the model; answers are recorded under it.
        decoding: How the model is asked, greedily; answers are recorded under it too, sampled ones
            under a name of their own.
        max_new_tokens: Longest answer.
        fresh: Whether to answer everything anew and record nothing.
        draws: The answers to make to each question; None is the greedy one.
        ask: Whether answers that are missing are asked for.
    """
    loaded: list[LanguageModel] = []

    def model() -> LanguageModel:
        if not loaded:
            loaded.append(load())
        return loaded[0]

    first, *more = (
        _answer_once(
            examples,
            model,
            None if fresh else store,
            name if draw is None else f"{name}, sample {draw.number + 1} of {len(draws)}",
            model_digest,
            decoding if draw is None else draw.decoding(decoding),
            max_new_tokens,
            draw,
            ask,
        )
        for draw in draws
    )
    return replace(first, more=tuple(more))


def answer_sets(
    examples: GateExamples,
    policy: GatePolicy,
    load: Callable[[bool], LanguageModel],
    store: EventStore,
    *,
    name: str,
    model_digest: str,
    one_line: bool = True,
    way: str = "greedy",
    ask: bool = True,
) -> Answers:
    """Answer every example of all sets, and run the answers of those with tests.

    Code has many lines; every other answer of a local model ends with its first, where that is
    asked for.

    Args:
        examples: The sets.
        policy: Says how often each is answered, and whether tests are run.
        load: Loads the model, given whether its answers end at the first line break.
        store: Keeps each chunk of answers as it comes.
        name: Of the model, for the log.
        model_digest: Of the model.
        one_line: Whether answers without tests end at the first line break.
        way: See `decoding_name`.
        ask: Whether answers that are missing are asked for.
    """
    parts = [
        answer_recorded(
            part,
            partial(load, ends),
            store,
            name=name,
            model_digest=model_digest,
            decoding=decoding_name(examples.max_new_tokens, one_line=ends, way=way),
            max_new_tokens=examples.max_new_tokens,
            draws=policy.draws,
            ask=ask,
        )
        for part, ends in (
            ([example for example in examples.all if example.tests is None], one_line),
            ([example for example in examples.all if example.tests is not None], False),
        )
    ]
    first, *more = (
        Answers(
            model_digest, one.texts | two.texts, one.seconds | two.seconds, one.usage | two.usage
        )
        for one, two in zip(parts[0].every, parts[1].every, strict=True)
    )
    answers = replace(first, more=tuple(more))
    return run_tests(examples.all, answers) if runs_tests(policy) else answers


def _answer_once(
    examples: Sequence[Example],
    load: Callable[[], LanguageModel],
    store: EventStore | None,
    name: str,
    model_digest: str,
    decoding: str,
    max_new_tokens: int,
    draw: Draw | None,
    ask: bool,
) -> Answers:
    """Answer every example once; nothing is recorded without a store."""
    asked = questions(examples)
    keys = list(asked)
    texts = store.answers(model_digest, decoding, keys) if store else {}
    seconds = store.answer_seconds(model_digest, decoding, keys) if store else {}
    usage = store.answer_usage(model_digest, decoding, keys) if store else {}
    prices = store.prices if store else NO_PRICES
    logger.info("%s: %d of %d answers are recorded", name, len(texts), len(asked))

    def save(made: Mapping[str, Completion]) -> None:
        took = {key: completion.latency_seconds for key, completion in made.items()}
        seconds.update(took)
        used = {key: one.usage for key, one in made.items() if one.usage is not None}
        usage.update(used)
        if store:
            answered = {key: completion.text for key, completion in made.items()}
            store.add_answers(model_digest, decoding, answered, took, used)

    if ask and len(texts) < len(asked):
        texts = answer_examples(
            load(),
            list(asked.values()),
            texts,
            save,
            max_new_tokens=max_new_tokens,
            draw=draw,
            name=name,
        )
    paid = {
        key: one.model_copy(update={"cost": prices.cost(name, one)}) for key, one in usage.items()
    }
    return Answers(model_digest, texts, seconds, paid)


def check_examples(policy: GatePolicy, examples: GateExamples) -> None:
    """Refuse what cannot be scored, before anything is answered.

    The primary metric is measured on every example. Any other one that needs a target is measured
    on the examples that have one, so that open questions may stand beside others.

    Raises:
        InvalidInputError: A metric needs tests or targets that examples do not have.
        IsolationError: A metric runs code, and this machine does not isolate it.
    """
    check_needs(policy.primary.metric, "", examples.golden, of_all=True)
    for metric in policy.secondary:
        check_needs(metric, "", examples.golden)
    for rule in policy.guardrails:
        if rule.examples is not None:
            part: Sequence[Example] = examples.others.get(rule.examples, ())
        else:
            on_clusters = rule.per_cluster and examples.clusters is not None
            part = examples.regression if on_clusters else examples.golden
        check_needs(rule.metric, f" of {rule.examples}" if rule.examples else "", part)
    if runs_tests(policy):
        require_isolation()


def runs_tests(policy: GatePolicy) -> bool:
    """Tell whether a metric of a policy runs the answers' code."""
    return any(pass_k(metric) is not None for metric in policy.metrics)


def run_tests(examples: Sequence[Example], answers: Answers) -> Answers:
    """Run every answer to an example with tests against them, each in a box of its own.

    Raises:
        IsolationError: The machine does not isolate; nothing was run.
    """
    programs = {
        digest(program.text()): program
        for example, texts in zip(examples, answers.all_to(examples), strict=True)
        if example.tests is not None
        for text in texts
        if text is not None
        for program in [_program(example, text)]
    }
    logger.info("running %d programs of %s's answers", len(programs), answers.model_digest[:12])
    ran = run_programs(list(programs.values()))
    return replace(answers, executions=dict(zip(programs, ran, strict=True)))


def _program(example: Example, answer: str) -> Program:
    return answer_program(
        answer, example.tests or "", prompt=example.prompt, entry_point=example.entry_point
    )


def answer_pairs(examples: Sequence[Example], answers: Pair) -> list[Item]:
    """Return what a judge of pairs compares."""
    champion, challenger = (model_answers.by_example(examples) for model_answers in answers)
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
        regression = examples.regression
        clustered, cluster_names = _scored(regression, policy, answers, judged)
        sets[REGRESSION] = clustered if regression else {}
        names = cluster_names or names
    champion, challenger = (model_answers.all_to(examples.all) for model_answers in answers)
    targets = [example.right_answer for example in examples.golden]
    known = [target for target in targets if target is not None]
    has_constant = len(known) == len(targets) and pass_k(policy.primary.metric) is None
    return GateScores(
        metrics=metrics,
        cluster_names=names,
        identical_outputs=champion == challenger and not any(None in texts for texts in champion),
        sets=sets,
        constant_answer_rate=constant_answer_rate(known) if has_constant else None,
    )


def compare_clusters(examples: GateExamples, answers: Pair) -> list[ClusterComparison]:
    """Compare both models' answers on the examples of each failure cluster."""
    compared = []
    for regression, part in examples.clusters or ():
        champion, challenger = (model_answers.by_example(part) for model_answers in answers)
        scores = compare(part, champion, challenger)
        compared.append(compare_on_cluster(regression, scores.champion, scores.challenger))
    return compared


def pair_scores(
    metrics: Sequence[str],
    examples: Sequence[Example],
    answers: Pair,
    judged: JudgedWinRate | None,
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return both models' scores of examples by metric, shape (n,); nan for no score.

    Of several sampled answers the score is their mean, nan where one has none. `pass@k` is one
    number of all of them, and a judge compares the first ones.
    """
    champion, challenger = answers
    runs = (champion.runs(examples), challenger.runs(examples))
    drawn = [
        score_pairs(
            metrics,
            one.to(examples),
            two.to(examples),
            [example.right_answer for example in examples],
            seconds=(one.took(examples), two.took(examples)),
            usage=(one.used(examples), two.used(examples)),
            executions=runs,
            judged={WIN_RATE: judged.scores(examples)} if judged else {},
            asked=examples,
        )
        for one, two in zip(champion.every, challenger.every, strict=True)
    ]
    if len(drawn) == 1:
        return drawn[0]
    whole = {metric for metric in metrics if metric == WIN_RATE or pass_k(metric) is not None}
    return {
        metric: drawn[0][metric]
        if metric in whole
        else (
            np.mean([pairs[metric][0] for pairs in drawn], axis=0),
            np.mean([pairs[metric][1] for pairs in drawn], axis=0),
        )
        for metric in metrics
    }


def answer_table(
    decision: Decision, examples: GateExamples, answers: Pair, judged: JudgedWinRate | None
) -> tuple[dict[str, list[object]], FloatArray]:
    """Return a table by example and the golden examples' differences of the primary metric.

    Returns:
        Columns by name, and challenger minus champion, shape (golden examples,).
    """
    champion, challenger = answers
    rows = examples.by_set
    asked = [example for _, example in rows]
    metrics = list(dict.fromkeys(item.metric for item in decision.measured))
    pairs = pair_scores(metrics, asked, answers, judged)
    columns: dict[str, list[object]] = {
        "set": [name for name, _ in rows],
        "example": [example.id for example in asked],
        "message": [example.prompt for example in asked],
        "target": [example.target for example in asked],
        "champion": list(champion.to(asked)),
        "challenger": list(challenger.to(asked)),
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
    outputs = [[_written(texts) for texts in one.all_to(examples)] for one in answers]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*REQUIRED, "user_id", "cluster", "champion_output", "challenger_output"))
        for metric, part in scores.metrics.items():
            columns = (part.champion.tolist(), part.challenger.tolist())
            rows = compress(zip(examples, *outputs, strict=True), measured_on(metric, examples))
            for (example, first, second), *pair in zip(rows, *columns, strict=True):
                numbers = ["" if number != number else repr(number) for number in pair]
                whose = (example.user_id or "", example.cluster or "")
                texts = [harmless_cell(text or "") for text in (*whose, first, second)]
                row = (harmless_cell(example.id), harmless_cell(metric), *numbers, *texts)
                writer.writerow(row)


def _written(texts: tuple[str | None, ...]) -> str | None:
    """One answer as it is, several as JSON; None where one is missing."""
    if len(texts) == 1:
        return texts[0]
    return None if None in texts else json.dumps(texts, ensure_ascii=False)


def _scored(
    examples: Sequence[Example], policy: GatePolicy, answers: Pair, judged: JudgedWinRate | None
) -> tuple[dict[str, MetricScores], tuple[str, ...]]:
    scored, names = metric_scores(
        pair_scores(policy.metrics, examples, answers, judged),
        users=[example.user_id for example in examples],
        clusters=[example.cluster for example in examples],
    )
    measured = {
        metric: part.take(np.array(measured_on(metric, examples), dtype=np.bool_))
        for metric, part in scored.items()
    }
    return measured, names
