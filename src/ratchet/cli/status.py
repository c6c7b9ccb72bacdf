"""`ratchet status`: what is in use and why."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, current_settings, existing_store, open_tracker
from ratchet.settings import Settings

if TYPE_CHECKING:
    from ratchet.store import EventStore


NO_TRAFFIC = "waits for interactions of real users that no cycle had"


def status(
    as_json: AsJson = False,
) -> None:
    """Show the champion, its last decision, what was collected and the last alerts."""
    settings = current_settings()
    state = _gather_status(settings)
    if as_json:
        say_json(state, indent=2)
        return
    decision = state["last_decision"]
    say(f"champion      {state['champion'] or f'none yet: run {_first_step(settings, state)}'}")
    say(f"previous      {state['previous'] or 'none'}")
    if decision:
        say(f"last decision {decision['verdict']} {decision['challenger']} ({decision['at']})")
        say(f"              {'; '.join(decision['reasons'])}")
    for waiting in state["waiting"]:
        say(f"waits         for a person: ratchet approve {waiting[:8]}")
    if state["cycle"]:
        say(f"cycle         {state['cycle']['number']} ({state['cycle']['state']})")
        if "waits_for" in state["cycle"]:
            say(f"              {state['cycle']['waits_for']['message']}")
    if state["examples"]:
        say(f"examples      {state['examples']['set']} ({state['examples']['count']})")
    if state["next_cycle"]:
        say(f"next cycle    {state['next_cycle']}")
    simulated = f" ({state['simulated']} of simulated users)" if state["simulated"] else ""
    say(f"interactions  {state['interactions']}{simulated}")
    say(f"feedback      {', '.join(f'{n} {kind}' for kind, n in state['feedback'].items())}")
    say(f"set aside     {state['set_aside']}")
    if state["answers"]:
        numbers = [f"{name} {value:.4g}" for name, value in state["answers"]["metrics"].items()]
        say(f"answers       {state['answers']['version']}: {', '.join(numbers)}")
    if state["refused"]:
        say(f"not routed    {state['refused']}")
    if state["rollout"]:
        say(f"rollout       {state['rollout']['challenger']}, {state['rollout']['says']}")
    for place, line in enumerate(state["next_cycle_waits_for"]):
        say(f"{'' if place else 'next cycle':13} waits for {line}")
    if state["registry"] != "nothing to do":
        say(f"registry      {state['registry']}")
    for alert in state["alerts"]:
        say(f"alert         {alert['severity']}: {alert['message']} {alert['action']}")
    for question in state["questions"]:
        say(f"asks          {question['says']}")


def _first_step(settings: Settings, state: dict[str, Any]) -> str:
    """Return the command by which a home gets its first champion."""
    if settings.backend:
        return "`ratchet adopt` for what answers your users"
    if state["interactions"] > state["simulated"]:
        return "`ratchet adopt --elsewhere NAME` for the model that gave these answers"
    return "`ratchet demo`"


def _gather_status(settings: Settings) -> dict[str, Any]:
    from ratchet.analyze.alert_steps import known_alerts, open_alerts
    from ratchet.deploy.approval import waiting_decisions
    from ratchet.deploy.refusals import standing_refusal, words
    from ratchet.records import FEEDBACK_KINDS, Decision, Release
    from ratchet.store.heard import questions

    state: dict[str, Any] = {
        "home": str(settings.home),
        "champion": None,
        "previous": None,
        "last_decision": None,
        "cycle": None,
        "next_cycle": NO_TRAFFIC,
        "examples": None,
        "interactions": 0,
        "simulated": 0,
        "feedback": dict.fromkeys(FEEDBACK_KINDS, 0),
        "set_aside": 0,
        "answers": None,
        "alerts": [],
        "questions": [],
        "waiting": [],
        "refused": None,
        "rollout": None,
        "registry": "nothing to do",
        "next_cycle_waits_for": [],
    }
    store = existing_store()
    if store is None:
        return state
    state["waiting"] = [decision.id for decision in waiting_decisions(store)]
    refusal = standing_refusal(store)
    state["refused"] = words(refusal) if refusal else None
    release, decision = store.latest(Release), store.latest(Decision)
    counts = store.counts()
    state["interactions"] = counts["interactions"]
    state["simulated"] = store.simulated_answers()
    state["set_aside"] = counts["set_aside"]
    state["feedback"] = {kind: counts[kind] for kind in FEEDBACK_KINDS}
    if release:
        state |= {"champion": release.champion, "previous": release.previous}
    if decision:
        state["last_decision"] = _decision_summary(decision.canonical())
    state["answers"] = _answers_summary(store)
    state["cycle"], state["examples"] = _cycle_summary(store), _examples_summary(store)
    state["next_cycle"] = _next_cycle(store)
    state["rollout"], state["registry"] = _rollout_summary(store), _caught_up(store, settings)
    state["next_cycle_waits_for"] = _lacking(store, settings)
    notes = [state["next_cycle"], *_warnings(store, settings)]
    state["next_cycle"] = "; ".join(filter(None, notes)) or None
    state["questions"] = [
        {"application": item.application, "kind": item.kind, "says": item.in_words}
        for item in questions(store, now=datetime.now(UTC))
    ]
    state["alerts"] = [
        alert.canonical() | {"threshold": alert.expected}
        for alert in open_alerts(known_alerts(store))
    ]
    return state


def _next_cycle(store: EventStore) -> str | None:
    """Return what the nightly loop waits for; None where it has something to do."""
    from ratchet.errors import WaitingError
    from ratchet.store.cycles import await_traffic

    try:
        await_traffic(store, datetime.now(UTC))
    except WaitingError:
        return NO_TRAFFIC
    return None


def _decision_summary(decision: dict[str, Any]) -> dict[str, Any]:
    kept = (
        "verdict", "champion", "challenger", "reasons", "champion_value", "challenger_value",
        "difference", "interval", "p_value", "examples",
    )  # fmt: skip
    return {"at": decision["created_at"]} | {name: decision[name] for name in kept}


def _cycle_summary(store: EventStore) -> dict[str, Any] | None:
    """Say which cycle is the latest, on which examples it is gated and what it waits for."""
    from ratchet.records import Cycle, CycleEnd
    from ratchet.store.waits import latest_wait

    cycle = store.latest(Cycle)
    if cycle is None:
        return None
    end, wait = store.get(CycleEnd, cycle.id), latest_wait(store)
    state: str = end.outcome if end else "running"
    if wait is None:
        return {"number": cycle.number, "state": state}
    missing = wait.missing
    if wait.judge is None:  # labels of pairs are counted as they come
        from ratchet.judges.pair_labels import waiting_sheets

        sheets = {sheet.cycle_id: sheet.wanted - said for sheet, said in waiting_sheets(store)}
        missing = sheets.get(cycle.id, 0)
    count = "" if missing is None else f"{missing} "
    state = f"waits for {count}{wait.what}" if missing != 0 else "has its labels"
    message = wait.message if missing != 0 else "the next run of the loop decides"
    waits_for = {"what": wait.what, "missing": missing, "message": message}
    return {"number": cycle.number, "state": state, "waits_for": waits_for}


def _examples_summary(store: EventStore) -> dict[str, Any] | None:
    """Name the set that both models of the latest cycle answer."""
    from ratchet.records import Cycle, ExampleSet

    cycle = store.latest(Cycle)
    found = None if cycle is None else store.get(ExampleSet, cycle.example_set_id)
    return None if found is None else {"set": found.id, "count": len(found.examples)}


def _answers_summary(store: EventStore) -> dict[str, Any] | None:
    """Return what answers of the version analyzed last called, took and cost, and how it ended."""
    from ratchet.records import Analysis

    analysis = store.latest(Analysis)
    if analysis is None:
        return None
    from ratchet.outcomes.answers import ANSWER_METRICS

    metrics = {one.name: one.value for one in analysis.metrics}
    known = {name: metrics[name] for name in ANSWER_METRICS if metrics.get(name) is not None}
    return None if not known else {"version": analysis.model_version, "metrics": known}


def _rollout_summary(store: EventStore) -> dict[str, Any] | None:
    from ratchet.deploy.routing import last_look, running_rollout

    running = running_rollout(store)
    if running is None:
        return None
    look = last_look(store, running)
    says = f"{running.plan.stages[0].share:.0%} of users, no look yet"
    if look is not None:
        says = f"{look.share:.0%} of users, {look.decision}: {'; '.join(look.reasons)}"
    return {"challenger": running.challenger.version, "says": says}


def _lacking(store: EventStore, settings: Settings) -> list[str]:
    """Return what the next cycle of a home in front of a server lacks."""
    from ratchet.deploy.served import adoptions

    if not settings.backend and not adoptions(store):
        return []
    from ratchet.operate.readiness import NextCycle, lacks

    return lacks(settings, store, NextCycle(), environ=os.environ, now=datetime.now(UTC))


def _warnings(store: EventStore, settings: Settings) -> list[str]:
    """Return why the gate of the next cycle may decide nothing, of a home in front of a server."""
    from ratchet.deploy.served import adoptions

    if not settings.backend and not adoptions(store):
        return []
    from ratchet.operate.readiness import NextCycle, warns

    return warns(store, NextCycle())


def _caught_up(store: EventStore, settings: Settings) -> str:
    """Let the registry catch up with a switch that was made while MLflow was down."""
    from ratchet.deploy.routing import reconcile, waiting_move

    if waiting_move(store) is None:
        return "nothing to do"
    return reconcile(store, open_tracker(settings), datetime.now(UTC))
