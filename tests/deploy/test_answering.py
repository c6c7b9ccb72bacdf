"""Users are sent to a version only once every replica lists it and answers as it."""

from __future__ import annotations

import ast
import shutil
import socket
import time
from pathlib import Path

import pytest

from ratchet.deploy.adapters import AdapterShelf
from ratchet.deploy.answering import Answering
from ratchet.errors import NotAnsweringError
from ratchet.records import Release, Routing, RoutingFollowed, ServedName, Variant
from ratchet.tracking import Tracker
from tests.deploy.adapter_files import NOW, trained
from tests.servers.vllm_server import VllmServer


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def version(store, tracker, home):
    return trained(store, tracker, home, 1)


@pytest.fixture
def replicas(tmp_path):
    """Two replicas that see the shared folder as `/models`, each with a memory of its own."""
    shared = {"/models": tmp_path / "shared"}
    with (
        VllmServer("org/base", mounts=shared) as one,
        VllmServer("org/base", mounts=shared) as two,
    ):
        yield one, two


@pytest.fixture
def behind(store, tracker, home, tmp_path):
    """What answers: the replicas given, or the local model where there are none."""

    def made(*servers, tracker=tracker, root="/models"):
        return Answering(
            store=store,
            tracker=lambda: tracker,
            shelf=AdapterShelf(home, tmp_path / "shared", root),
            backend=tuple(server.url for server in servers),
        )

    return made


# A backend ----------------------------------------------------------------------------------------


def test_an_adapter_is_loaded_into_every_replica_and_asked_once(behind, replicas, version):
    assert behind(*replicas).problem(version) is None
    for server in replicas:
        assert server.adapters[version].startswith("/models/support-router-1-")
        assert server.answers == [(200, version)]
    behind(*replicas).require(version)
    assert [server.calls for server in replicas] == [[("load", version)]] * 2


def test_a_replica_that_is_down_is_named_and_keeps_users_away(behind, replicas, version):
    one, two = replicas
    two.stop()
    with pytest.raises(NotAnsweringError, match=f"{two.url} cannot be asked") as raised:
        behind(one, two).require(version)
    assert one.url not in str(raised.value)
    assert "what users have now stays" in str(raised.value)
    two.start()
    assert behind(one, two).problem(version) is None


def test_a_version_that_does_not_exist_is_refused_with_what_there_is(behind, replicas, version):
    said = behind(*replicas).problem("support-router/77")
    assert f"{replicas[0].url} does not list 'support-router/77', it has: org/base" in said
    assert f"'support-router/77'; there are: {version}" in said


def test_a_version_is_asked_for_by_its_name_at_the_backend(behind, replicas, store, tracker):
    served = tracker.register_served("adopted").reference
    assert "does not list 'adopted'" in behind(*replicas).problem(served)
    store.append(ServedName(id="n", created_at=NOW, version=served, name="org/base"))
    assert behind(*replicas).problem(served) is None
    assert replicas[0].answers == [(200, "org/base")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_rank": 4}, "LoRA rank 8 is greater than max_lora_rank 4"),
        ({"updating": False}, "load_lora_adapter with HTTP 404"),
        ({"mounts": {"/elsewhere": Path("x")}}, "No adapter found for /models/.*BACKEND_ADAPTER"),
    ],
)
def test_what_the_server_refuses_is_the_reason(behind, version, change, said, tmp_path):
    options = {"mounts": {"/models": tmp_path / "shared"}} | change
    with VllmServer("org/base", **options) as server, pytest.raises(NotAnsweringError, match=said):
        behind(server).require(version)


def test_a_version_that_is_listed_and_gives_no_answer_does_not_answer(behind, replicas, version):
    replicas[1].broken.add(version)
    said = behind(*replicas).problem(version)
    assert f"{replicas[1].url} answers POST /v1/chat/completions with HTTP 500: " in said
    assert "the engine is dead" in said


def test_a_name_that_is_taken_with_nothing_behind_it_is_loaded_anew(behind, replicas, version):
    one, two = replicas
    one.lost_loads = 1
    assert "the engine died while it loaded" in behind(one, two).problem(version)
    assert behind(one, two).problem(version) is None
    assert ("unload", version) in one.calls


def test_a_replica_that_keeps_silent_costs_the_seconds_that_were_given(behind, version):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        answering = behind()
        asked = Answering(answering.store, answering.tracker, answering.shelf, (url,))
        begun = time.monotonic()
        assert f"{url} does not answer within 0.3 s" in asked.problem(version, seconds=0.3)
        assert time.monotonic() - begun < 3.0


def test_a_backend_that_has_the_version_already_needs_no_mlflow(behind, replicas, version, home):
    behind(*replicas).require(version)
    shutil.rmtree(home)
    away = Tracker("http://127.0.0.1:9", artifacts=home, model_name="support-router")
    assert behind(*replicas, tracker=away).problem(version) is None


def test_one_name_for_all_versions_takes_no_second_version(behind, replicas, store, version):
    routing = Routing(
        id="r", created_at=NOW, experiment="serving",
        variants=(Variant(version="org/base", share=1.0),),
    )  # fmt: skip
    store.append(routing)
    followed = RoutingFollowed(
        id="f", created_at=NOW, routing_id="r", process="host:1", asks_for="org/base"
    )
    store.append(followed)
    assert "--backend-model" in behind(*replicas).problem(version)
    assert behind(*replicas).problem("org/base") is None
    store.append(followed.model_copy(update={"id": "g", "asks_for": None}))
    assert behind(*replicas).problem(version) is None


# The local model ----------------------------------------------------------------------------------


def test_the_local_model_answers_as_what_is_known_and_in_place(behind, tracker, version, home):
    base = tracker.register_base("tiny", "digest-base")
    assert behind().problem(version) is None
    assert behind().problem(base.reference) is None
    assert f"(known here: {version})" in behind().problem("support-router/77")


def test_the_local_model_needs_the_adapter_that_was_trained(behind, version, home, tmp_path):
    weights = home / "adapters" / "k1" / "adapter_model.safetensors"
    weights.write_bytes(b"poisoned")
    assert behind().problem(version) is None  # MLflow has the right one
    shutil.rmtree(tmp_path / "shared")
    (artifact,) = (tmp_path / "artifacts").rglob("adapter_model.safetensors")
    artifact.write_bytes(b"poisoned")
    assert "must have the digest" in behind().problem(version)


@pytest.mark.slow
def test_without_mlflow_what_users_had_is_known(behind, store, home):
    away = Tracker("http://127.0.0.1:9", artifacts=home, model_name="support-router")
    assert "does not answer within" in behind(tracker=away).problem("support-router/1")
    release = Release(
        id="r", created_at=NOW, action="start", champion="support-router/1", previous=None
    )
    store.append(release)
    assert behind(tracker=away).problem("support-router/1") is None


# Nobody is forgotten ------------------------------------------------------------------------------

ROUTES = {
    "start_rollout", "begin_decided", "act_on", "start_test", "end_test", "apply_decision",
    "adopt_champion", "establish_champion", "roll_back",
}  # fmt: skip


def test_every_step_that_routes_is_checked_wherever_a_command_or_a_flow_takes_it():
    root = Path(__file__).parents[2]
    taken = set()
    for path in [*(root / "src" / "ratchet" / "cli").glob("*.py"), *(root / "flows").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = getattr(getattr(node, "func", None), "id", None)
            if isinstance(node, ast.Call) and name in ROUTES:
                taken.add(name)
                given = {keyword.arg for keyword in node.keywords}
                assert "answering" in given, f"{path.name}:{node.lineno} calls {name} unchecked"
    assert taken == ROUTES
