"""What `/metrics` of the pages tells Prometheus: how the model does, read from the store.

Alerts, evidence of boards, the rollout, what waits and the figures of the last analysis. What each
gateway does it tells by its own `/metrics` (`ratchet.gateway.metrics`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from typing import get_args

from fastapi import FastAPI, Request, Response
from prometheus_client.core import GaugeMetricFamily, Metric

from ratchet.analyze.monitoring.board import evidence_of
from ratchet.gateway.access import WrongKeys, identify
from ratchet.gateway.metrics import CONTENT_TYPE, told
from ratchet.gateway.problems import ProblemError
from ratchet.gateway.routing import read_keys
from ratchet.records import (
    AlertKind,
    Analysis,
    ApiKey,
    ApiKeyRevocation,
    ApiKeyTerms,
    Baseline,
    BoardState,
)
from ratchet.records.monitoring import Severity
from ratchet.store import EventStore
from ratchet.web.people import caller, who
from ratchet.web.rendering import Place
from ratchet.web.standing import Standing, Underway, Waiting

PREFIX = "ratchet_"
_KEYS = (ApiKey, ApiKeyRevocation, ApiKeyTerms)


def add_metrics(app: FastAPI) -> tuple[Place, ...]:
    """Add `/metrics`, for whoever may see the pages and for keys with the role `read`."""
    wrong = WrongKeys()

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        try:
            _admit(request, wrong)
        except ProblemError as problem:
            return problem.response()
        pages = request.app.state.pages
        boards = pages.kept.get("boards", (BoardState,), lambda: read_evidence(pages.store))
        found = (*_standing(pages.standing()), *_boards(boards), *_counts(pages.store))
        return Response(told(found), media_type=CONTENT_TYPE)

    return ()


def _admit(request: Request, wrong: WrongKeys) -> None:
    """Let in who may see the pages, or has a key that may read.

    Raises:
        ProblemError: 401 or 403.
    """
    pages = request.app.state.pages
    authorization = request.headers.get("authorization")
    if authorization is None and (person := who(request)) is not None and person.may("viewer"):
        return
    keys, terms, _ = pages.kept.get("keys", _KEYS, lambda: read_keys(pages.store))
    identify(
        authorization, caller(request), keys,
        is_open=False, now=pages.clock(), terms=terms, wrong=wrong,
    ).require("read")  # fmt: skip


def read_evidence(store: EventStore) -> tuple[tuple[BoardState, float], ...]:
    """Return the last state of each version's board, and its evidence."""
    found = []
    for state in store.latest_by_subject(BoardState).values():
        baseline = store.get(Baseline, state.baseline_id)
        if baseline is not None:
            found.append((state, evidence_of(state, baseline)))
    return tuple(found)


def _boards(boards: Iterable[tuple[BoardState, float]]) -> Iterator[Metric]:
    evidence = _gauge("board_log_evidence", "Evidence that a version is worse.", "version")
    bar = _gauge("board_log_threshold", "Evidence from which on it is an alarm.", "version")
    until = _gauge("board_charted_until_timestamp_seconds", "What the board has seen.", "version")
    for state, value in boards:
        version = [state.model_version]
        evidence.add_metric(version, value)
        bar.add_metric(version, state.log_threshold)
        until.add_metric(version, state.charted_until.timestamp())
    yield from (evidence, bar, until)


def _standing(found: Standing) -> Iterator[Metric]:
    champion = _gauge("champion_info", "The version in front of most users.", "version")
    if found.champion is not None:
        champion.add_metric([found.champion], 1.0)
    yield champion
    alerts = _gauge("alerts_open", "Alerts that are not resolved.", "severity", "kind")
    counted = Counter((one.severity, one.kind) for one in found.alerts)
    for severity, kind in product(get_args(Severity), get_args(AlertKind)):
        alerts.add_metric([severity, kind], counted[severity, kind])
    yield alerts
    yield from _analysis(found.week.now)
    yield from _waiting(found.waiting)
    yield from _rollout(found.underway)


def _analysis(last: Analysis | None) -> Iterator[Metric]:
    value = _gauge("analysis_metric", "A metric of the last analysis.", "metric", "version")
    lower = _gauge("analysis_metric_lower", "Lower end of its interval.", "metric", "version")
    upper = _gauge("analysis_metric_upper", "Upper end of its interval.", "metric", "version")
    at = _gauge("analysis_timestamp_seconds", "When the last analysis was made.")
    for one in last.metrics if last else ():
        for family, number in ((value, one.value), (lower, one.lower), (upper, one.upper)):
            if number is not None:
                family.add_metric([one.name, last.model_version if last else ""], number)
    if last is not None:
        at.add_metric([], last.created_at.timestamp())
    yield from (value, lower, upper, at)


def _waiting(found: Waiting) -> Iterator[Metric]:
    waiting = _gauge("waiting", "What waits for a person.", "what")
    for what, count in (
        ("decisions", len(found.decisions)),
        ("reviews", sum(source.waiting for source in found.reviews)),
        ("pairs", sum(left for _, left in found.pairs)),
        ("alerts", found.alerts),
    ):
        waiting.add_metric([what], count)
    yield waiting


def _rollout(found: Underway) -> Iterator[Metric]:
    rollout, look = found.rollout, found.look
    running = _gauge("rollout_running", "1 while a version is rolled out, else 0.")
    running.add_metric([], 0.0 if rollout is None else 1.0)
    of = _gauge("rollout_info", "Who is rolled out beside whom.", "champion", "challenger")
    stage = _gauge("rollout_stage", "The stage of the last look, from 1 on.")
    stages = _gauge("rollout_stages", "How many stages there are.")
    share = _gauge("rollout_share", "The challenger's share of users at the last look.")
    users = _gauge("rollout_users", "Users met so far.", "arm")
    ratio = _gauge("rollout_sample_ratio_broken", "1 where the shares are not those agreed.")
    readouts = {
        end: _gauge(f"rollout_{end}", f"{text} of the challenger minus the champion; above 0 is "
                    "worse.", "signal")
        for end, text in (("difference", "Share"), ("difference_lower", "Lower end of the share"),
                          ("difference_upper", "Upper end of the share"))
    }  # fmt: skip
    if rollout is not None:
        of.add_metric([rollout.champion.version, rollout.challenger.version], 1.0)
        stages.add_metric([], len(rollout.plan.stages))
    if look is not None:
        stage.add_metric([], look.stage)
        share.add_metric([], look.share)
        ratio.add_metric([], float(look.sample_ratio.broken))
        for arm, count in look.sample_ratio.users.items():
            users.add_metric([arm], count)
        for one in look.readouts:
            for end, number in (("difference", one.difference), ("difference_lower", one.lower),
                                ("difference_upper", one.upper)):  # fmt: skip
                if number is not None:
                    readouts[end].add_metric([one.signal], number)
    yield from (running, of, stage, stages, share, users, ratio, *readouts.values())


def _counts(store: EventStore) -> Iterator[Metric]:
    """Yield how many rows the store holds: gauges, since erasing makes them fewer."""
    held = _gauge("stored", "What the store holds, by kind.", "kind")
    for kind, count in store.counts().items():
        held.add_metric([kind], count)
    yield held


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)
