"""Who may be trained on: consent and retention, as sent with the interactions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

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


UNSAID, AGREED, REFUSED = range(3)
"""What an interaction says of training."""
ALWAYS = np.iinfo(np.int64).max
"""A time to keep that is not limited."""
UNREADABLE = np.iinfo(np.int64).min
"""A time to keep that cannot be read: it refuses."""


def refused_rows(
    consents: NDArray[np.int8], kept_until: NDArray[np.int64], consent: Consent, now: int
) -> NDArray[np.bool_]:
    """Tell which interactions must not be trained on, shape (n,).

    Args:
        consents: What each says.
        kept_until: Until when each may be kept, in microseconds since 1970.
        consent: Whether saying nothing is consent.
        now: The time, in the same unit.
    """
    silent = (consents == UNSAID) & (consent == "only if given")
    over: NDArray[np.bool_] = (kept_until != ALWAYS) & (kept_until <= now)
    refused: NDArray[np.bool_] = (consents == REFUSED) | silent | over
    return refused
