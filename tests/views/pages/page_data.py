"""Failure clusters for pages: honest ones, and ones whose every text is hostile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ratchet.records import Breakdown, EarlierCluster, FailureCluster, FailureExample
from ratchet.views.pages.failures import MapPoints, Searched

NOW = datetime(2026, 3, 9, 8, 5, tzinfo=UTC)
WINDOW = (NOW - timedelta(days=7), NOW)
SEARCHED = Searched("support-router/3", 1_200, 130, WINDOW, untold=45)
REASON = "no group of texts fails more than chance allows"
LONG = "long " * 2_000  # 10,000 characters

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "\"'><svg onload=window.hacked=3>",
    "' onmouseover='window.hacked=4' x='",
    "javascript:window.hacked=5",
    "</style><style>body{display:none}</style>",
    "<!--<script>window.hacked=6",
    "{{ 7 * 191 }}${7 * 191}",
    "<base href='https://evil.example/'><link rel=stylesheet href='https://evil.example/a.css'>",
    "<iframe src='https://evil.example/frame'></iframe>",
    "\u202eright to left\u202c \u2067שלום עולם\u2069 مرحبا",
    "bell\x07 escape\x1b[31m backspace\x08 delete\x7f c1\x85 line\u2028paragraph\u2029",
    "half a pair \ud800 alone",
    "]]>&amp;&lt;&#x3c;script&#x3e;",
)


def cluster(name: str = "top up, verify", **changes: Any) -> FailureCluster:
    values: dict[str, Any] = {
        "id": f"id of {name[:60]}".encode("utf-8", "replace").decode(),
        "name": name,
        "size": 84,
        "interactions": 140,
        "failure_rate": 0.6,
        "rest_rate": 0.08,
        "lift": 5.5,
        "interval": (0.51, 0.68),
        "share": 0.65,
        "excess": 72.8,
        "p_value": 0.002,
        "stability": 0.82,
        "stable": True,
        "trend": "growing",
        "first_seen": NOW - timedelta(days=6),
        "users": 61,
        "versions": (
            Breakdown(name="support-router/3", failed=60, interactions=90),
            Breakdown(name="support-router/2", failed=24, interactions=50),
        ),
        "segments": (Breakdown(name="web", failed=84, interactions=140),),
        "examples": (f"typical of {name}", "second"),
        "borderline": (f"borderline of {name}",),
        "beside": (
            example(f"asked about {name}", "answered wrongly",
                    better="put right", source="correction"),
            example("asked alike", "wrong too", better="well rated", source="similar",
                    better_prompt="a similar question", borderline=True),
            example("asked again", "wrong again"),
        ),
    }  # fmt: skip
    return FailureCluster(**(values | changes))


def example(prompt: str, answer: str, **changes: Any) -> FailureExample:
    values = {"interaction_id": "i-1", "prompt": prompt, "answer": answer, "why": "thumbs down"}
    return FailureExample(**(values | changes))


def clusters() -> tuple[FailureCluster, ...]:
    """Three clusters, most to win first; by name, rate and users their order is another one."""
    return (
        cluster("top up, verify"),
        cluster(
            "card, lost",
            size=30,
            interactions=40,
            failure_rate=0.75,
            interval=(0.6, 0.86),
            excess=26.0,
            share=0.23,
            users=30,
            trend="new",
            first_seen=NOW,
            stability=0.41,
            stable=False,
        ),
        cluster(
            "abroad, fee",
            size=9,
            interactions=20,
            failure_rate=0.45,
            interval=(0.2, 0.7),
            excess=7.0,
            share=0.07,
            users=None,
            trend="shrinking",
            stability=None,
            stable=False,
            safety=2,
        ),
    )


EARLIER = (
    EarlierCluster(id="e1", name="passcode, reset", trend="gone", first_seen=NOW),
    EarlierCluster(
        id="e2", name="verify", trend="merged", first_seen=NOW, other="id of top up, verify"
    ),
    EarlierCluster(id="e3", name="refund, late", trend="shrinking", first_seen=NOW),
)


def points(many: int = 3, each: int = 12, *, texts: list[str] | None = None) -> MapPoints:
    """Points of clusters on a circle, as many again in no cluster in the middle."""
    rng = np.random.default_rng(0)
    labels = np.repeat([*range(many), *[-1] * max(many, 1)], each)
    turn = 2 * np.pi * np.maximum(labels, 0) / max(many, 1)
    centres = np.where(labels[:, None] < 0, 0.0, np.column_stack([np.cos(turn), np.sin(turn)]))
    failures = (rng.random(labels.size) < np.where(labels < 0, 0.1, 0.7)).astype(np.int64)
    said = texts or [f"message {i}" for i in range(labels.size)]
    return MapPoints(
        xy=0.5 + 0.3 * centres + 0.05 * rng.standard_normal((labels.size, 2)),
        labels=labels,
        failures=failures,
        seen=failures + 1,
        texts=[said[i % len(said)] for i in range(labels.size)],
        of=4_000,
    )


def hostile_clusters() -> tuple[FailureCluster, ...]:
    """A cluster a hostile text, which stands wherever a text can stand."""
    found = []
    for text in HOSTILE:
        stored = text.encode("utf-8", "replace").decode().replace("\x00", "")
        breakdown = (Breakdown(name=text, failed=1, interactions=2),)
        found.append(
            cluster(
                text,
                id=stored,
                versions=breakdown,
                segments=breakdown,
                examples=(text,),
                borderline=(text, LONG),
                beside=(
                    example(text, text, why=text, better=text, source="similar",
                            better_prompt=text, interaction_id=stored),
                    example(LONG, LONG, better=LONG, source="correction"),
                ),
            )
        )  # fmt: skip
    return tuple(found)
