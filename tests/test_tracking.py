"""The tracker against a real MLflow on SQLite; what it wrote is read with MLflow's own client."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from ratchet.errors import TrackingError
from ratchet.tracking import Tracker

EXPERIMENT = "routing"


@pytest.fixture
def client(tracker: Tracker, tmp_path: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


def opened(tracker, key="k", *, experiment=EXPERIMENT, name="improve 1", **tags):
    return tracker.run(experiment, key=key, name=name, tags=tags)


def adapter(tracker, folder, name="adapter"):
    """Write an adapter, store it in a run and return the run's id and the artifact's address."""
    made = folder / name
    made.mkdir(parents=True)
    (made / "adapter_config.json").write_text('{"r": 8}')
    with opened(tracker, key=name) as run:
        return run.run_id, run.folder(made, "adapter")


def challenger(tracker, folder, name="adapter"):
    return tracker.register_adapter(*adapter(tracker, folder, name), f"digest-{name}")


def aliases(client, tracker):
    """Read the aliases as MLflow keeps them; its client gives the versions as numbers."""
    found = client.get_registered_model(tracker.model_name).aliases
    return {alias: str(version) for alias, version in found.items()}


# Runs ---------------------------------------------------------------------------------------------


def test_a_run_is_named_tagged_and_found_again_by_its_key(tracker, client):
    with opened(tracker, **{"ratchet.stage": "improve"}) as first:
        pass
    with opened(tracker, name="another name") as again:
        assert client.get_run(first.run_id).info.status == "RUNNING"
    assert again.run_id == first.run_id
    (run,) = client.search_runs([first.experiment_id])
    assert run.info.run_name == "improve 1"
    assert run.data.tags["ratchet.stage"] == "improve"
    assert run.info.status == "FINISHED"


def test_another_key_or_another_experiment_is_another_run(tracker, client):
    ids = set()
    for experiment, key in ((EXPERIMENT, "k"), (EXPERIMENT, "l"), ("elsewhere", "k")):
        with opened(tracker, key, experiment=experiment) as run:
            ids.add(run.run_id)
    assert len(ids) == 3
    assert {e.name for e in client.search_experiments()} >= {EXPERIMENT, "elsewhere"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_an_error_ends_is_failed_and_can_be_gone_on_with(tracker, client, error):
    def cut_short():
        with opened(tracker) as run:
            run.metrics({"loss": 1.0})
            raise error(run.run_id)

    with pytest.raises(error) as stopped:
        cut_short()
    (run_id,) = stopped.value.args
    assert client.get_run(run_id).info.status == "FAILED"
    with opened(tracker) as again:
        pass
    assert again.run_id == run_id
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"loss": 1.0}


def test_a_parameter_that_was_logged_stands_when_the_stage_is_repeated(tracker, client):
    with opened(tracker) as run:
        run.params({"rank": 8, "learning_rate": 2e-4})
    with opened(tracker) as run:
        run.params({"rank": 16, "epochs": 3})
        run.params({"rank": 16})
    logged = client.get_run(run.run_id).data.params
    assert logged == {"rank": "8", "learning_rate": "0.0002", "epochs": "3"}


def test_a_parameter_is_cut_where_mlflow_would_refuse_it(tracker, client):
    with opened(tracker) as run:
        run.params({"prompt": "x" * 7000})
    # MLflow's limit on the value of a parameter is 6,000 characters
    assert client.get_run(run.run_id).data.params == {"prompt": "x" * 6000}


def test_tags_are_replaced_and_metrics_keep_their_step(tracker, client):
    with opened(tracker) as run:
        run.tags({"verdict": "hold", "cycle": "1"})
        run.tags({"verdict": "promote"})
        run.metrics({"accuracy": 0.5}, step=1)
        run.metrics({"accuracy": 0.75}, step=2)
    tags = client.get_run(run.run_id).data.tags
    assert (tags["verdict"], tags["cycle"]) == ("promote", "1")
    history = client.get_metric_history(run.run_id, "accuracy")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.75)]


def test_a_series_counts_its_steps_from_one_and_may_be_longer_than_a_batch(tracker, client):
    # MLflow takes 1,000 metrics at once
    values = [1.0 / step for step in range(1, 1502)]
    with opened(tracker) as run:
        run.series("loss", values)
        run.series("nothing", [])
    history = client.get_metric_history(run.run_id, "loss")
    points = sorted((point.step, point.value) for point in history)
    assert points == list(enumerate(values, start=1))
    assert client.get_metric_history(run.run_id, "nothing") == []


# Artifacts ----------------------------------------------------------------------------------------


def test_a_text_and_a_plot_are_artifacts(tracker, client, tmp_path):
    figure = Figure()
    figure.subplots().plot([1, 2, 3])
    with opened(tracker) as run:
        run.text("# Ünïcode report\n", "report.md")
        run.figure(figure, "plots/loss.png")
    assert {item.path for item in client.list_artifacts(run.run_id)} == {"report.md", "plots"}
    report = Path(client.download_artifacts(run.run_id, "report.md", str(tmp_path)))
    assert report.read_text("utf-8") == "# Ünïcode report\n"
    plot = Path(client.download_artifacts(run.run_id, "plots/loss.png", str(tmp_path)))
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"  # the signature of PNG


def test_a_table_is_one_that_mlflow_reads_back(tracker, client):
    with opened(tracker) as run:
        run.table({"queue": ["billing", "refunds"], "errors": [3, 1]}, "failures.json")
    read = client.load_table(run.experiment_id, "failures.json", [run.run_id])
    assert list(read.columns) == ["queue", "errors"]
    assert read.to_numpy().tolist() == [["billing", 3], ["refunds", 1]]


def test_a_second_table_does_not_hide_the_first(tracker, client):
    with opened(tracker) as run:
        run.table({"queue": ["billing"]}, "first.json")
        run.table({"queue": ["refunds"]}, "second.json")
    for name, queue in (("first.json", "billing"), ("second.json", "refunds")):
        read = client.load_table(run.experiment_id, name, [run.run_id])
        assert read.to_numpy().tolist() == [[queue]]


def test_columns_of_unequal_length_are_refused_and_nothing_is_stored(tracker, client):
    with opened(tracker) as run, pytest.raises(ValueError, match="shorter"):
        run.table({"queue": ["billing", "refunds"], "errors": [3]}, "failures.json")
    assert client.list_artifacts(run.run_id) == []


def test_a_dataset_is_an_input_with_its_digest_and_use_however_often_it_is_logged(tracker, client):
    rows = pd.DataFrame({"text": ["a", "b"], "length": np.array([1, 1])})
    for _ in range(2):
        with opened(tracker) as run:
            run.dataset(
                rows, name="training-set", digest="d" * 64, source="store.db", context="training"
            )
    (used,) = client.get_run(run.run_id).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("training-set", "d" * 36)
    assert "store.db" in used.dataset.source
    assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training"}


def test_a_folder_is_stored_whole_at_the_address_that_is_returned(tracker, client, tmp_path):
    made = tmp_path / "made"
    (made / "inner").mkdir(parents=True)
    (made / "top.txt").write_text("top")
    (made / "inner" / "deep.txt").write_text("deep")
    with opened(tracker) as run:
        address = run.folder(made, "adapter")
    stored = Path(mlflow.artifacts.download_artifacts(address))
    assert (stored / "top.txt").read_text() == "top"
    assert (stored / "inner" / "deep.txt").read_text() == "deep"
    assert [item.path for item in client.list_artifacts(run.run_id)] == ["adapter"]
    assert (tmp_path / "artifacts") in stored.parents


# Assessments --------------------------------------------------------------------------------------


@pytest.fixture
def trace_id(tracker: Tracker) -> str:
    mlflow.set_experiment(experiment_id="0")  # other tests of this process name theirs
    with mlflow.start_span("answer") as span:
        span.set_inputs({"question": "where is my parcel"})
    mlflow.flush_trace_async_logging()
    return span.trace_id


def assessments(client, trace_id):
    """What stands: name, value and source of each assessment that was not replaced."""
    found = client.get_trace(trace_id).info.assessments
    return sorted(
        (a.name, a.value, a.source.source_type, a.source.source_id)
        for a in found
        if a.valid is not False
    )


def test_a_person_and_a_judge_are_told_apart_by_their_source(tracker, client, trace_id):
    assert tracker.assess(trace_id, "routing", "wrong", by="ann", human=True, why="other queue")
    assert tracker.assess(
        trace_id, "routing", "right", by="judge-1", human=False, why="So.",
        metadata={"decision": "usable"},
    )  # fmt: skip
    assert tracker.assess(trace_id, "score", 0.25, by="judge-1", human=False)
    assert assessments(client, trace_id) == [
        ("routing", "right", "LLM_JUDGE", "judge-1"),
        ("routing", "wrong", "HUMAN", "ann"),
        ("score", 0.25, "LLM_JUDGE", "judge-1"),
    ]
    by_source = {a.source.source_id: a for a in client.get_trace(trace_id).info.assessments
                 if a.name == "routing"}  # fmt: skip
    assert by_source["ann"].rationale == "other queue"
    assert by_source["judge-1"].rationale == "So."
    assert by_source["judge-1"].metadata["decision"] == "usable"


def test_an_assessment_is_written_once(tracker, client, trace_id):
    said = {"by": "judge-1", "human": False}
    assert tracker.assess(trace_id, "routing", "right", **said)
    assert not tracker.assess(trace_id, "routing", "right", **said)
    assert len(client.get_trace(trace_id).info.assessments) == 1
    assert tracker.assess(trace_id, "routing", "right", by="judge-2", human=False)
    assert tracker.assess(trace_id, "tone", "right", **said)


def test_a_changed_mind_replaces_what_the_same_source_said(tracker, client, trace_id):
    said = {"by": "ann", "human": True}
    assert tracker.assess(trace_id, "routing", "right", **said)
    assert tracker.assess(trace_id, "routing", "wrong", **said, why="I was mistaken")
    assert not tracker.assess(trace_id, "routing", "wrong", **said)
    assert assessments(client, trace_id) == [("routing", "wrong", "HUMAN", "ann")]


@pytest.mark.parametrize("unknown", ["tr-0123456789abcdef0123456789abcdef", "nonsense", ""])
def test_an_unknown_trace_is_a_warning_and_not_an_error(tracker, caplog, unknown):
    with caplog.at_level("WARNING", logger="ratchet.tracking"):
        assert tracker.assess(unknown, "routing", "right", by="ann", human=True) is False
    assert [r.levelname for r in caplog.records if r.name == "ratchet.tracking"] == ["WARNING"]


def test_an_assessment_goes_to_its_own_trackers_store(tracker, client, trace_id, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    # whatever store the process was pointed at meanwhile
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert tracker.assess(trace_id, "routing", "right", by="ann", human=True)
    assert assessments(MlflowClient(uri), trace_id) == [("routing", "right", "HUMAN", "ann")]
    assert not (tmp_path / "elsewhere.db").exists()


# Registry -----------------------------------------------------------------------------------------


def test_an_empty_registry_has_no_champion_and_no_previous(tracker):
    assert tracker.champion() is None
    assert tracker.previous() is None


def test_the_base_model_is_registered_once_and_without_weights(tracker, client):
    first = tracker.register_base("smollm2", "digest-base")
    assert tracker.register_base("smollm2", "digest-base") == first
    assert first.reference == "support-router/1"
    assert (first.version, first.digest) == ("1", "digest-base")
    assert (first.adapter, first.run_id) == (None, None)
    assert tracker.adapter_folder(first) is None
    assert len(client.search_model_versions("name = 'support-router'")) == 1
    assert aliases(client, tracker) == {}


def test_an_adapter_with_the_same_digest_keeps_its_version(tracker, client, tmp_path):
    tracker.register_base("smollm2", "digest-base")
    run_id, source = adapter(tracker, tmp_path)
    first = tracker.register_adapter(run_id, source, "digest-1")
    other = challenger(tracker, tmp_path, "other")
    assert (first.reference, other.reference) == ("support-router/2", "support-router/3")
    assert aliases(client, tracker) == {"challenger": "3"}
    assert tracker.register_adapter(run_id, source, "digest-1") == first
    assert first.run_id == run_id
    assert aliases(client, tracker) == {"challenger": "2"}
    assert len(client.search_model_versions("name = 'support-router'")) == 3


def test_a_version_is_found_by_its_reference(tracker, tmp_path):
    made = challenger(tracker, tmp_path)
    assert tracker.version(made.reference) == made
    assert tracker.version(made.version) == made


@pytest.mark.parametrize("reference", ["support-router/9", "another/1", "support-router/x", ""])
def test_a_version_that_is_not_registered_is_refused_with_the_way_out(tracker, reference):
    tracker.register_base("smollm2", "digest-base")
    with pytest.raises(TrackingError, match="must be one of 'support-router'") as refused:
        tracker.version(reference)
    assert repr(reference) in str(refused.value)
    with pytest.raises(TrackingError):
        tracker.move_champion(reference, None)
    with pytest.raises(TrackingError):
        tracker.tag_version(reference, {"ratchet.verdict": "hold"})
    assert tracker.champion() is None


def test_the_aliases_move_forward_and_back_and_doing_it_twice_is_harmless(
    tracker, client, tmp_path
):
    base = tracker.register_base("smollm2", "digest-base")
    new = challenger(tracker, tmp_path)
    for _ in range(2):
        tracker.move_champion(base.reference, None)
        assert (tracker.champion(), tracker.previous()) == (base, None)
    for _ in range(2):
        tracker.move_champion(new.reference, base.reference)
        assert (tracker.champion(), tracker.previous()) == (new, base)
    assert aliases(client, tracker) == {"champion": "2", "previous": "1", "challenger": "2"}
    for _ in range(2):
        tracker.move_champion(base.reference, None)
        assert (tracker.champion(), tracker.previous()) == (base, None)
    assert aliases(client, tracker) == {"champion": "1", "challenger": "2"}


def test_the_verdict_is_a_tag_of_the_version(tracker, client, tmp_path):
    made = challenger(tracker, tmp_path)
    tracker.tag_version(made.reference, {"ratchet.verdict": "hold"})
    tracker.tag_version(made.reference, {"ratchet.verdict": "promote"})
    tags = client.get_model_version("support-router", made.version).tags
    assert tags["ratchet.verdict"] == "promote"
    assert tracker.version(made.reference) == made


@pytest.mark.parametrize("folder", ["artifacts", "my artifacts", "Künstliche 100%"])
def test_an_adapter_is_read_where_it_lies_whatever_the_folder_is_called(tmp_path, tracker, folder):
    place = tmp_path / folder
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    local = Tracker(uri, artifacts=place, model_name="support-router")
    made = challenger(local, tmp_path / "made")
    found = local.adapter_folder(made)
    assert (found / "adapter_config.json").read_text() == '{"r": 8}'
    assert place in found.parents
    assert made.adapter == found


def test_an_adapter_that_lies_nowhere_is_an_error_that_names_its_version(tracker, tmp_path):
    run_id, _ = adapter(tracker, tmp_path)
    gone = tracker.register_adapter(run_id, (tmp_path / "gone").as_uri(), "digest-gone")
    with pytest.raises(TrackingError, match=gone.reference):
        tracker.adapter_folder(gone)


def test_a_model_of_a_server_is_a_version_under_the_servers_name(tracker, client):
    name = "meta-llama/Llama-3.1-8B-Instruct"
    served = tracker.register_served(name)
    assert (served.reference, served.version, served.adapter) == (name, "1", None)
    assert tracker.register_served(name) == served
    assert tracker.version(name) == served
    other = tracker.register_served("org/other")
    assert other.digest != served.digest
    tracker.move_champion("org/other", name)
    assert tracker.champion() == other
    assert aliases(client, tracker) == {"champion": "2", "previous": "1"}
    with pytest.raises(TrackingError, match="org/third"):
        tracker.version("org/third")
