"""The cards of adapters: written when one was trained, and again when the gate has decided."""

from __future__ import annotations

from ratchet.errors import ModelError, TrackingError
from ratchet.flows._runtime import base_folder, logger, workspace
from ratchet.improve.training.adapter_card import CARD_FILE, CardOf, write_card
from ratchet.records import Candidate


def publish_card(candidate: Candidate) -> None:
    """Write an adapter's card into its folder and its MLflow run.

    What cannot be written is logged: a card is no reason for a training or a decision to fail.
    """
    work = workspace()
    folder = work.settings.home.joinpath(candidate.path)
    if not folder.is_dir():
        return  # on another machine, or deleted
    try:
        of = CardOf.stored(work.store, candidate.reference, base_folder(), candidate)
        text = write_card(of, folder)
        work.tracker.write_text(candidate.run_id, text, f"adapter/{CARD_FILE}")
    except (ModelError, TrackingError, OSError) as error:
        logger.warning("the card of %s is not written: %s", candidate.path, error)
