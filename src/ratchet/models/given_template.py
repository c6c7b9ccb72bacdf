"""Give a base model another chat template, in a folder that every reader of the model uses.

    folder = with_template(base, template, cache, counts=True)

The folder holds links to the model's files and its own `chat_template.jinja`. Training, gate,
gateway and whatever serves the model read that folder, and an adapter carries the text that it was
trained with: over a model with another one it is refused.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from ratchet.errors import ModelError
from ratchet.records import digest

HERMES = "hermes"
TEMPLATE_FILE = "chat_template.jinja"
MARKER_FILE = "ratchet-template.txt"
"""Digest of the template that a folder was given, where its own is another one."""

_SHIPPED = Path(__file__).with_name("hermes.jinja")
# what transformers reads besides, in the place of the given template or beside it
_OTHER_TEMPLATES = {TEMPLATE_FILE, MARKER_FILE, "chat_template.json", "additional_chat_templates"}


def shipped(default_system: str = "") -> str:
    """Return the template `hermes`: ChatML with tools.

    Args:
        default_system: What a model is told where a conversation begins with no system turn.
    """
    text = _SHIPPED.read_text("utf-8")
    if not default_system:
        return text
    quoted = default_system.replace("\\", "\\\\").replace("'", "\\'")
    return f"{{%- set default_system = '{quoted}' %}}\n{text}"


def file_of(chat_template: str) -> Path:
    """Return the file that a setting names; it need not be there."""
    return _SHIPPED if chat_template == HERMES else Path(chat_template).expanduser()


def given_text(chat_template: str, default_system: str = "") -> str:
    """Return the template that a setting names: `hermes`, or a file.

    Raises:
        ModelError: The file cannot be read, is no Jinja, or nothing is in it.
    """
    if chat_template == HERMES:
        return shipped(default_system)
    path = Path(chat_template).expanduser()
    try:
        text = path.read_text("utf-8-sig")  # some editors begin a file with a mark of its encoding
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ModelError(
            f"a chat template must be 'hermes' or a file of Jinja in UTF-8, got {str(path)!r}: "
            f"{why}; correct RATCHET_CHAT_TEMPLATE"
        ) from error
    if not text.strip():
        raise ModelError(
            f"a chat template must render turns, got {str(path)!r}, in which nothing stands; "
            "correct RATCHET_CHAT_TEMPLATE"
        )
    _refuse_no_jinja(text, path)
    return text


def _refuse_no_jinja(text: str, path: Path) -> None:
    """Refuse what is no Jinja now, and not with the first question.

    Raises:
        ModelError: With the line.
    """
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(text)
    except Exception as error:  # what transformers and Jinja raise, which differs by version
        line = getattr(error, "lineno", None)
        where = "" if line is None else f", in line {line}"
        raise ModelError(
            f"a chat template must be Jinja, got {str(path)!r}: {error}{where}; correct the file "
            "or RATCHET_CHAT_TEMPLATE"
        ) from error


def with_template(base: Path, text: str, cache: Path, *, counts: bool) -> Path:
    """Return a folder of the model with this template; the model's own folder where it has it.

    Args:
        base: Folder of the model.
        text: The template.
        cache: Where such folders are made.
        counts: Whether the template is part of the model's digest.

    Raises:
        ModelError: The folder cannot be made.
    """
    own = base / TEMPLATE_FILE
    if own.is_file() and own.read_text("utf-8") == text:
        return base
    place = cache / "templated" / digest([str(base), text, counts])[:16]
    target = place / base.name  # an adapter's settings name its base by the folder's name
    made = {TEMPLATE_FILE: text} | ({MARKER_FILE: _sha256(text)} if counts else {})
    if _holds(target, base, made):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / "making.lock", fallback_to_soft=False):
            if not _holds(target, base, made):  # else another process was faster
                _make(target, base, made)
    except OSError as error:
        raise ModelError(
            f"a model with a chat template of its own needs a folder to lie in, got "
            f"{str(target)!r}: {error.strerror}; set RATCHET_CACHE to another one"
        ) from error
    return target


def _make(target: Path, base: Path, made: dict[str, str]) -> None:
    work = Path(tempfile.mkdtemp(prefix="making-", dir=target.parent))
    try:
        for name, path in _linked(base).items():
            (work / name).symlink_to(path)
        for name, text in made.items():
            (work / name).write_text(text, "utf-8")
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _linked(base: Path) -> dict[str, Path]:
    return {path.name: path for path in base.iterdir() if path.name not in _OTHER_TEMPLATES}


def _holds(target: Path, base: Path, made: dict[str, str]) -> bool:
    """Tell whether a folder is what would be made: files may have been added to the model since."""
    linked = _linked(base)
    try:
        if {path.name for path in target.iterdir()} != linked.keys() | made.keys():
            return False
        return all((target / name).readlink() == path for name, path in linked.items()) and all(
            (target / name).read_text("utf-8") == text for name, text in made.items()
        )
    except OSError:
        return False


def given_to(base: Path) -> str | None:
    """Return the digest of the template that a folder was given; None where it is the model's."""
    marker = base / MARKER_FILE
    return marker.read_text("utf-8").strip() if marker.is_file() else None


def write_template(tokenizer: Any, adapter: Path) -> None:
    """Write the template that an adapter was trained with into its folder."""
    text = getattr(tokenizer, "chat_template", None)
    if isinstance(text, str):
        (adapter / TEMPLATE_FILE).write_bytes(text.encode())  # with its line breaks as they are


def check_template(tokenizer: Any, adapter: Path) -> None:
    """Refuse an adapter over a model whose chat template is not the one that it was trained with.

    An adapter that carries none, of an earlier version or of another program, is taken.

    Raises:
        ModelError: They differ.
    """
    carried = adapter / TEMPLATE_FILE
    if not carried.is_file():
        return
    text = carried.read_bytes().decode()
    found = getattr(tokenizer, "chat_template", None)
    if text != found:
        has = f"one of digest {_sha256(found)[:12]}" if isinstance(found, str) else "another one"
        raise ModelError(
            "an adapter must be read with the chat template that it was trained with, got one of "
            f"digest {_sha256(text)[:12]} in {adapter.name!r} over a base model with {has}; set "
            f"RATCHET_CHAT_TEMPLATE to a copy of the adapter's {TEMPLATE_FILE}, or begin from the "
            "base model in another RATCHET_HOME"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
