"""The cards of adapters: written when one was trained, and again when the gate has decided."""

from __future__ import annotations

from ratchet.errors import ModelError, TrackingError
from ratchet.flows._runtime import base_folder, logger, workspace
from ratchet.improve.training.adapter_card import CARD_FILE, BaseFacts, CardOf, write_card
from ratchet.records import Candidate, Decision, Release, TrainingSet


def publish_card(candidate: Candidate, decision: Decision | None = None) -> None:
    """Write an adapter's card into its folder and its MLflow run.

    What cannot be written is logged: a card is no reason for a training or a decision to fail.
    """
    work = workspace()
    folder = work.settings.home.joinpath(candidate.path)
    release = work.store.latest(Release)
    if not folder.is_dir():
        return  # on another machine, or deleted
    try:
        of = CardOf(
            version=f"{candidate.model_name}/{candidate.version}",
            base=BaseFacts.of(base_folder()),
            candidate=candidate,
            training_set=work.store.get(TrainingSet, candidate.training_set_id),
            decision=decision,
            champion=release.champion if release else "",
        )
        text = write_card(of, folder)
        work.tracker.write_text(candidate.run_id, text, f"adapter/{CARD_FILE}")
    except (ModelError, TrackingError, OSError) as error:
        logger.warning("the card of %s is not written: %s", candidate.path, error)
