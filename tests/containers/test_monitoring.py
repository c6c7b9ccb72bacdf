"""The dashboard, the rules and the example of Prometheus name what exists, and work with it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ratchet.gateway.backlog import Backlog
from ratchet.gateway.gauges import gauges
from ratchet.gateway.metrics import Metrics
from ratchet.gateway.routing import State
from ratchet.store import EventStore
from ratchet.web.app import create_pages
from ratchet.web.options import PagesOptions
from tests.gateway.killing import free_port, gateway
from tests.gateway.test_adapters import until
from tests.servers.mock_backend import MockBackend

FOLDER = Path(__file__).parents[2] / "containers" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text("utf-8"))
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
_NAME = re.compile(r"\bratchet_[a-z0-9_]+")
_ENDS = ("_bucket", "_count", "_sum")


def expressions() -> list[str]:
    """Every query of the dashboard, with the values that Grafana puts in."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    assert len(found) > 30
    return [one.replace("$__rate_interval", "1m").replace('"$gateway"', '".*"') for one in found]


def rules() -> list[str]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text("utf-8"))["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def families(text: str) -> set[str]:
    """Names by which a query may ask, from the `# TYPE` lines of a scrape."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        found |= {name + end for end in _ENDS} if kind == "histogram" else {name}
    return found


@pytest.fixture
def existing(settings_with_store) -> set[str]:
    """Names of all metrics that a gateway and the pages have."""
    settings, store = settings_with_store
    backlog = Backlog(lines=0, bytes=0, age_seconds=0.0)
    read = gauges(
        version="1", workers=1, recording=True, store_away=False, backlog=backlog, state=State()
    )
    from fastapi.testclient import TestClient

    pages = TestClient(
        create_pages(settings, store, PagesOptions()), base_url="http://127.0.0.1:8100",
        client=("127.0.0.1", 5000),
    )  # fmt: skip
    return families(Metrics().text(read).decode()) | families(pages.get("/metrics").text)


@pytest.fixture
def settings_with_store(tmp_path: Path, made_store: Path) -> Iterator[tuple[Any, EventStore]]:
    from ratchet.settings import load_settings

    settings = load_settings({"RATCHET_HOME": str(tmp_path / "home")}, tmp_path)
    settings.make_home()
    shutil.copyfile(made_store, settings.home / "store.db")
    store = EventStore.open(settings.store_url)
    yield settings, store
    store.close()


def test_every_query_names_metrics_that_exist(existing):
    asked = {name for text in (*expressions(), *rules()) for name in _NAME.findall(text)}
    assert len(asked) > 25
    assert asked <= existing, sorted(asked - existing)


def test_a_dashboard_panel_says_what_it_shows():
    shown = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
    assert all(one["title"] and one["description"] and one["targets"] for one in shown)
    assert len({one["id"] for one in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = [tuple(one["gridPos"].values()) for one in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_takes_the_rules_and_the_example(tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path / "monitoring")
    (tmp_path / "monitoring" / "ratchet.key").write_text("key")
    for words in (["check", "rules", "rules.yaml"], ["check", "config", "prometheus.yaml"]):
        done = subprocess.run(
            [str(PROMTOOL), *words], cwd=tmp_path / "monitoring", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian: prometheus)")
def test_prometheus_itself_scrapes_a_gateway_and_answers_every_query(tmp_path: Path):
    port = free_port()
    with (
        MockBackend() as mock,
        gateway(tmp_path / "home", mock.url, port, tmp_path / "log", workers=2),
        scraping(tmp_path, port) as address,
        httpx.Client(trust_env=False, timeout=20) as client,
    ):
        until(lambda: _value(client, address, 'up{job="ratchet-gateway"}') == 1, 60)
        for _ in range(9):
            body = {"model": "any", "messages": [{"role": "user", "content": "hi"}]}
            client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body)
            time.sleep(0.2)
        total = 'sum(ratchet_gateway_answers_total{outcome="answered"})'
        until(lambda: _value(client, address, total) == 9, 20)
        for text in (*expressions(), *rules()):
            answer = client.get(f"{address}/api/v1/query", params={"query": text}).json()
            assert answer["status"] == "success", (text, answer)
        answered = "sum(rate(ratchet_gateway_requests_total[1m]))"
        until(lambda: (_value(client, address, answered) or 0) > 0, 20)


def _value(client: httpx.Client, address: str, query: str) -> float | None:
    try:
        found = client.get(f"{address}/api/v1/query", params={"query": query}).json()
    except httpx.TransportError:
        return None
    result = found.get("data", {}).get("result", [])
    return float(result[0]["value"][1]) if result else None


@contextmanager
def scraping(folder: Path, port: int) -> Iterator[str]:
    """Run Prometheus by the example, on a gateway of the test and every second."""
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text("utf-8"))
    config["global"]["scrape_interval"] = "1s"
    (job, _pages) = config["scrape_configs"]
    job.pop("authorization")
    job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    config |= {"scrape_configs": [job], "rule_files": [str(FOLDER / "rules.yaml")]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    own = free_port()
    words = [
        str(PROMETHEUS), f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{own}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{own}"
    finally:
        server.terminate()
        server.wait(20)
