"""Cycles of a champion that somebody else serves: known by its logs, and sent no users."""

from __future__ import annotations

from ratchet.deploy.elsewhere import follow_elsewhere
from ratchet.deploy.served import is_served_elsewhere
from ratchet.flows._runtime import now, workspace
from ratchet.records import Release


def follow_champion() -> None:
    """Take note where somebody else serves the champion and answers under another name now."""
    if _serves_elsewhere():
        follow_elsewhere(workspace().store, workspace().tracker, now())


def trains_nowhere() -> bool:
    """Tell whether nobody has the weights of the champion: no gate will ask for examples."""
    return _serves_elsewhere() and not workspace().settings.states_base_model


def _serves_elsewhere() -> bool:
    release = workspace().store.latest(Release)
    return release is not None and is_served_elsewhere(workspace().store, release.champion)
