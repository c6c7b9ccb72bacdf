"""An adapter for other tools: itself, merged into its base model, or as a file for llama.cpp.

| format | is | read by |
|---|---|---|
| `peft` | the adapter's folder with its card | peft, vLLM, SGLang |
| `merged` | a model's folder, in float32 | transformers, and whatever reads its folders |
| `gguf` | one file, in float16 | llama.cpp, Ollama |

Each is asked prompts before and after, and is written only where it answers as it did: the first
two in all of them, a GGUF file in 99 of 100, since its weights are rounded. Where `--out` is an
address of the Hub (`hf://owner/name`), what was checked is uploaded, and every file's content is
compared with what the Hub has then.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ratchet.errors import ModelError
from ratchet.export.grammar import Request
from ratchet.export.parts import Tally
from ratchet.export.targets import open_folder, open_path
from ratchet.files.text import counted, printable
from ratchet.improve.training.adapter_card import CARD_FILE, CardOf, card_text
from ratchet.models import HuggingFaceModel
from ratchet.models.equal_answers import Equality, Prompt, answers_of, gguf_answers
from ratchet.models.gguf_file import write_gguf
from ratchet.models.hub import upload
from ratchet.models.merging import write_merged

HUB = "hf://"
PROMPTS = 100
_LIBRARIES = {"peft": "peft", "merged": "transformers", "gguf": "gguf"}
_SHARES = {"peft": 1.0, "merged": 1.0, "gguf": 0.99}
_LEFT_OUT = ("ratchet-result.json", "lock")


@dataclass(frozen=True, slots=True)
class FoundAdapter:
    """An adapter that is to be exported.

    Attributes:
        folder: Where it lies.
        base: Folder of its own base model.
        card: What its card says.
        prompts: Returns at most so many prompts, as they were asked at the gate or by users.
        max_new_tokens: The longest answer.
    """

    folder: Path
    base: Path
    card: CardOf
    prompts: Callable[[int], Sequence[Prompt]]
    max_new_tokens: int


def export_adapter(request: Request, found: FoundAdapter, tally: Tally) -> None:
    """Write an adapter in the format of a request, checked, all of it or nothing.

    Raises:
        ModelError: It answers otherwise than before, or cannot be written in this form.
    """
    tally.training_set = found.card.training_set.digest if found.card.training_set else None
    if request.out.startswith(HUB):
        with tempfile.TemporaryDirectory(prefix="ratchet-export-") as made:
            folder = Path(made, "model")
            folder.mkdir()
            _write(request, found, folder, tally)
            pushed = upload(folder, request.out.removeprefix(HUB))
            tally.notes.append(
                f"uploaded as revision {pushed.revision[:12]}, private unless it was there: "
                f"{pushed.url}; {counted(pushed.files, 'file')} there have the content that was "
                "checked"
            )
    elif request.format == "gguf":
        with (
            open_path(request.out) as path,
            tempfile.TemporaryDirectory(prefix=".ratchet-", dir=path.parent) as made,
        ):
            _write(request, found, Path(made), tally)
            Path(made, _file_name(found)).rename(path)
    else:
        with open_folder(request.out) as folder:
            _write(request, found, folder, tally)
    tally.rows["adapter"] += 1


def _file_name(found: FoundAdapter) -> str:
    return f"{found.card.version.replace('/', '-')}.gguf"


def _write(request: Request, found: FoundAdapter, folder: Path, tally: Tally) -> None:
    """Write the form with its card into a folder, and check it."""
    if request.format == "peft":
        for path in found.folder.iterdir():
            if path.is_file() and path.name not in _LEFT_OUT:
                shutil.copyfile(path, folder / path.name)
        _check(request, found, _asked_again(found.base, folder), tally)
    elif request.format == "merged":
        write_merged(found.base, found.folder, folder)
        _check(request, found, _asked_again(folder, None), tally)
    else:
        with tempfile.TemporaryDirectory(prefix="ratchet-merged-") as merged:
            write_merged(found.base, found.folder, Path(merged))
            write_gguf(Path(merged), folder / _file_name(found))
        ask = partial(gguf_answers, folder / _file_name(found))
        _check(request, found, ask, tally)
    library = _LIBRARIES[request.format]
    (folder / CARD_FILE).write_text(card_text(found.card, library=library), "utf-8")


Ask = Callable[[Sequence[Prompt], int], list[str]]


def _asked_again(base: Path, adapter: Path | None) -> Ask:
    def ask(prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        model = HuggingFaceModel.load(base, adapter, one_line=False)
        return answers_of(model, prompts, max_new_tokens)

    return ask


def _check(request: Request, found: FoundAdapter, after: Ask, tally: Tally) -> None:
    """Ask before and after, and note how many answers are the same.

    Raises:
        ModelError: Too few are.
    """
    wanted = PROMPTS if request.prompts is None else request.prompts
    prompts = found.prompts(wanted)
    if not prompts:
        why = "--prompts 0" if wanted == 0 else "nothing is stored that it could be asked"
        tally.notes.append(f"not checked: {why}")
        return
    before = answers_of(
        HuggingFaceModel.load(found.base, found.folder, one_line=False),
        prompts,
        found.max_new_tokens,
    )
    equal = Equality.of(before, after(prompts, found.max_new_tokens))
    told = f"{equal.equal} of {counted(equal.asked, 'prompt')} answered as before"
    fewest = math.ceil(_SHARES[request.format] * equal.asked)
    differs = ""
    if equal.differs is not None:
        number, one, other = equal.differs
        differs = f"; prompt {number}: {printable(one, 60)!r} became {printable(other, 60)!r}"
    if equal.equal < fewest:
        raise ModelError(
            f"{request.format} must answer at least {fewest} of {equal.asked} prompts as before, "
            f"got {equal.equal}{differs}; nothing is written. --prompts 0 writes it unchecked"
        )
    tally.notes.append(told + differs)
    if equal.asked < wanted:
        tally.notes.append(f"no more prompts than {equal.asked} are stored")
