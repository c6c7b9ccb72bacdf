"""Who may be trained on: consent and retention, as sent with the interactions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ratchet.improve.curation.config import Consent
from ratchet.store.permissions import Permission


def refused(
    permissions: Iterable[Permission],
    interaction_ids: Iterable[str],
    consent: Consent,
    now: datetime,
) -> set[str]:
    """Return the interactions that must not be trained on.

    Args:
        permissions: What interactions say, those that say something.
        interaction_ids: All of them.
        consent: Whether saying nothing is consent.
        now: The time, for retention.
    """
    only_if_given = consent == "only if given"
    permission_of = {permission.interaction_id: permission for permission in permissions}
    refusing = {
        key
        for key, permission in permission_of.items()
        if permission.refuses(now, only_if_given=only_if_given)
    }
    if only_if_given:
        refusing.update(key for key in interaction_ids if key not in permission_of)
    return refusing
