"""The gate asks a vLLM-like server with a real model, and a real adapter that is put into it."""

from __future__ import annotations

import pytest

from ratchet.deploy.gate.answering import by_backend
from ratchet.models import HuggingFaceModel, Sampling
from ratchet.models.serving import AdapterModel
from ratchet.records import Message
from tests.servers.model_server import ModelServer

ASKED = [[Message(role="user", content=text)] for text in ("where is my card", "I was robbed")]


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    import torch
    from peft import LoraConfig, get_peft_model

    from ratchet.models import load_pretrained

    folder = tmp_path_factory.mktemp("adapter")
    model, _ = load_pretrained(tiny_model)
    torch.manual_seed(0)
    config = LoraConfig(r=8, lora_alpha=64, init_lora_weights=False, target_modules="all-linear",
                        task_type="CAUSAL_LM")  # fmt: skip
    get_peft_model(model, config).save_pretrained(str(folder))
    return folder


def test_a_server_answers_as_champion_and_challenger_as_this_process_would(tiny_model, adapter):
    model = AdapterModel.load(tiny_model)
    sampling = Sampling(0.0, None)
    said = {}
    with ModelServer("org/base", model) as server:
        for version, folder in (("org/base", None), ("router/2", adapter)):
            with by_backend(
                [server.url], version, name=version, sampling=sampling,
                place=lambda folder=folder: folder and str(folder),
            ) as load:  # fmt: skip
                answers = load(False).generate(ASKED, max_new_tokens=8)
            said[version] = [answer.text for answer in answers]
            local = HuggingFaceModel.load(tiny_model, folder, one_line=False)
            alone = local.generate(ASKED, max_new_tokens=8)
            assert said[version] == [answer.text for answer in alone]
    model.close()
    assert said["org/base"] != said["router/2"]
