"""Adopting what a server serves: real registry, real store, a server that behaves as vLLM does."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest

from ratchet.deploy.adoption import (
    adopt,
    choose,
    look,
    map_version,
    plain_name,
    probe,
    recorded_answers,
)
from ratchet.deploy.backends import Replicas
from ratchet.deploy.rollout.variants import start_test
from ratchet.deploy.routing import current_routing, serving_champion, switch
from ratchet.deploy.served import adoptions, other_names, served_name
from ratchet.errors import ConflictError, InvalidInputError, ModelError, TrackingError
from ratchet.records import (
    Adoption,
    Candidate,
    Interaction,
    Message,
    Release,
    Routing,
    ServedName,
    Variant,
)
from ratchet.tracking import Tracker
from tests.servers.vllm_server import VllmServer

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
LATER = timedelta(minutes=1)


@pytest.fixture
def server():
    with VllmServer(LLAMA) as started:
        yield started


def served_by(*servers):
    with Replicas.of([server.url for server in servers], key=None) as replicas:
        return look(replicas)


def adopted(store, tracker, server, now, *, model=None, also=()):
    served = served_by(server)
    return adopt(store, tracker, choose(served, model), served, also=also, by="ann", now=now)


def trained(tracker, store, folder, now, name="candidate"):
    """A candidate as improve leaves it: an adapter in the registry, and its record."""
    adapter = folder / name
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with tracker.run("test", key=name, name=name, tags={}) as run:
        source = run.folder(adapter, "adapter")
    version = tracker.register_adapter(run.run_id, source, f"digest-{name}")
    store.append(
        Candidate(
            id=name, cycle_id="c", created_at=now, model_name=tracker.model_name,
            version=version.version, adapter_digest="d", path=f"adapters/{name}",
            training_set_id="t", run_id=run.run_id, losses=(), training_seconds=1.0,
        )
    )  # fmt: skip
    return version.reference


def promote(store, tracker, version, previous, now):
    release = Release(
        id=f"promote {version}", created_at=now, action="promote", champion=version,
        previous=previous,
    )  # fmt: skip
    tracker.move_champion(version, previous)
    switch(store, release, by="test", told=True)


def aliases(tracker):
    champion, previous = tracker.champion(), tracker.previous()
    return champion and champion.reference, previous and previous.reference


def journal(store):
    kinds = (Adoption, Release, Routing, ServedName)
    return {kind.__name__: len(store.records(kind)) for kind in kinds}


# What is adopted ----------------------------------------------------------------------------------


def test_the_served_model_is_the_champion_under_its_own_name(store, tracker, server, now):
    done = adopted(store, tracker, server, now)
    assert (done.version, done.champion, done.previous, done.switched) == (LLAMA, LLAMA, None, True)
    assert aliases(tracker) == (LLAMA, None)
    assert tracker.champion().adapter is None
    (release,) = store.records(Release)
    assert (release.action, release.champion, release.by) == ("adopt", LLAMA, "ann")
    assert serving_champion(store) == Variant(version=LLAMA, share=1.0, name="champion")
    assert served_name(store, LLAMA) == LLAMA


def test_adopting_it_again_changes_nothing(store, tracker, server, now):
    adopted(store, tracker, server, now)
    before = journal(store)
    done = adopted(store, tracker, server, now + LATER)
    assert (done.switched, journal(store)) == (False, before)


def test_names_that_the_server_has_for_one_model_are_one_model(store, tracker, now):
    with VllmServer(LLAMA, aliases=["assistant", "gpt-4o"]) as server:
        done = adopted(store, tracker, server, now)
    assert done.version == LLAMA
    assert other_names(store, LLAMA) == ("assistant", "gpt-4o")


def test_of_several_models_one_has_to_be_named(store, tracker, now):
    with VllmServer(LLAMA, others=["org/embedder"]) as server:
        with pytest.raises(InvalidInputError, match=f"{LLAMA}, org/embedder; .*--model"):
            adopted(store, tracker, server, now)
        assert adopted(store, tracker, server, now, model="org/embedder").version == "org/embedder"
        with pytest.raises(InvalidInputError, match=r"got .org/other.; they list .*org/embedder"):
            adopted(store, tracker, server, now, model="org/other")


def test_an_adapter_that_the_server_has_is_adopted_by_its_name(
    store, tracker, server, now, tmp_path
):
    (tmp_path / "adapter_config.json").write_text("{}")
    server.adapters["support-lora"] = str(tmp_path)
    assert adopted(store, tracker, server, now).version == LLAMA
    done = adopted(store, tracker, server, now + LATER, model="support-lora")
    assert (done.version, done.previous) == ("support-lora", LLAMA)
    assert adoptions(store)["support-lora"].parent == LLAMA


def test_replicas_that_disagree_are_refused(server):
    with (
        VllmServer("org/other") as second,
        pytest.raises(ModelError, match=f"{LLAMA} at {server.url} and org/other at {second.url}"),
    ):
        served_by(server, second)


def test_a_model_that_a_replica_lists_and_does_not_answer_is_refused(server):
    with (
        VllmServer(LLAMA) as second,
        Replicas.of([server.url, second.url], key=None) as replicas,
    ):
        probe(replicas, LLAMA)
        second.broken = {LLAMA}
        with pytest.raises(ModelError, match=f"{second.url} .*HTTP 500"):
            probe(replicas, LLAMA)


def test_an_adapter_that_one_replica_lacks_is_not_adopted(server, tmp_path):
    server.adapters["support-lora"] = str(tmp_path)
    with VllmServer(LLAMA) as second, pytest.raises(InvalidInputError, match="every replica"):
        choose(served_by(server, second), "support-lora")


@pytest.mark.parametrize(
    ("served", "word"),
    [
        (LLAMA, "llama-3.1-8b-instruct"),
        ("Qwen2.5 7B (AWQ)", "qwen2.5-7b-awq"),
        ("/models/mistral/", "mistral"),
        ("模型", "assistant"),
    ],
)
def test_the_assistant_is_called_by_a_plain_word(served, word):
    assert plain_name(served) == word


# Names of before ----------------------------------------------------------------------------------


def record(store, version, count, start):
    store.add_interactions(
        [
            Interaction(
                id=f"{version}-{number}", session_id="s", user_id="u", model_version=version,
                created_at=start + number * LATER, response="x", latency_seconds=0.1,
                messages=(Message(role="user", content="hello"),),
            )
            for number in range(count)
        ]
    )  # fmt: skip


def test_what_was_recorded_is_counted_by_the_name_that_it_was_recorded_under(store, now):
    record(store, LLAMA, 3, now - 9 * LATER)
    record(store, "gpt-4o", 5, now - 5 * LATER)
    assert [(found.name, found.answers) for found in recorded_answers(store, now)] == [
        ("gpt-4o", 5), (LLAMA, 3),
    ]  # fmt: skip
    first = recorded_answers(store, now)[1]
    assert (first.first, first.last) == (now - 9 * LATER, now - 7 * LATER)


def test_other_names_can_be_added_at_any_time(store, tracker, server, now):
    adopted(store, tracker, server, now, also=["gpt-4o"])
    done = adopted(store, tracker, server, now + LATER, also=["assistant"])
    assert not done.switched
    assert other_names(store, LLAMA) == ("gpt-4o", "assistant")


@pytest.mark.parametrize("name", ["support-router/2", "champion", "previous"])
def test_a_name_of_a_version_is_no_other_name_of_the_model(store, tracker, server, now, name):
    with pytest.raises(InvalidInputError, match=f"got '{name}'"):
        adopted(store, tracker, server, now, also=[name])
    assert store.records(Release) == ()


# What was there before ----------------------------------------------------------------------------


def test_another_model_later_is_a_release_that_keeps_the_one_before_while_it_is_served(
    store, tracker, now
):
    with VllmServer("org/a", others=["org/b"]) as server:
        adopted(store, tracker, server, now, model="org/a")
        done = adopted(store, tracker, server, now + LATER, model="org/b")
    assert (done.previous, done.gone) == ("org/a", None)
    assert aliases(tracker) == ("org/b", "org/a")
    with VllmServer("org/c") as server:
        done = adopted(store, tracker, server, now + 2 * LATER)
    assert (done.previous, done.gone) == (None, "org/b")
    assert aliases(tracker) == ("org/c", None)
    assert current_routing(store).previous is None


def test_a_base_model_that_no_server_has_is_replaced_and_not_kept(store, tracker, server, now):
    base = tracker.register_base("tiny", "digest-base")
    promote(store, tracker, base.reference, None, now)
    done = adopted(store, tracker, server, now + LATER)
    assert (done.champion, done.gone) == (LLAMA, base.reference)


def test_adopting_again_does_not_undo_a_promotion(store, tracker, server, now, tmp_path):
    adopted(store, tracker, server, now)
    version = trained(tracker, store, tmp_path, now)
    promote(store, tracker, version, LLAMA, now + LATER)
    done = adopted(store, tracker, server, now + 2 * LATER, also=["gpt-4o"])
    assert (done.champion, done.switched) == (version, False)
    assert serving_champion(store).version == version
    assert aliases(tracker) == (version, LLAMA)
    assert other_names(store, LLAMA) == ("gpt-4o",)


def test_nothing_is_adopted_while_a_test_runs(store, tracker, server, now):
    with VllmServer("org/a", others=["org/b"]) as other:
        adopted(store, tracker, other, now, model="org/a")
        brief = Variant(version="org/b", share=0.2, name="brief")
        start_test(store, "test", [brief], now=now + LATER)
        before = journal(store)
        with pytest.raises(ConflictError, match="one rollout or test"):
            adopted(store, tracker, other, now + 2 * LATER, model="org/b")
    assert journal(store) == before


# Interrupted --------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


class Dying(Tracker):
    """A registry whose process is killed before or after a step, the first time."""

    step = ""
    after = False

    def register_served(self, name):
        return self._die("register", super().register_served, name)

    def move_champion(self, champion, previous):
        return self._die("move", super().move_champion, champion, previous)

    def _die(self, step, act, *arguments):
        if self.step != step:
            return act(*arguments)
        self.step = ""
        if self.after:
            act(*arguments)
        raise Killed


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["register", "move"])
def test_an_adoption_that_was_killed_is_completed_by_the_next(
    store, tmp_path, mlflow_database, server, now, step, after
):
    database = shutil.copyfile(mlflow_database, tmp_path / "mlflow.db")
    dying = Dying(f"sqlite:///{database}", artifacts=tmp_path / "a", model_name="support-router")
    dying.step, dying.after = step, after
    with pytest.raises(Killed):
        adopted(store, dying, server, now)
    done = adopted(store, dying, server, now + LATER)
    assert (done.champion, done.told) == (LLAMA, True)
    assert aliases(dying) == (LLAMA, None)
    assert len(store.records(Release)) == len(store.records(Adoption)) == 1
    assert serving_champion(store).version == LLAMA


def test_without_mlflow_nothing_is_adopted(store, tmp_path, server, now):
    tracker = Tracker("http://127.0.0.1:9", artifacts=tmp_path, model_name="support-router")
    with pytest.raises(TrackingError, match="needs MLflow, which does not answer"):
        adopted(store, tracker, server, now)
    assert store.records(Release) == ()


# Versions of one's own that the server calls otherwise --------------------------------------------


def test_a_version_is_asked_for_by_the_name_that_the_server_has(
    store, tracker, server, now, tmp_path
):
    version = trained(tracker, store, tmp_path, now)
    server.adapters["support-lora"] = str(tmp_path)
    served = served_by(server)
    assert map_version(store, tracker, served, version, "support-lora", now)
    assert not map_version(store, tracker, served, version, "support-lora", now + LATER)
    assert served_name(store, version) == "support-lora"
    assert store.records(Release) == ()
    with pytest.raises(InvalidInputError, match="got 'nothing'"):
        map_version(store, tracker, served, version, "nothing", now)
    with pytest.raises(TrackingError, match="support-router/99"):
        map_version(store, tracker, served, "support-router/99", "support-lora", now)
