"""Flow runs that Prefect keeps: counted and deleted over its API.

Prefect's own service deletes events after a week (PREFECT_SERVER_EVENTS_RETENTION_PERIOD). It would
delete flow runs too, all after the same time and with artifacts that are still the newest of their
kind; so that is done here. A run that is suspended until a person approves has not ended and stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from ratchet.errors import RatchetError
from ratchet.prefect_api import ask

PASSES = ("analyze", "rollout", "prune")
"""Deployments whose runs come every few minutes or every night and are alike."""
FLOWS = (
    "loop", "collect", "analyze", "improve", "deploy", "approve", "rollout", "rollback", "prune",
)  # fmt: skip
_ENDED = ("COMPLETED", "CANCELLED", "FAILED", "CRASHED")
_WELL = ("COMPLETED", "CANCELLED")
_BATCH, _PAGE = 20, 200


@dataclass(frozen=True, slots=True)
class EndedRuns:
    """Flow runs of Ratchet that ended before a time.

    Attributes:
        api: Prefect's API.
        before: The time.
        passes: Only those that a schedule starts every few minutes and that ended well; else all.
        own_server: Whether the server is the home's own; on another one, runs that have the tag
            `ratchet` alone are Ratchet's.
    """

    api: str
    before: datetime
    passes: bool
    own_server: bool

    def count(self) -> int:
        """Return how many there are."""
        return int(self._ask("flow_runs/count", self._which()))

    def oldest(self) -> datetime | None:
        """Return when the first of them began."""
        found = self._ask(
            "flow_runs/filter", self._which() | {"sort": "START_TIME_ASC", "limit": 1}
        )
        return datetime.fromisoformat(found[0]["start_time"]) if found else None

    def delete(self, *, rest: Callable[[float], None] = time.sleep) -> int:
        """Delete them with their task runs, logs and artifacts; return how many."""
        which, deleted = self._which(), 0
        while True:
            query = which | {"sort": "START_TIME_ASC", "limit": _BATCH}
            ids = [run["id"] for run in self._ask("flow_runs/filter", query)]
            if not ids:
                return deleted
            began = time.perf_counter()
            self._delete_artifacts(ids)
            gone = self._ask("flow_runs/bulk_delete", {"flow_runs": {"id": {"any_": ids}}})
            if not gone["deleted"]:
                return deleted
            deleted += len(gone["deleted"])
            rest(time.perf_counter() - began)

    def total(self) -> int:
        """Return how many flow runs the server has in all."""
        return int(self._ask("flow_runs/count", {}))

    def _which(self) -> dict[str, Any]:
        states = {"type": {"any_": _WELL if self.passes else _ENDED}}
        runs: dict[str, Any] = {"state": states, "end_time": {"before_": self.before.isoformat()}}
        shown = [item["flow_run_id"] for item in self._ask("artifacts/latest/filter", {})]
        runs["id"] = {"not_any_": sorted({run for run in shown if run})}
        if not self.own_server:
            runs["tags"] = {"all_": ["ratchet"]}
        which: dict[str, Any] = {"flow_runs": runs, "flows": {"name": {"any_": FLOWS}}}
        return which | ({"deployments": {"name": {"any_": PASSES}}} if self.passes else {})

    def _delete_artifacts(self, runs: Sequence[str]) -> None:
        mine = {"artifacts": {"flow_run_id": {"any_": list(runs)}}, "limit": _PAGE}
        while found := self._ask("artifacts/filter", mine):
            for item in found:
                self._request("DELETE", f"artifacts/{item['id']}", None)

    def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._request("POST", path, body).json()

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        answer = ask(self.api, method, path, body)
        if answer.is_error and answer.status_code != 404:
            raise RatchetError(
                f"Prefect must answer {path}, got {answer.status_code}: {answer.text[:200]}; "
                "see logs/prefect.log in the home, and run it again"
            )
        return answer
