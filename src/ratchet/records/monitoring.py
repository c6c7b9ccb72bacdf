"""What monitoring stores: baselines, boards and the life of alerts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ratchet.records.base import Identifier, Record, Share, Text, UtcTime


class SignalBaseline(Record):
    """What is normal of one signal.

    Attributes:
        name: The signal.
        cut_off: Where a number becomes bad; None for what is a yes or no.
        coefficients: Log odds of a bad event: intercept, cycles, an offset for each segment.
        covariance: Of the coefficients.
        dispersion: How much more the counts vary than independent trials would.
        trials: Observations that it rests on.
        events: Bad events among them.
    """

    name: str
    cut_off: float | None
    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    dispersion: float = Field(ge=1.0)
    trials: int = Field(ge=1)
    events: int = Field(ge=0)


class Baseline(Record):
    """What is normal, frozen from one version's traffic; it never moves by itself.

    Attributes:
        model_version: The version whose traffic it is.
        batch_seconds: Length of the batches that are compared with it.
        segments: Segments told apart; the last one takes all others.
        weekly: Whether the weekend has a rate of its own.
        daily: Whether the time of day has.
        tempers: How far the ratio of each hypothesis may be trusted, in (0, 1].
    """

    id: Identifier
    created_at: UtcTime
    model_version: Identifier
    window_start: UtcTime
    window_end: UtcTime
    batch_seconds: int = Field(ge=1)
    segments: tuple[str, ...] = Field(min_length=1)
    weekly: bool
    daily: bool
    signals: tuple[SignalBaseline, ...] = Field(min_length=1)
    tempers: tuple[float, ...]


class BoardState(Record):
    """What monitoring has seen of a version: enough to go on without reading history.

    Attributes:
        opened_at: Start of the first batch.
        charted_until: End of the last one.
        log_threshold: Log evidence from which on it is an alarm.
        log_statistics: Log Shiryaev-Roberts statistic of each hypothesis.
        cusums: Log likelihood ratio of each hypothesis since its most likely start.
        starts: That start, in batches after `opened_at`.
        arrived: How many interactions and feedback events had arrived in the store when it was
            made; what arrives later about its time is not in it. None in older records.
    """

    id: Identifier
    created_at: UtcTime
    model_version: Identifier
    baseline_id: Identifier
    opened_at: UtcTime
    charted_until: UtcTime
    batches: int = Field(ge=0)
    log_threshold: float
    log_head_start: float
    log_statistics: tuple[float, ...]
    cusums: tuple[float, ...]
    starts: tuple[int, ...]
    arrived: tuple[int, int] | None = Field(default=None, exclude_if=lambda value: value is None)


class Finding(Record):
    """What a board's evidence is about.

    Attributes:
        signal: The signal that is worse.
        says: The same in words.
        segment: Where it is worse; None for everywhere.
        since: Estimated time of the change.
        log_evidence: Log of the board's evidence; the threshold is beside it.
        events: Bad events since then.
        trials: Observations since then.
        expected: Rate that the baseline expects at these hours.
        lower: Lower end of the 95 % Wilson interval of the rate since then.
        upper: Upper end of it.
        also: Other signals that the most likely hypothesis holds to be worse.
    """

    signal: str
    says: str
    segment: str | None
    since: UtcTime
    log_evidence: float
    log_threshold: float
    events: int
    trials: int
    expected: Share
    lower: Share
    upper: Share
    also: tuple[str, ...]


AlertChange = Literal["opened", "updated", "acknowledged", "resolved"]
AlertKind = Literal["board", "threshold", "pipeline", "cluster", "rollout", "routing"]
Severity = Literal["warning", "critical"]


class AlertEvent(Record):
    """One step in the life of an alert; the latest one of an `alert_id` is how it stands.

    Attributes:
        alert_id: The alert; derived from version, kind and time of opening (board, pipeline), from
            version, metric and time of opening (threshold), from the cluster, from the look that
            aborted the rollout, or from the step that was refused.
        kind: What raised it: the version's board, a fixed threshold, the feedback pipeline, a
            failure cluster, a rollout that was aborted, or a version that was not routed since it
            did not answer.
        since: Estimated time of the change, None for a fixed threshold.
        segment: Where, None for everywhere.
        cluster: The failure cluster that most of it is about, where one is known.
        value: The rate (or seconds) since the change, with its interval.
        expected: What the baseline expects, or the threshold.
        certainty: How sure, in words that state the error rate.
        action: What to do; empty once it is resolved.
        by: Who acknowledged or resolved it, None for Ratchet itself.
    """

    id: Identifier
    alert_id: Identifier
    created_at: UtcTime
    change: AlertChange
    kind: AlertKind
    severity: Severity
    model_version: Identifier
    signal: str
    segment: str | None = None
    cluster: str | None = None
    since: UtcTime | None = None
    value: float
    lower: float
    upper: float
    expected: float
    observations: int = Field(ge=0)
    certainty: str
    message: str
    action: str
    by: str | None = None
    note: str | None = None


class AlertMute(Record):
    """That people are not told of something for a while; the latest one about it counts.

    Attributes:
        about: Id of an alert, a kind of alert, or `all`.
        until: From then on people are told again; the time of the record ends it at once.
        by: Who.
        reason: Why.
    """

    id: Identifier
    created_at: UtcTime
    about: Identifier
    until: UtcTime
    by: Identifier
    reason: Text


class Delivery(Record):
    """A message that was sent, or a try that failed; `id` is derived from message and channel.

    Attributes:
        event_id: What it tells of: an alert's step, or what a reminder or report is about.
        channel: Name of the channel, of an address its kind.
        reason: Why it did not arrive; None where it did, and in older records.
    """

    id: Identifier
    created_at: UtcTime
    event_id: Identifier
    channel: str
    delivered: bool
    reason: str | None = Field(default=None, exclude_if=lambda value: value is None)
