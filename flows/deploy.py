"""Deploy: champion and challenger on the same held-out examples, a decision, and its execution."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from flows._canary import start
from flows._evaluate import evaluate, on_clusters
from flows._runtime import (
    cycle_run,
    logger,
    now,
    publish_figure,
    publish_text,
    workspace,
)
from ratchet import plots
from ratchet.cycles import end_cycle, example_set, latest_cycle, sole_loop
from ratchet.deploy.promotion import (
    PairedScores,
    Policy,
    apply_decision,
    decide,
    decision_id,
)
from ratchet.errors import InsufficientDataError
from ratchet.evaluation.metrics import constant_answer_rate
from ratchet.evaluation.paired import compare
from ratchet.records import (
    Candidate,
    Cycle,
    Decision,
    RegressionSet,
    Release,
    RolloutPlan,
)
from ratchet.report import decision_markdown

MOST_SETS = 20
"""So many failure clusters are compared on, the latest ones."""


class DeployOptions(BaseModel):
    """What a challenger must show.

    Attributes:
        policy: The gate's rules.
        rollout: How a challenger that passes is rolled out to users, by stages; without it the
            challenger is the champion at once.
        end_cycle: Whether the cycle ends here; the loop ends it itself, after its report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Policy = Policy()
    rollout: RolloutPlan | None = None
    end_cycle: bool = True


DEFAULTS = DeployOptions()


@task(cache_policy=NO_CACHE)
def gate(
    cycle: Cycle,
    challenger: str,
    policy: Policy,
    champion_answers: dict[str, str],
    challenger_answers: dict[str, str],
    sets: tuple[RegressionSet, ...],
) -> Decision:
    """Decide once and store the decision; asked again, return what was decided."""
    work = workspace()
    old, new = work.tracker.version(cycle.champion), work.tracker.version(challenger)
    key = decision_id(policy, old, new, cycle.id, cycle.example_set_id)
    stored = work.store.get(Decision, key)
    if stored is not None:
        logger.info("this gate was decided before: %s", stored.verdict)
        return stored
    examples = example_set(work.store, cycle.example_set_id).examples
    compared = compare(examples, champion_answers, challenger_answers)
    decision = decide(
        PairedScores(
            champion=compared.champion,
            challenger=compared.challenger,
            identical_outputs=compared.identical_outputs,
            constant_answer_rate=constant_answer_rate([example.target for example in examples]),
        ),
        policy,
        champion=old,
        challenger=new,
        cycle_id=cycle.id,
        example_set_id=cycle.example_set_id,
        now=now(),
        clusters=on_clusters(sets, champion_answers, challenger_answers),
    )
    work.store.append(decision)
    return decision


@task(name="act-on-decision", cache_policy=NO_CACHE)
def act(decision: Decision) -> Release | None:
    """Move the aliases where the decision says so, once."""
    work = workspace()
    release = apply_decision(work.store, work.tracker, decision, now())
    logger.info("%s: %s", decision.verdict, "; ".join(decision.reasons))
    return release


@task(name="publish-decision", cache_policy=NO_CACHE)
def publish(
    cycle: Cycle, decision: Decision, first: dict[str, str], second: dict[str, str]
) -> None:
    """Put the decision, its plot and every answer into MLflow and Prefect."""
    work = workspace()
    examples = example_set(work.store, cycle.example_set_id).examples
    with cycle_run(cycle, "deploy", decision.id) as run:
        run.tags({"ratchet.verdict": decision.verdict})
        run.params({"champion": decision.champion, "challenger": decision.challenger})
        run.params(decision.policy)
        run.metrics(
            {
                "champion_exact_match": decision.champion_value,
                "challenger_exact_match": decision.challenger_value,
                "difference": decision.difference,
                "difference_lower": decision.interval[0],
                "difference_upper": decision.interval[1],
                "p_value": decision.p_value,
            }
        )
        run.text(decision_markdown(decision), "decision.md")
        run.table(
            {
                "message": [example.prompt for example in examples],
                "target": [example.target for example in examples],
                "champion": [first.get(example.id) for example in examples],
                "challenger": [second.get(example.id) for example in examples],
            },
            "answers.json",
        )
        publish_figure(run, "gate", plots.gate_figure(decision), "The gate's evidence")
    publish_text("decision", decision_markdown(decision), f"Decision on {decision.challenger}")


@flow(name="deploy", validate_parameters=True)
def deploy(options: DeployOptions = DEFAULTS) -> str:
    """Gate the latest candidate against the champion and return the decision's id."""
    with sole_loop(workspace().settings.home):
        return _deploy(options)


def _deploy(options: DeployOptions) -> str:
    store = workspace().store
    cycle = latest_cycle(store)
    candidate = store.latest(Candidate)
    if candidate is None or candidate.cycle_id != cycle.id:
        raise InsufficientDataError(
            f"the gate needs a candidate of cycle {cycle.number}, got none; run improve first"
        )
    challenger = f"{candidate.model_name}/{candidate.version}"
    sets = store.records(RegressionSet, latest=MOST_SETS)
    set_ids = (cycle.example_set_id, *(item.example_set_id for item in sets))
    first = evaluate(set_ids, cycle.champion)
    second = evaluate(set_ids, challenger)
    decision = gate(cycle, challenger, options.policy, first, second, sets)
    if options.rollout is None:
        act(decision)
    else:
        start(decision, options.rollout)
    publish(cycle, decision, first, second)
    if options.end_cycle:
        end_cycle(store, cycle, "finished", now())
    return decision.id
