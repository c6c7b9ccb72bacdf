"""The evaluation part of deploy: both models answer the frozen examples."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows._runtime import load_model, workspace
from ratchet.cycles import example_set
from ratchet.deploy.promotion import compare_on_cluster
from ratchet.evaluation.paired import answer_examples, compare, decoding_name
from ratchet.records import ClusterComparison, RegressionSet


@task(name="evaluate", task_run_name="evaluate-{reference}", cache_policy=NO_CACHE)
def evaluate(set_ids: tuple[str, ...], reference: str) -> dict[str, str]:
    """Answer the held-out examples with one version; recorded answers are not made again."""
    work = workspace()
    sets = [example_set(work.store, key) for key in set_ids]
    examples = [example for found in sets for example in found.examples]
    longest = max(found.max_new_tokens for found in sets)
    name, decoding = work.tracker.version(reference).digest, decoding_name(longest)
    recorded = work.store.answers(name, decoding, [example.id for example in examples])
    if len(recorded) == len(examples):
        return recorded
    return answer_examples(
        load_model(reference),
        examples,
        recorded,
        lambda answers: work.store.add_answers(name, decoding, answers),
        max_new_tokens=longest,
    )


def on_clusters(
    sets: tuple[RegressionSet, ...], first: dict[str, str], second: dict[str, str]
) -> list[ClusterComparison]:
    """Compare both models' answers on the frozen examples of each failure cluster."""
    compared = []
    for regression in sets:
        examples = example_set(workspace().store, regression.example_set_id).examples
        scores = compare(examples, first, second)
        compared.append(compare_on_cluster(regression, scores.champion, scores.challenger))
    return compared
