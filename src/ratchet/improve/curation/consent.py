"""Who may be trained on: consent and retention, as sent with the interactions.

| key of the metadata | value |
|---|---|
| `training_consent` | `yes` or `no` (also `true`); anything else counts as `no` |
| `retain_until` | a time with its zone, ISO 8601; from then on it is not trained on |

A user whose latest word about training is a refusal is not trained on at all, whatever was said
before. Who agrees later does not take back an earlier refusal, which is about what it came with.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from ratchet.improve.curation.config import Consent
from ratchet.store.permissions import CONSENT, RETAIN, agrees, end_of_keeping

UNSAID, AGREED, REFUSED = range(3)
"""What an interaction says of training."""
ALWAYS, UNREADABLE = np.iinfo(np.int64).max, np.iinfo(np.int64).min
"""Times to keep: one that is not limited, and one that cannot be read, which refuses."""
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def permission_of(metadata: Mapping[str, str]) -> tuple[int, int]:
    """Return what an interaction says of training, and until when it may be kept.

    Returns:
        `UNSAID`, `AGREED` or `REFUSED`; and microseconds since 1970, `ALWAYS` or `UNREADABLE`.
    """
    said = metadata.get(CONSENT)
    consent = UNSAID if said is None else AGREED if agrees(said) else REFUSED
    return consent, _kept_until(metadata.get(RETAIN))


def _kept_until(said: str | None) -> int:
    if said is None:
        return int(ALWAYS)
    end = end_of_keeping(said)
    return int(UNREADABLE) if end is None else (end - _EPOCH) // _MICROSECOND


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
