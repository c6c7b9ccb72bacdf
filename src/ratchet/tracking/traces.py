"""The traces of an experiment, page by page and in the order of their times."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ratchet.errors import InvalidInputError, TrackingError
from ratchet.files.text import printable

PAGE = 100


class TracePage(NamedTuple):
    """Some traces.

    Attributes:
        traces: As `Trace.to_json` writes them.
        last: The time of the last one.
    """

    traces: list[dict[str, Any]]
    last: datetime


def trace_pages(
    tracking_uri: str, experiment: str, since: datetime | None, *, page: int = PAGE
) -> Iterator[TracePage]:
    """Yield the traces of an experiment with their spans and assessments.

    Args:
        tracking_uri: Of the server or the store.
        experiment: Its name.
        since: Traces that began before are left out.
        page: So many are held in memory.

    Raises:
        InvalidInputError: There is no such experiment.
        TrackingError: The server does not answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    try:
        known = client.get_experiment_by_name(experiment)
        if known is None:
            raise InvalidInputError(
                f"an experiment must be there, got {printable(experiment)!r}; `mlflow experiments "
                "search` lists those of the server"
            )
        after = 0 if since is None else int(since.timestamp() * 1_000)
        token = None
        while True:
            found = client.search_traces(
                locations=[known.experiment_id],
                filter_string=f"timestamp_ms >= {after}",
                order_by=["timestamp_ms ASC"],
                max_results=page,
                page_token=token,
            )
            if found:
                last = datetime.fromtimestamp(found[-1].info.request_time / 1_000, UTC)
                yield TracePage([json.loads(trace.to_json()) for trace in found], last)
            token = found.token
            if not token:
                return
    except MlflowException as error:
        raise TrackingError(
            f"MLflow must answer, got {printable(str(error))}; check MLFLOW_TRACKING_URI and its "
            "credentials"
        ) from error
