"""What `/metrics` reads when a scrape comes: recording, the log behind the store, the routing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ratchet.gateway.backlog import Backlog
from ratchet.gateway.metrics import PREFIX
from ratchet.gateway.routing import State

_Values = Mapping[tuple[tuple[str, str], ...], float]


def gauges(
    *, version: str, workers: int, recording: bool, store_away: bool, backlog: Backlog, state: State
) -> Iterator[tuple[str, str, _Values]]:
    """Yield names, texts and values.

    Args:
        version: Of Ratchet.
        workers: Processes of the gateway.
        recording: Whether answers are recorded.
        store_away: Whether the store cannot be read.
        backlog: What of the log is not in the store.
        state: Of the routing.
    """
    yield PREFIX + "info", "The version of Ratchet.", {(("version", version),): 1.0}
    shares: _Values = {
        (("arm", variant.label), ("version", variant.version)): variant.share
        for variant in (state.routing.variants if state.routing else ())
    }
    yield PREFIX + "routed_share", "Share of users that a version is routed to.", shares
    for name, text, value in (
        ("workers", "Processes of the gateway.", workers),
        ("recording", "1 where answers are recorded, else 0.", recording),
        ("store_up", "1 where the store can be read, else 0.", not store_away),
        ("drain_up", "1 where the log reaches the store, else 0.", backlog.problem is None),
        ("backlog_lines", "Lines of the log that are not in the store yet.", backlog.lines),
        ("backlog_bytes", "Bytes of the log that are not in the store yet.", backlog.bytes),
        ("drain_lag_seconds", "Age of the oldest line not in the store.", backlog.age_seconds),
        ("lost_lines", "Lines missing or damaged since the gateway began.", backlog.lost),
    ):
        yield PREFIX + name, text, {(): float(value)}
