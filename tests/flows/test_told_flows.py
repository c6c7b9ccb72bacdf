"""Reminders, a repeated alert and the weekly report, by real flows on a real Prefect server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from ratchet.records import Delivery
from ratchet.store import EventStore
from ratchet.web.weekly import last_week
from tests.flows.prefect_home import new_home, python_process
from tests.notify.conftest import alert, listening
from tests.web.filled import decision

# what is told is tested without Prefect in tests/notify, tests/operate and tests/web
pytestmark = pytest.mark.slow
SECRET = "whsec_" + "VDBTRUNSRVRUMFNFQ1JFVFQwU0VDUkVUVDBTRUNSRVQ="
IMPORTS = """
from ratchet.flows._watch import send_alerts
from ratchet.flows.remind import remind
from ratchet.flows.weekly import weekly
"""


def test_people_are_told_once_by_every_flow(tmp_path: Path, served_once: Path) -> None:
    now = datetime.now(UTC)
    with listening() as inbox:
        policy = tmp_path / "alerts.yaml"
        policy.write_text(
            "channels:\n"
            f"  desk: {{type: webhook, url: '{inbox.url()}', secret: RATCHET_DESK_SECRET}}\n"
            "routes:\n"
            "  - {name: all, to: [desk], repeat_hours: 1}\n"
            "  - {name: week, kinds: [weekly], to: [desk]}\n",
            "utf-8",
        )
        pages = tmp_path / "pages.yaml"
        pages.write_text("address: https://ratchet.example\n", "utf-8")
        home = new_home(
            tmp_path, served_once, RATCHET_ALERTS=str(policy), RATCHET_PAGES=str(pages),
            RATCHET_DESK_SECRET=SECRET,
        )  # fmt: skip
        store: EventStore = home.store
        store.append(decision(now - timedelta(hours=5)))
        store.append(
            alert(
                created_at=now - timedelta(hours=1, minutes=30),
                since=now - timedelta(hours=2, minutes=10),
            )
        )
        with home.serving() as environment, python_process(environment, IMPORTS) as run:
            for _ in range(2):
                for call in ("send_alerts(())", "remind()", "weekly()"):
                    run(call)
            api = environment["PREFECT_API_URL"]
            artifacts = httpx.post(f"{api}/artifacts/latest/filter", json={}).json()
        titles = sorted(body["title"] for body in inbox.bodies)
        week = last_week(now).name
        assert [title.partition(":")[0] for title in titles] == [
            "A promotion waits for you", "Critical alert still open after 2 hours",
            "New critical alert", f"support-router, week {week}",
        ]  # fmt: skip
        found = {body["kind"]: body["page"] for body in inbox.bodies}
        assert found == {
            "board": "https://ratchet.example/alerts/alert-1",
            "approval": "https://ratchet.example/decisions/d-2",
            "weekly": f"https://ratchet.example/weekly/{week}",
        }
        told = [one for one in store.records(Delivery) if one.channel == "desk"]
        assert [one.delivered for one in told] == [True] * 4
        (kept,) = [one for one in artifacts if one["key"] == "weekly"]
        assert f"week {week}" in kept["data"]
    store.close()
