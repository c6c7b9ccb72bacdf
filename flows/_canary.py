"""What drives a rollout: a look, its action, the events and the pictures. Used by several flows.

A look comes every ten minutes in a process of its own, as one flow run without tasks. What draws is
imported when there is something to draw.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from ratchet.deploy.promotion import adopt_champion, apply_decision
from ratchet.deploy.refusals import decision_to_try_again
from ratchet.deploy.rollout.canary import ENDED, act_on, begin_decided, outcome, take_look
from ratchet.deploy.routing import follow, last_look, looks_of, reconcile, running_rollout
from ratchet.errors import ConflictError, InvalidInputError
from ratchet.flows._runtime import EXPERIMENT, logger, now, publish_text, show_figure, workspace
from ratchet.notify.outgoing import news_since
from ratchet.records import (
    Decision,
    Delivery,
    Release,
    Rollout,
    RolloutLook,
    RolloutStop,
    derive_id,
)
from ratchet.views.text.rollouts import rollout_events, rollout_markdown

_EVENTS = {"advance": "advanced", **ENDED}


def begin(decision: Decision) -> Rollout | None:
    """Begin to roll out what may be promoted by stages, once; say why where that cannot be."""
    work = workspace()
    at = now()
    try:
        rollout = begin_decided(work.store, decision, now=at, answering=work.answering)
    except (ConflictError, InvalidInputError) as error:
        logger.warning("%s is not rolled out: %s", decision.challenger, error)
        return None
    if rollout is not None and rollout.created_at == at:
        _emit("started", rollout, None)
    return rollout


start = task(name="start-rollout", cache_policy=NO_CACHE)(begin)


def catch_up() -> str:
    """Let registry and gateways agree: after a switch without MLflow, after a move by hand."""
    work = workspace()
    reconciled = reconcile(work.store, work.tracker, now())
    adopted = adopt_champion(work.store, work.tracker, now(), answering=work.answering)
    if adopted is not None:
        logger.warning("%s was made the champion by hand; everybody gets it", adopted.champion)
    try_again()
    announce()
    return reconciled


def try_again() -> None:
    """Act on the latest decision again, where its version did not answer when it was made."""
    work = workspace()
    decision = decision_to_try_again(work.store)
    if decision is not None and work.tracker.answers(within_seconds=2.0):
        apply_decision(work.store, work.tracker, decision, now(), answering=work.answering)
        begin(decision)


def look_once() -> RolloutLook | None:
    """Finish what an interrupted run left, else take one look; its decision is stored first.

    Not retried: the next run of the schedule is the retry.
    """
    store = workspace().store
    rollout = running_rollout(store)
    if rollout is None:
        return None
    before = last_look(store, rollout)
    if before is not None and before.decision != "wait":
        act(before)  # does nothing where it was done
        if running_rollout(store) != rollout:
            return before
    look = take_look(store, rollout, now())
    act(look)
    return look


def act(look: RolloutLook) -> None:
    """Do what was decided, tell MLflow, and say so once, in the log and to Prefect."""
    work = workspace()
    move = act_on(work.store, look, now(), answering=work.answering)
    if move is not None:
        follow(work.store, work.tracker, move, now())
    rollout = work.store.get(Rollout, look.rollout_id)
    if rollout is None or look.decision == "wait":
        return
    _once(look.id, partial(_tell, rollout, look))


def _tell(rollout: Rollout, look: RolloutLook) -> None:
    logger.warning("%s: %s", look.decision, "; ".join(look.reasons))
    _emit(_EVENTS[look.decision], rollout, look)


def announce() -> None:
    """Tell Prefect of each release and each stop, whoever made it: shell, page or flow."""
    store, since = workspace().store, news_since(now())
    for release in store.records(Release, since=since):
        _once(release.id, partial(_emit_release, release))
    for stop in store.records(RolloutStop, since=since):
        rollout = store.get(Rollout, stop.id)
        if rollout is not None:
            _once(stop.id, partial(_emit, "stopped", rollout, last_look(store, rollout)))


def _once(about: str, emit: Callable[[], None]) -> None:
    """Emit an event unless it was; killed in between, it is emitted twice and not lost."""
    store, key = workspace().store, derive_id("delivery", about, "prefect")
    if store.get(Delivery, key) is None:
        emit()
        store.append(
            Delivery(id=key, created_at=now(), event_id=about, channel="prefect", delivered=True)
        )


def _emit_release(release: Release) -> None:
    resource = {
        "prefect.resource.id": f"ratchet.version.{release.champion}",
        "prefect.resource.name": release.champion,
        "ratchet.previous": release.previous or "",
    }
    what = release.action.replace(" ", "_")
    emit_event(f"ratchet.release.{what}", resource=resource, payload=release.canonical())


def _emit(what: str, rollout: Rollout, look: RolloutLook | None) -> None:
    resource = {
        "prefect.resource.id": f"ratchet.rollout.{rollout.id}",
        "prefect.resource.name": rollout.challenger.version,
        "ratchet.champion": rollout.champion.version,
        "ratchet.challenger": rollout.challenger.version,
    }
    payload = {} if look is None else look.canonical()
    emit_event(f"ratchet.rollout.{what}", resource=resource, payload=payload)


def publish(look: RolloutLook) -> None:
    """Publish a look that decided something, else one an hour.

    Numbers, words and pictures go to MLflow; Prefect keeps artifacts of decisions alone.
    """
    work = workspace()
    decided = look.decision != "wait"
    rollout = work.store.get(Rollout, look.rollout_id)
    hourly = look.created_at.minute < 10
    if rollout is None or not (decided or hourly):
        return
    if not work.tracker.answers(within_seconds=2.0):
        return
    from ratchet.views.pages.readouts import rollout_page
    from ratchet.views.plots.rollouts import readout_chart, rollout_chart

    stands = outcome(work.store, rollout)
    with work.tracker.run(
        EXPERIMENT,
        key=f"rollout:{rollout.id}",
        name=f"rollout {rollout.challenger.version}",
        tags={"ratchet.stage": "rollout", "ratchet.challenger": rollout.challenger.version},
    ) as run:
        run.tags({"ratchet.outcome": stands})
        numbers = {"share": look.share, "ratio_log_evidence": look.sample_ratio.log_evidence}
        for item in look.readouts:
            numbers[f"{item.signal}_log_alarm"] = item.log_alarm
            if item.difference is not None:
                numbers[f"{item.signal}_difference"] = item.difference
        run.metrics(numbers, step=look.number)
        words = rollout_markdown(rollout, look, stands)
        looks = looks_of(work.store, rollout)
        events = rollout_events(rollout, looks, work.store.get(RolloutStop, rollout.id))
        run.text(words, "rollout.md")
        run.text(rollout_page(rollout, look, stands, now=now(), events=events), "rollout.html")
        title = f"Rollout of {rollout.challenger.version}"
        primary = next(signal.name for signal in rollout.signals if signal.primary)
        pictures = {"rollout-looks": (rollout_chart(looks, primary, title), "Look by look")}
        if look.readouts:
            figure = readout_chart(look.readouts, f"{title}: look {look.number}")
            pictures["read-out"] = (figure, "The last look")
        for key, (figure, _) in pictures.items():
            run.figure(figure, f"plots/{key}.png")
    if decided:
        publish_text("rollout", words, f"{title}: {stands}")
        for key, (figure, description) in pictures.items():
            show_figure(key, figure, description)
