"""Fixtures that several units share."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import sqlalchemy as sa
import typer.main
import typer.testing
from filelock import FileLock
from hypothesis import settings

from ratchet.errors import IsolationError
from ratchet.evaluation.code_execution.sandbox import require_isolation
from ratchet.simulation.messages import QUEUES, support_messages
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.servers.postgresql import postgresql

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads that wait for each other in every product cost more than
    # they bring, most of all with a tiny model.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Imports and collected tests stay until the end: looking for garbage among them, again and again,
# took a quarter of the time that collecting takes.
gc.disable()
# Typer makes all commands anew at each call of `ratchet`, which a process calls once; tests that
# call it in their own process would make them thousands of times.
typer.main.get_command = typer.testing._get_command = cache(typer.main.get_command)
settings.register_profile("ratchet", deadline=None)  # a loaded machine is no failure
settings.register_profile("fast", settings.get_profile("ratchet"), max_examples=25)
settings.load_profile("fast" if "PYTEST_XDIST_WORKER" in os.environ else "ratchet")
SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"
MODEL_NAME = "support-router"
FAST: dict[str, bool] = {}
"""Tests marked `mostly_slow`, and whether a parameter of theirs is fast."""
STORE_CLOCK = datetime(2026, 1, 5, 8, tzinfo=UTC)  # what every store of `open_store` reads

# The format of SmolLM2's own template, without its default system prompt.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave to `make test-all` what is near to a test that `make test` runs."""
    test, _, parameters = item.nodeid.partition("[")
    for mark in item.iter_markers("mostly_slow"):
        is_fast = any(fast in parameters.removesuffix("]") for fast in mark.args)
        FAST[test] = FAST.get(test, False) or is_fast
        if not is_fast:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(trylast=True)  # after those that are deselected are gone
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest file and spread the whole flows over the first two thirds.

    Flows wait for servers while other files compute; one at the end would be waited for.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    flows = [path for path in files if "flows" in path.parts]
    flows.sort(key=lambda path: path.name != "test_served_loop.py")
    others = [path for path in files if "flows" not in path.parts]
    place = {path: float(number) for number, path in enumerate(others)}
    for number, path in enumerate(flows):
        place[path] = number * len(others) * 2 / (3 * len(flows)) - 0.5
    items[:] = [item for path in sorted(files, key=place.__getitem__) for item in files[path]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a misspelt parameter; from here on look for garbage among what the tests make."""
    one_test = any("::" in argument for argument in session.config.args)
    if not one_test and (none := [test for test, is_fast in FAST.items() if not is_fast]):
        raise pytest.UsageError(f"mostly_slow names no parameter of {', '.join(none)}")
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: workers must collect the same names, and bytes may differ."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public data sets, which lies beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("reads the public data in ../shared/data, which is not there")
    return SHARED_DATA


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two threads on a busy machine wait for each other more than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def isolation() -> None:
    """Skip where the machine cannot isolate untrusted code."""
    try:
        require_isolation()
    except IsolationError as error:
        pytest.skip(f"runs untrusted code: {error}")


@pytest.fixture(scope="session")
def published_numbers(shared_data: Path) -> dict[str, Any]:
    """Printed figures of books and papers, by block."""
    file = shared_data / "published_numbers.json"
    if not file.is_file():
        pytest.skip("reads ../shared/data/published_numbers.json, which is not there")
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path, made_store: Path) -> Iterator[EventStore]:
    shutil.copyfile(made_store, tmp_path / "store.db")
    opened = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a store in which nothing is yet: copying it is faster than making its tables."""

    def make(folder: Path) -> None:
        EventStore.open(f"sqlite:///{folder / 'store.db'}", clock=lambda: STORE_CLOCK).close()

    return made_once(tmp_path_factory, "made-store", make) / "store.db"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that one worker makes and all of them read.

    Args:
        factory: Of the temporary folders; those of all workers of a run lie side by side.
        name: Of the folder.
        make: Called with the empty folder, by the first worker that asks.
    """
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = base / name, base / f"{name}.made"
    with FileLock(base / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Llama with seeded random weights and a tokenizer of its own."""
    return made_once(tmp_path_factory, "tiny-model", write_tiny_model)


def write_tiny_model(folder: Path, *, width: int = 64) -> None:
    """Write the model of `tiny_model` into a folder, or one of another width."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def _tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    messages = support_messages(np.random.default_rng(0), 500)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*QUEUES, *(message.text for message in messages)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables, which take seconds to make: copied for each test."""
    return made_once(tmp_path_factory, "mlflow-template", _make_tables) / "mlflow.db"


def _make_tables(folder: Path) -> None:
    database = f"sqlite:///{folder / 'mlflow.db'}"
    template = Tracker(database, artifacts=folder, model_name=MODEL_NAME)
    assert template.champion() is None  # the first call makes the tables


@pytest.fixture
def tracker(tmp_path: Path, mlflow_database: Path) -> Tracker:
    database = tmp_path / "mlflow.db"
    shutil.copyfile(mlflow_database, database)
    return Tracker(f"sqlite:///{database}", artifacts=tmp_path / "artifacts", model_name=MODEL_NAME)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """Address of a PostgreSQL server that lives as long as the tests; it has no password."""
    with postgresql(Path(tempfile.mkdtemp(prefix="ratchet-pg-"))) as server:
        yield server.url


@pytest.fixture(scope="session")
def made_database(postgresql_server: str) -> str:
    """Name of a PostgreSQL database with a store in which nothing is yet."""
    name = "made_store"
    _of_server(postgresql_server, f"CREATE DATABASE {name}")
    url = sa.make_url(postgresql_server).set(database=name).render_as_string(False)
    EventStore.open(url, clock=lambda: STORE_CLOCK).close()
    return name


def _of_server(server: str, statement: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a store in which nothing is yet: a new file, or a new PostgreSQL database."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("made_store"), tmp_path / "store.db")
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    server, name = str(request.getfixturevalue("postgresql_server")), f"test_{uuid4().hex}"
    template = request.getfixturevalue("made_database")
    _of_server(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield sa.make_url(server).set(database=name).render_as_string(False)
    _of_server(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database: a new file, or a new schema of the PostgreSQL server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """Address of a new schema of the PostgreSQL server."""
    server = sa.make_url(postgresql_server)
    schema = f"test_{uuid4().hex}"
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    engine.dispose()
    return server.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(False)


@pytest.fixture
def open_store(store_url: str) -> Iterator[Callable[[], EventStore]]:
    """Open one more store on the same database."""
    with ExitStack() as stack:

        def opened() -> EventStore:
            store = EventStore.open(store_url, clock=lambda: STORE_CLOCK)
            stack.callback(store.close)
            return store

        yield opened
