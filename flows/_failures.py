"""The failures part of analyze: find clusters, hand them on, tell people and show them."""

from __future__ import annotations

from functools import partial

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.analyze.failure_rule import FailureRule
from ratchet.analyze.failures.analysis import (
    FailureAnalysis,
    analyze_failures,
    load_encoder,
    previous_clusters,
)
from ratchet.analyze.failures.emerging import cluster_events
from ratchet.analyze.failures.regression_sets import hand_over_all
from ratchet.analyze.failures.titles import give_titles, load_titles
from ratchet.analyze.failures.traffic_sample import freeze_traffic
from ratchet.analyze.window import shown_answers, with_texts
from ratchet.flows._runtime import executor, logger, now, workspace
from ratchet.flows._watch import send_alerts
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import AlertEvent, Cycle, TrainingRequest
from ratchet.review.queue import open_safety_ids
from ratchet.store.history import History


@task(name="find-failures", cache_policy=NO_CACHE)
def find_failures(
    cycle: Cycle, outcomes: Outcomes, weights: QualityWeights, rule: FailureRule
) -> FailureAnalysis:
    """Find where failures pile up, name it, and know again what was there before."""
    work = workspace()
    titles = None
    if work.settings.titles is not None:
        spec = load_titles(work.settings.titles)
        titles = partial(give_titles, spec, cache=work.settings.cache)
    analysis = analyze_failures(
        outcomes,
        quality(outcomes, weights),
        weights,
        rule=rule,
        encoder=load_encoder(work.settings.embedding),
        cache=work.store,
        executor=executor(),
        previous=previous_clusters(work.store, cycle.window_end),
        flagged=open_safety_ids(work.store),
        titles=titles,
        texts=partial(with_texts, work.store),
        shown=partial(shown_answers, work.store),
        rng=np.random.default_rng([cycle.seed, 2]),
        now=cycle.window_end,
    )
    if analysis.result.reason:
        logger.info("no failure clusters: %s", analysis.result.reason)
    if analysis.part:
        logger.warning("%s", analysis.part)
    work.store.append(analysis.known)
    return analysis


@task(name="hand-over-clusters", cache_policy=NO_CACHE)
def hand_over(cycle: Cycle, analysis: FailureAnalysis) -> tuple[TrainingRequest, ...]:
    """Freeze regression sets and ask for training examples; safety goes to people first."""
    requests = hand_over_all(
        workspace().store,
        analysis,
        cycle_id=cycle.id,
        withheld=open_safety_ids(workspace().store),
        history=History.open(workspace().settings.history, of=workspace().store),
        now=now(),
    )
    for request in requests:
        if request.blocked:
            logger.warning("%s: %s", request.name, request.blocked)
    return requests


@task(name="freeze-traffic", cache_policy=NO_CACHE)
def hold_out_traffic(cycle: Cycle, outcomes: Outcomes, weights: QualityWeights, most: int) -> None:
    """Freeze a sample of the cycle's traffic for the gate, before anything is trained on."""
    made = freeze_traffic(
        workspace().store,
        cycle,
        outcomes,
        quality(outcomes, weights).explicit,
        most=most,
        withheld=open_safety_ids(workspace().store),
        history=History.open(workspace().settings.history, of=workspace().store),
        now=now(),
        texts=partial(with_texts, workspace().store),
    )
    logger.info("held out %d examples of traffic", len(made.examples) if made else 0)


@task(name="tell-clusters", cache_policy=NO_CACHE)
def tell_clusters(cycle: Cycle, analysis: FailureAnalysis) -> tuple[AlertEvent, ...]:
    """Open an alert for what emerges, resolve that of what is gone."""
    store = workspace().store
    events = cluster_events(
        analysis.clusters,
        analysis.earlier,
        store.records(AlertEvent, latest=1_000),
        model_version=cycle.champion,
        first_run=analysis.first_run,
        now=now(),
    )
    for event in events:
        store.append(event)
    return events


def run_failures(
    cycle: Cycle, outcomes: Outcomes, weights: QualityWeights, rule: FailureRule
) -> FailureAnalysis:
    """Do all of it but the pictures."""
    analysis = find_failures(cycle, outcomes, weights, rule)
    hand_over(cycle, analysis)
    events = tell_clusters(cycle, analysis)
    if events:
        send_alerts(events)
    return analysis
