import json

import pytest
import torch

from ratchet.errors import InvalidInputError, ModelError
from ratchet.improve.curation.rows import TrainingRow
from ratchet.improve.training.config import FinetuneConfig, finetune_key
from ratchet.improve.training.finetune import FinetuneResult, finetune
from ratchet.models import HuggingFaceModel, adapter_digest, prepare_base_model
from ratchet.models.serving import AdapterModel
from ratchet.records import Message

QUICK = FinetuneConfig(
    rank=8, alpha=16, epochs=10.0, learning_rate=2e-2, batch_size=4, warmup_steps=0
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
QUEUES = ("billing", "refunds")


def row(number, text=None, target=None):
    messages = (
        Message(role="system", content="Answer with the queue."),
        Message(role="user", content=text or f"message {number}"),
    )
    return TrainingRow(f"i{number}", messages, target or QUEUES[number % 2], "correction")


ROWS = tuple(row(number) for number in range(8))


def train(base, home, *, rows=ROWS, config=QUICK, key="a" * 64, start_from=None):
    return finetune(rows, config, base=base, start_from=start_from, key=key, home=home)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(tiny_model, home):
    return train(tiny_model, home)


def test_training_lowers_the_loss_and_says_what_it_did(trained):
    assert len(trained.losses) == 20  # 8 rows in batches of 4, ten times
    # Untrained, a vocabulary of 1,000 costs ln 1000 = 6.9. The frozen head bounds the logits to
    # |w||h| = 8 * 0.02 * 8 = 1.3, so that is about what the loss can fall by.
    assert trained.losses[0] == pytest.approx(6.9, abs=0.2)
    assert 0.5 < trained.losses[0] - trained.losses[-1] < 2.0
    assert trained.tokens > 0
    assert trained.seconds > 0.0
    assert "trainable parameters" in trained.device


@pytest.mark.slow
def test_the_same_seed_gives_the_same_losses_whatever_the_global_generator(
    tiny_model, trained, tmp_path
):
    torch.manual_seed(12345)
    again = train(tiny_model, tmp_path)
    assert again.losses == pytest.approx(trained.losses, abs=1e-4)
    other = train(tiny_model, tmp_path / "other", config=QUICK.model_copy(update={"seed": 1}))
    assert other.losses != pytest.approx(trained.losses, abs=1e-4)


def test_the_same_key_trains_once(tiny_model, home, trained):
    folder = home / trained.folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert train(tiny_model, home) == trained
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_key_changes_with_everything_that_determines_the_adapter():
    keys = {
        finetune_key("data", QUICK, "base", None),
        finetune_key("data", QUICK, "base", "start"),
        finetune_key("data", QUICK, "other", None),
        finetune_key("other", QUICK, "base", None),
        finetune_key("data", QUICK.model_copy(update={"rank": 16}), "base", None),
    }
    assert len(keys) == 5
    assert finetune_key("data", QUICK, "base", None) in keys


def test_the_adapter_is_safetensors_and_nothing_in_its_folder_is_a_pickle(home, trained):
    folder = home / trained.folder
    assert (folder / "adapter_model.safetensors").stat().st_size > 0
    assert [path for pattern in PICKLES for path in folder.rglob(pattern)] == []
    for path in folder.rglob("*"):
        # a zipped pickle, as torch.save writes it, starts with PK; a bare one with 0x80
        assert path.read_bytes()[:2] not in (b"PK", b"\x80\x02", b"\x80\x04")
    assert trained.adapter_digest == adapter_digest(folder)
    assert trained.folder == "adapters/aaaaaaaaaaaaaaaa"


def test_no_file_of_the_adapter_names_a_place_on_the_machine(home, trained, tiny_model):
    folder = home / trained.folder
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == tiny_model.name
    for path in folder.rglob("*"):
        for place in (tiny_model.parent, home):
            assert str(place).encode() not in path.read_bytes(), path.name


def test_the_adapter_loads_and_answers(home, trained, tiny_model):
    model = HuggingFaceModel.load(tiny_model, home / trained.folder)
    assert model.digest != HuggingFaceModel.load(tiny_model).digest
    completions = model.generate([row.messages for row in ROWS], max_new_tokens=4)
    assert [completion.error for completion in completions] == [None] * 8


def test_an_adapter_carries_its_chat_template_and_is_refused_over_another(
    home, trained, tiny_model, tmp_path
):
    """By whatever reads both: answers, the model that serves, and training that goes on."""
    folder = home / trained.folder
    own = (tiny_model / "chat_template.jinja").read_text("utf-8")
    assert (folder / "chat_template.jinja").read_text("utf-8") == own
    base = prepare_base_model(str(tiny_model), tmp_path, "hermes")
    with pytest.raises(ModelError, match="chat template that it was trained with"):
        HuggingFaceModel.load(base, folder)
    with pytest.raises(ModelError, match="chat template that it was trained with"):
        train(base, home, key="e" * 64, start_from=folder)
    serving = AdapterModel.load(base)
    try:
        with pytest.raises(ModelError, match="chat template that it was trained with"):
            serving.add_adapter("router/1", folder)
    finally:
        serving.close()


def test_training_goes_on_from_an_adapter(home, trained, tiny_model):
    further = train(tiny_model, home, key="b" * 64, start_from=home / trained.folder)
    fresh_start, stopped_at = trained.losses[0], trained.losses[-1]
    assert abs(further.losses[0] - stopped_at) < 0.5 * abs(fresh_start - stopped_at)
    assert further.adapter_digest != trained.adapter_digest


@pytest.mark.slow
def test_a_row_too_long_for_its_answer_is_left_out_and_does_no_harm(tiny_model, tmp_path, caplog):
    config = QUICK.model_copy(update={"maximum_tokens": 128, "batch_size": 1, "epochs": 1.0})
    long = row(8, text="word " * 300)
    with caplog.at_level("WARNING"):
        result = train(tiny_model, tmp_path, rows=(*ROWS, long), config=config)
    assert len(result.losses) == len(ROWS)
    assert all(loss > 0.0 for loss in result.losses)
    assert "1 of 9 examples" in caplog.text


def test_rows_that_are_all_too_long_are_refused(tiny_model, tmp_path):
    config = QUICK.model_copy(update={"maximum_tokens": 16})
    with pytest.raises(InvalidInputError, match="maximum_tokens"):
        train(tiny_model, tmp_path, config=config)
    assert list((tmp_path / "adapters").iterdir()) == []


def test_no_rows_are_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(InvalidInputError, match="at least one row, got none"):
        train(tmp_path / "nowhere", tmp_path, rows=())
    assert list(tmp_path.iterdir()) == []


def test_a_base_or_a_start_without_safetensors_is_refused(tiny_model, tmp_path):
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (tmp_path / "pickled" / "adapter_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="must be safetensors"):
        train(tmp_path / "pickled", tmp_path)
    with pytest.raises(ModelError, match="must be safetensors"):
        train(tiny_model, tmp_path, start_from=tmp_path / "pickled")
    assert list((tmp_path / "adapters").iterdir()) == []


def test_a_half_adapter_under_the_key_is_replaced(tiny_model, tmp_path):
    folder = tmp_path / "adapters" / "aaaaaaaaaaaaaaaa"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    result = train(tiny_model, tmp_path, config=QUICK.model_copy(update={"epochs": 1.0}))
    assert adapter_digest(folder) == result.adapter_digest


def test_a_result_is_read_from_the_cache_in_the_form_of_release_0_1_too() -> None:
    result = FinetuneResult(
        folder="adapters/a", adapter_digest="d", losses=(2.0, 1.5), seconds=3.0, tokens=40,
        device="cpu, float32", validation=((2, 1.7),), batch=(8, 4),
    )  # fmt: skip
    kept = json.loads(json.dumps(result.model_dump(mode="json")))
    assert FinetuneResult.of_cache(kept) == result
    named = {"__class__": "ratchet.improve.finetune.FinetuneResult", "data": kept}
    assert FinetuneResult.of_cache(named) == result
