"""A version as MLflow loads it: a `LoggedModel` with an adapter and what says how to answer by it.

    model = mlflow.pyfunc.load_model("models:/support-router@champion")
    model.predict({"messages": [{"role": "user", "content": "where is my parcel?"}]})

No pickle: MLflow imports `LOADER`, which reads `FACTS` beside the adapter. The base model is named
there with its digest, and not copied.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

LOADER = "ratchet.operate.registered_model"
"""The module by which MLflow loads a version."""
FACTS = "ratchet.json"
"""The file that says what a version is made of."""
MOST_TOKENS = 256
EXAMPLE = {"messages": [{"role": "user", "content": "Where is my parcel?"}]}
_NEEDED = ("ratchet-llm", "mlflow", "torch", "transformers", "peft", "safetensors")
_KIND = "ratchet.model"


def log_model(
    client: Any, experiment_id: str, run_id: str, adapter: Path | None, facts: Mapping[str, str]
) -> tuple[str, str]:
    """Log a version as a model of a run, once.

    Args:
        client: Of MLflow.
        experiment_id: The run's experiment.
        run_id: The run that made it.
        adapter: Folder of the adapter; None for the base model alone.
        facts: What it is made of: `base_model`, `base_digest`, `digest`, `chat_template`.

    Returns:
        Its id, and the address of its files.
    """
    from mlflow.entities import LoggedModelOutput

    known = client.search_logged_models(
        experiment_ids=[experiment_id],
        filter_string=f"tags.`{_KIND}` = '{facts['digest']}'",
    )
    for one in known:
        if str(one.status) == "READY":
            return str(one.model_id), str(one.artifact_location)
    made = client.create_logged_model(
        experiment_id,
        name="adapter" if adapter else "base",
        source_run_id=run_id,
        tags={_KIND: facts["digest"]},
        params=dict(facts),
        model_type="chat",
    )
    with tempfile.TemporaryDirectory(prefix="ratchet-model-") as folder:
        _write(Path(folder), made, run_id, facts)
        if adapter is not None:
            client.log_model_artifacts(made.model_id, str(adapter))
        client.log_model_artifacts(made.model_id, folder)
    client.finalize_logged_model(made.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return str(made.model_id), str(made.artifact_location)


def _write(folder: Path, made: Any, run_id: str, facts: Mapping[str, str]) -> None:
    """Write what MLflow reads beside an adapter: MLmodel, requirements, example and facts."""
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, ColSpec, Object, Property

    turn = Object([Property("role", DataType.string), Property("content", DataType.string)])
    signature = ModelSignature(
        inputs=Schema([ColSpec(Array(turn), name="messages")]),
        outputs=Schema([ColSpec(DataType.string)]),
        params=ParamSchema(
            [
                ParamSpec("max_tokens", DataType.long, MOST_TOKENS),
                ParamSpec("temperature", DataType.double, 0.0),
            ]
        ),
    )
    model = Model(
        artifact_path=made.artifact_location,
        run_id=run_id,
        model_id=made.model_id,
        signature=signature,
        saved_input_example_info={"artifact_path": "input_example.json", "type": "json_object"},
        metadata=dict(facts),
    )
    pyfunc.add_to_model(model, loader_module=LOADER, python_env="python_env.yaml")
    model.save(str(folder / "MLmodel"))
    needed = [f"{name}=={installed(name)}" for name in _NEEDED]
    (folder / "requirements.txt").write_text("\n".join(needed) + "\n")
    (folder / "python_env.yaml").write_text("python: '3.11'\ndependencies: [-r requirements.txt]\n")
    (folder / "input_example.json").write_text(json.dumps(EXAMPLE))
    (folder / FACTS).write_text(json.dumps(dict(facts), indent=2))


def link_evaluation(
    client: Any, run_id: str, model_id: str, numbers: Mapping[str, float], data: str
) -> None:
    """Say of a model what a run measured of it, and on which data.

    Args:
        client: Of MLflow.
        run_id: The run that measured.
        model_id: The model.
        numbers: What it measured.
        data: Id of the data, which says what it holds.
    """
    from mlflow.entities import LoggedModelInput

    client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    for name, value in numbers.items():
        client.log_metric(
            run_id, name, value, model_id=model_id, dataset_name=data, dataset_digest=data[:36]
        )
