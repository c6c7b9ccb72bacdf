"""The Helm chart renders by Helm itself, and what it renders is what Kubernetes takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from ratchet.settings import VARIABLES

CHART = Path(__file__).parents[2] / "containers" / "chart"
VERSIONS = ("1.27", "1.30", "1.37")  # the oldest that the chart allows, and the newest known here
BIG: dict[str, Any] = {
    "image": {"repository": "registry.example/ratchet", "tag": "9"},
    "imagePullSecrets": [{"name": "pull"}],
    "settings": {"RATCHET_MODEL_NAME": "shop", "RATCHET_JUDGES": "/etc/ratchet/judges.yaml"},
    "files": {"judges.yaml": "judges: []\n", "pages.yaml": "host: 0.0.0.0\n# {{ no template }}\n"},
    "environmentFrom": [{"secretRef": {"name": "object-storage"}}],
    "adapters": {"claim": "adapters"},
    "gateway": {
        "replicas": 3, "workers": 4, "storageClass": "fast",
        "backends": ["http://gpu-0:8000", "http://gpu-1:8000"],
        "arguments": ["--load-adapters", "--last-resort", 'say "sorry"'],
        "service": {"type": "LoadBalancer", "port": 443}, "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
    },
    "worker": {"replicas": 2},
    "training": {"claim": "training-home", "nodeSelector": {"gpu": "h100"}},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "shop"}}}]},
}  # fmt: skip
SMALL: dict[str, Any] = {
    "pages": {"enabled": False},
    "training": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "secret": {"keys": {"RATCHET_STORE_URL": None}},
}


def rendered(values: dict[str, Any], name: str = "demo") -> list[dict[str, Any]]:
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        texts = chart.render(values, name=name, namespace="prod")
    return [
        document
        for path, text in texts.items()
        if not path.endswith("NOTES.txt")
        for document in yaml.safe_load_all(text)
        if document is not None
    ]


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]
        for one in documents
        if one["kind"] in ("Deployment", "StatefulSet", "Job")
    }
    if job := training_job(documents):
        found["training-job"] = job["job_configuration"]["job_manifest"]["spec"]["template"]
    return found


def training_job(documents: list[dict[str, Any]]) -> dict[str, Any]:
    files = [one["data"] for one in documents if one["kind"] == "ConfigMap"]
    return next((json.loads(data["job.json"]) for data in files if "job.json" in data), {})


def test_helm_finds_nothing_to_complain_of():
    found = helm.lint(CHART)
    assert found["errors"] == []
    assert [one for one in found["messages"] if "icon" not in str(one)] == []


@pytest.mark.parametrize("values", [{}, SMALL, BIG], ids=["default", "small", "big"])
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_what_is_rendered(values, version):
    documents = rendered(values)
    assert len({(one["kind"], one["metadata"]["name"]) for one in documents}) == len(documents)
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    if job := training_job(documents):
        manifest = filled(job["job_configuration"]["job_manifest"])
        kubernetes_validate.validate(manifest, version, strict=True)


def filled(manifest: dict[str, Any]) -> dict[str, Any]:
    """A job as Prefect's worker sends it: words in double braces are what a run says."""
    said = {
        "{{ name }}-": "run-", "{{ namespace }}": "prod", "{{ labels }}": {"a": "b"},
        "{{ annotations }}": {}, "{{ finished_job_ttl }}": 60, "{{ image }}": "ratchet:1",
        "{{ command }}": ["prefect", "flow-run", "execute"],
        "{{ env }}": [{"name": "A", "value": "b"}],
    }  # fmt: skip

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(one) for key, one in value.items()}
        if isinstance(value, list):
            return [fill(one) for one in value]
        return said.get(value, value) if isinstance(value, str) else value

    done: dict[str, Any] = fill(manifest)
    assert "{{" not in json.dumps(done)
    return done


@pytest.mark.parametrize("values", [{}, BIG], ids=["default", "big"])
def test_every_pod_is_confined_named_probed_and_bounded(values):
    found = pods(rendered(values))
    assert set(found) == {"gateway", "worker", "pages", "register", "training", "training-job"}
    for part, pod in found.items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert ("livenessProbe" in container) == (part in ("gateway", "pages", "training"))
        # only what starts jobs talks to Kubernetes
        assert ("serviceAccountName" in spec) == (part == "training")
        mounted = {one["name"] for one in container["volumeMounts"]}
        kept = {one["name"] for one in spec["volumes"]} | ({"home"} if part == "gateway" else set())
        assert mounted == kept
        env = container["env"]
        names = [one["name"] for one in env] if isinstance(env, list) else []
        assert len(set(names)) == len(names)


def test_services_budgets_and_policies_choose_the_pods_that_there_are():
    documents = rendered(BIG)
    labels = [pod["metadata"]["labels"] for pod in pods(documents).values()]
    chosen = {
        "Service": "selector",
        "PodDisruptionBudget": "selector",
        "NetworkPolicy": "podSelector",
    }
    for one in documents:
        if one["kind"] in chosen:
            selector = one["spec"][chosen[one["kind"]]]
            selector = selector.get("matchLabels", selector)
            matching = [pod for pod in labels if selector.items() <= pod.items()]
            assert len(matching) == 1, one["metadata"]["name"]
    ports = {
        port["name"]
        for pod in pods(documents).values()
        for port in pod["spec"]["containers"][0].get("ports", [])
    }
    for one in documents:
        if one["kind"] == "Service":
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports


def test_variables_are_settings_that_there_are_and_secrets_are_files():
    job = training_job(rendered(BIG))["variables"]["properties"]["env"]["default"]
    gateway = pods(rendered(BIG))["gateway"]["spec"]["containers"][0]
    given = {one["name"]: one["value"] for one in gateway["env"]}
    assert given == job  # what trains is told what everything else is told
    ours = {name.removesuffix("_FILE") for name in given if name.startswith("RATCHET_")}
    assert ours - {"RATCHET_GATEWAY_SECRET"} <= set(VARIABLES.values())
    assert given["RATCHET_STORE_URL_FILE"] == "/run/secrets/ratchet/store-url"
    assert "RATCHET_STORE_URL" not in given
    assert given["RATCHET_BACKEND"] == "http://gpu-0:8000 http://gpu-1:8000"


def test_the_gateways_share_rates_and_each_keeps_its_log_on_a_disk_of_its_own():
    (gateway,) = [one for one in rendered(BIG) if one["kind"] == "StatefulSet"]
    arguments = gateway["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--gateways") + 1] == str(gateway["spec"]["replicas"]) == "3"
    assert arguments[-1] == 'say "sorry"'
    (claim,) = gateway["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


@pytest.mark.parametrize(
    "values",
    [
        {"gateway": {"replica": 2}},
        {"gateway": {"replicas": 0}},
        {"gateway": {"backends": "http://gpu:8000"}},
        {"servers": {"prefect": "http://prefect:4200"}},
        {"settings": {"ratchet_home": "/x"}},
        {"secret": {"keys": {"RATCHET_STORE_URL": 1}}},
        {"nonsense": True},
    ],
)
def test_values_that_mean_nothing_are_refused(values):
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError):
        chart.render(values, name="demo", namespace="prod")
