"""Signals that an answer carries itself: its calls of tools, its form, its tokens and its cost.

Calls and forms are held against what the request came with (`ratchet.evaluation.answer_facts`);
tokens and cost are what was said of the answer, or follow from prices (`ratchet.records.prices`).
Nothing is known of an answer that was given no tools, asked for no form, or came without usage.
"""

from __future__ import annotations

from typing import Final

from ratchet.records.signal import Rate, Signal, ValueChart, WatchedShare

ANSWER_SIGNALS: Final[tuple[Signal, ...]] = (
    Signal(
        name="tool_calls",
        source="interaction",
        many="answers with tools",
        charts=(
            ValueChart(
                metric="tool_calls", words="calls of tools of an answer, mean", unit="calls"
            ),
        ),
    ),
    Signal(
        name="call_validity",
        source="interaction",
        many="answers with tools",
        bad=False,
        rate=Rate(metric="call_validity", of="good", words="answers whose calls fit their tools"),
        shares=(
            WatchedShare(
                name="unfit_calls", words="answers with calls that fit no tool", rollout=True
            ),
        ),
    ),
    Signal(
        name="unparsable_call",
        source="interaction",
        many="answers with tools",
        bad=True,
        rate=Rate(metric="unparsable_call_rate", of="bad"),
        shares=(
            WatchedShare(
                name="unparsable_calls",
                words="answers with a call that cannot be read",
                rare=True,
                rollout=True,
            ),
        ),
    ),
    Signal(
        name="format_validity",
        source="interaction",
        many="answers that were asked for in a form",
        bad=False,
        rate=Rate(
            metric="format_validity", of="good", words="answers in the form that was asked for"
        ),
        shares=(
            WatchedShare(
                name="wrong_format", words="answers in another form than asked for", rollout=True
            ),
        ),
    ),
    Signal(
        name="tokens_in",
        source="interaction",
        charts=(ValueChart(metric="tokens_in", words="tokens of requests, mean", unit="tokens"),),
    ),
    Signal(
        name="tokens_out",
        source="interaction",
        shares=(
            WatchedShare(
                name="many_tokens",
                words="answers with more tokens than usual",
                group="service",
                cut=(0.95, "above"),
                rollout=True,
            ),
        ),
        charts=(ValueChart(metric="tokens_out", words="tokens of answers, mean", unit="tokens"),),
    ),
    Signal(
        name="cost",
        source="interaction",
        shares=(
            WatchedShare(
                name="costly",
                words="answers that cost more than usual",
                group="service",
                cut=(0.95, "above"),
                rollout=True,
            ),
        ),
        charts=(ValueChart(metric="cost", words="cost of an answer, mean", unit="cost"),),
    ),
)
MEASURED: Final = tuple(signal.name for signal in ANSWER_SIGNALS)
"""Names of these signals, and of the columns that hold their values."""
