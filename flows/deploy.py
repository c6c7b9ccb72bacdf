"""Deploy: champion and challenger on the same held-out examples, a decision, and its execution."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from ratchet.analyze.failures.traffic_sample import TRAFFIC, traffic_set
from ratchet.deploy.approval import expire, waiting_decisions, waits_for_person
from ratchet.deploy.gate.answering import AnswerOptions
from ratchet.deploy.gate.decision import Gated, decide, looks_before, stored_decision
from ratchet.deploy.gate.head_to_head import (
    FrozenSets,
    Pair,
    check_examples,
    compare_clusters,
    score_answers,
)
from ratchet.deploy.gate.policy import ApprovalRule, GatePolicy, policy_for_loop
from ratchet.deploy.promotion import apply_decision
from ratchet.errors import WaitingError
from ratchet.evaluation.example_files import read_examples
from ratchet.flows._canary import start
from ratchet.flows._cards import publish_card
from ratchet.flows._evaluate import evaluate
from ratchet.flows._gate_report import publish
from ratchet.flows._runtime import logger, now, workspace
from ratchet.flows._waiting import or_waiting
from ratchet.flows._win_rate import WinRateOptions, await_judges, checked_judge, judge_pairs
from ratchet.flows.approve import ask
from ratchet.golden.versions import decision_note, golden_of
from ratchet.judges.judged_win_rate import JudgedWinRate
from ratchet.judges.usable import usable_judges
from ratchet.records import Candidate, Cycle, Decision, RegressionSet, Release, RolloutPlan
from ratchet.store.cycles import (
    end_cycle,
    example_set,
    freeze_examples,
    latest_cycle,
    sole_loop,
)
from ratchet.store.waits import keep_wait, latest_wait

MOST_SETS = 20
"""So many failure clusters are compared on, the latest ones."""


class DeployOptions(BaseModel):
    """What a challenger must show.

    Attributes:
        policy: The gate's rules, the YAML file that holds them, or `open-ended`. Left out, the
            loop's own, and `open-ended` where no example has a target or tests.
        approval: When a person must approve a promotion; left out, as the policy says.
        sets: Files of further examples by the name that guardrails use, such as `safety`. The
            cycle's held-out traffic, where analyze froze some, is `traffic`.
        rollout: How a challenger that passes is rolled out to users, by stages; without it the
            challenger is the champion at once.
        answers: Who answers the examples, and how: as users are answered, where nothing is said.
        win_rate: How judge and people compare the answers, where the policy names `win_rate`.
        end_cycle: Whether the cycle ends here; the loop ends it itself, after its report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: GatePolicy | Path | None = None
    approval: ApprovalRule | None = None
    sets: dict[str, Path] = {}
    rollout: RolloutPlan | None = None
    answers: AnswerOptions = AnswerOptions()
    win_rate: WinRateOptions = WinRateOptions()
    end_cycle: bool = True


DEFAULTS = DeployOptions()


@task(name="freeze-sets", cache_policy=NO_CACHE)
def frozen_sets(cycle: Cycle, options: DeployOptions) -> FrozenSets:
    """Return the ids of everything that both models answer."""
    store = workspace().store
    named = tuple(
        (name, freeze_examples(store, name, read_examples(path), now()).id)
        for name, path in sorted(options.sets.items())
    )
    traffic = traffic_set(store, cycle)
    if traffic is not None and TRAFFIC not in options.sets:
        named = (*named, (TRAFFIC, traffic.id))
    since = store.origins().found_since  # what was frozen before is of simulated users
    clusters = store.records(RegressionSet, latest=MOST_SETS, since=since)
    return FrozenSets(golden=cycle.example_set_id, regression=clusters, others=named)


@task(cache_policy=NO_CACHE)
def gate(
    cycle: Cycle,
    challenger: str,
    policy: GatePolicy,
    sets: FrozenSets,
    answers: Pair,
    rollout: RolloutPlan | None,
    judged: JudgedWinRate | None,
) -> Decision:
    """Decide once and store the decision; asked again, return what was decided."""
    work = workspace()
    gated = Gated(
        champion=work.tracker.version(cycle.champion),
        challenger=work.tracker.version(challenger),
        cycle_id=cycle.id,
        example_set_ids=sets.ids,
    )
    stored = stored_decision(work.store, policy, gated)
    if stored is not None:
        logger.info("this candidate was decided on before: %s", stored.verdict)
        return stored
    examples = sets.read(work.store)
    decision = decide(
        score_answers(examples, policy, answers, judged),
        policy,
        gated,
        now=now(),
        clusters=compare_clusters(examples, answers),
        earlier=looks_before(work.store, policy, gated),
        usable_judges=usable_judges(work.store),
    )
    named = decision_note(work.store, sets.golden)
    notes = (*decision.notes, *(judged.notes if judged else ()), *named)
    decision = decision.model_copy(update={"rollout": rollout, "notes": notes})
    work.store.append(decision)
    return decision


@task(name="act-on-decision", cache_policy=NO_CACHE)
def act(decision: Decision) -> Release | None:
    """Move the aliases where the decision says so, once."""
    work = workspace()
    release = apply_decision(work.store, work.tracker, decision, now(), answering=work.answering)
    logger.info("%s: %s", decision.verdict, "; ".join(decision.reasons))
    return release


@flow(name="deploy", flow_run_name="gate the latest candidate", validate_parameters=True)
def deploy(options: DeployOptions = DEFAULTS) -> str | State[str]:
    """Gate the latest candidate against the champion and return the decision's id.

    Where people have yet to label something the run ends waiting; the next one goes on.
    """
    with sole_loop(workspace().store):
        return or_waiting(partial(_deploy, options))


def _deploy(options: DeployOptions) -> str:
    store = workspace().store
    cycle = latest_cycle(store)
    golden = example_set(store, cycle.example_set_id).examples
    version = golden_of(store, cycle.example_set_id)
    metric = version.metric if version else None
    policy = policy_for_loop(options.policy, golden, options.approval, metric)
    judge = checked_judge(policy, options.win_rate)
    candidate = store.latest(Candidate)
    if candidate is None or candidate.cycle_id != cycle.id:
        raise WaitingError(
            f"the gate needs a candidate of cycle {cycle.number}, got none; run improve first",
            "candidate",
        )
    for waiting in waiting_decisions(store):
        expire(store, waiting, now())
    challenger = candidate.reference
    sets = frozen_sets(cycle, options)
    check_examples(policy, sets.read(store))
    waited = latest_wait(store)
    asks = waited is None or waited.example_set_ids != sets.ids
    asked = options.answers
    champions = evaluate(sets, cycle.champion, policy, cycle, asked, ask=asks)
    answers = champions, evaluate(sets, challenger, policy, cycle, asked, ask=asks)
    try:
        judged = judge_pairs(judge, options.win_rate, sets.golden, answers) if judge else None
        await_judges(policy, judge)
    except WaitingError as error:
        keep_wait(store, cycle, error, sets.ids, now())
        raise
    decision = gate(cycle, challenger, policy, sets, answers, options.rollout, judged)
    act(decision)
    publish_card(candidate)
    start(decision)
    publish(cycle, decision, sets, answers, judged)
    if waits_for_person(store, decision):
        ask(decision)
    if options.end_cycle:
        end_cycle(store, cycle, "finished", now())
    return decision.id
