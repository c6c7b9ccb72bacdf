"""What the gate leaves in MLflow and Prefect: the decision, its evidence, tables and plots."""

from __future__ import annotations

import json

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.deploy.gate.head_to_head import FrozenSets, Pair, answer_table
from ratchet.flows._links import link_run
from ratchet.flows._runtime import cycle_run, publish_figure, publish_text, workspace
from ratchet.judges.judged_win_rate import JudgedWinRate
from ratchet.records import Cycle, Decision
from ratchet.views import plots
from ratchet.views.text.gate import decision_markdown


@task(name="publish-decision", cache_policy=NO_CACHE)
def publish(
    cycle: Cycle,
    decision: Decision,
    sets: FrozenSets,
    answers: Pair,
    judged: JudgedWinRate | None,
) -> None:
    """Put the decision, its plots and every answer with its scores into MLflow and Prefect."""
    with cycle_run(cycle, "deploy", decision.id) as run:
        run.tags({"ratchet.verdict": decision.verdict, "ratchet.decision": decision.id})
        run.params({"champion": decision.champion, "challenger": decision.challenger})
        run.params({"policy.primary": decision.primary_metric, "policy.level": decision.level})
        run.metrics(_numbers(decision))
        run.text(decision_markdown(decision), "decision.md")
        run.text(json.dumps(decision.canonical(), indent=2), "decision.json")
        run.text(json.dumps(decision.policy, indent=2), "policy.json")
        if judged is not None:
            run.text(json.dumps(judged.as_json(), indent=2), "win-rate.json")
        examples = sets.read(workspace().store)
        table, differences = answer_table(decision, examples, answers, judged)
        run.table(table, "answers.json")
        if decision.clusters:
            clusters = [item.canonical() for item in decision.clusters]
            run.table(
                {name: [row[name] for row in clusters] for name in clusters[0]}, "clusters.json"
            )
        publish_figure(run, "gate", plots.gate_figure(decision), "The gate's evidence")
        if decision.measured:
            figure = plots.metric_margins(decision)
            publish_figure(run, "gate-metrics", figure, "Every metric beside its margin")
        if decision.difference is not None:
            figure = plots.paired_differences(differences, decision)
            publish_figure(run, "gate-differences", figure, "Example by example")
        if decision.clusters:
            figure = plots.wins_by_cluster(decision.clusters)
            publish_figure(run, "gate-clusters", figure, "Wins and losses by failure cluster")
        text = f"{decision_markdown(decision)}\n\n{link_run(run)}"
        tracker = workspace().tracker
        tracker.tag_version(decision.challenger, {"ratchet.gate_run": run.run_id})
        made = tracker.version(decision.challenger)
        run.evaluated(made.model_id, _numbers(decision), decision.example_set_id)
    publish_text("decision", text, f"Decision on {decision.challenger}")


def _numbers(decision: Decision) -> dict[str, float]:
    """What MLflow plots over runs; what is not known is left out."""
    low, high = decision.interval or (None, None)
    name = decision.primary_metric
    numbers = {
        f"champion_{name}": decision.champion_value,
        f"challenger_{name}": decision.challenger_value,
        "difference": decision.difference,
        "difference_lower": low,
        "difference_upper": high,
        "p_value": decision.p_value,
        "examples": float(decision.examples),
    }
    return {key: value for key, value in numbers.items() if value is not None}
