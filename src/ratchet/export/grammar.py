"""The grammar of export: kinds, their formats, and the options that choose of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal, get_args

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable

Kind = Literal[
    "interactions",
    "feedback",
    "decisions",
    "labels",
    "dataset",
    "label-sheet",
    "database",
    "adapter",
]
Format = Literal[
    "jsonl", "parquet", "hf", "trl", "openai", "axolotl", "csv", "duckdb", "peft", "merged", "gguf"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMATS: tuple[Format, ...] = get_args(Format)
_ENDINGS: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".parquet": "parquet", ".csv": "csv", ".duckdb": "duckdb", ".gguf": "gguf",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spec:
    """What a kind is.

    Attributes:
        formats: The first is the default.
        options: Names of the options of `Request` that choose of it.
        redacts: Whether personal data is taken out unless it is asked for.
    """

    formats: tuple[Format, ...]
    options: frozenset[str]
    redacts: bool = False


_TABLE: tuple[Format, ...] = ("jsonl", "parquet", "hf")
_EVENTS = frozenset({"since", "until", "model_version", "segment", "redact"})
GRAMMAR: Mapping[Kind, Spec] = {
    "interactions": Spec(_TABLE, _EVENTS),
    "feedback": Spec(_TABLE, _EVENTS),
    "decisions": Spec(_TABLE, frozenset({"since", "until", "model_version"})),
    "labels": Spec(_TABLE, frozenset({"since", "until", "redact"})),
    "dataset": Spec(
        ("trl", "openai", "axolotl", *_TABLE),
        frozenset({"training_set", "split", "redact"}),
        redacts=True,
    ),
    "label-sheet": Spec(("csv",), frozenset({"sheet", "cycle", "decision", "most", "redact"})),
    "database": Spec(("duckdb",), frozenset({"since", "until", "redact"})),
    "adapter": Spec(("peft", "merged", "gguf"), frozenset({"model_version", "prompts"})),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for; an option that was not given is None.

    Attributes:
        out: A file, a folder, an address of object storage, or `-` for standard output.
        since: From when on, by the time of each row.
        until: Before when.
        model_version: Of interactions and the feedback on them; of a decision either of the two; an
            adapter's own, or its folder.
        segment: Of interactions and the feedback on them.
        redact: Whether personal data is taken out.
        training_set: The start of a training set's id or digest; the latest one without it.
        split: `train` or `validation`, where the format is one file.
        sheet: `pairs` of answers, or `items` of the review queue.
        cycle: Number of a cycle or the start of its id, whose pairs are asked for.
        decision: The start of a decision's id, for those of its cycle.
        most: So many items of the queue at most.
        prompts: So many prompts an adapter is checked with.
    """

    kind: Kind
    format: Format
    out: str
    since: datetime | None = None
    until: datetime | None = None
    model_version: str | None = None
    segment: str | None = None
    redact: bool | None = None
    training_set: str | None = None
    split: str | None = None
    sheet: str | None = None
    cycle: str | None = None
    decision: str | None = None
    most: int | None = None
    prompts: int | None = None

    @property
    def redacts(self) -> bool:
        """Whether personal data is taken out."""
        return GRAMMAR[self.kind].redacts if self.redact is None else self.redact


_FREE = ("kind", "format", "out")


def kind_named(name: str) -> Kind:
    """Return a kind by its name.

    Raises:
        InvalidInputError: There is none of this name.
    """
    found = next((kind for kind in KINDS if kind == name), None)
    if found is None:
        raise InvalidInputError(
            f"KIND must be one of {', '.join(KINDS)}, got {printable(name, 40)!r}; write one of "
            "them"
        )
    return found


def format_named(kind: Kind, name: str | None, out: str) -> Format:
    """Return the format of a name; without one that of the ending of `out`, else the kind's own.

    Raises:
        InvalidInputError: The kind does not come in it.
    """
    known = GRAMMAR[kind].formats
    if name is None:
        ending = "." + out.removesuffix(".gz").rpartition(".")[2].lower()
        wanted = "hf" if out.endswith("/") and "hf" in known else _ENDINGS.get(ending)
        lines = wanted in (None, "jsonl")
        name = known[0] if lines and known[0] != "csv" else wanted or known[0]
    if name not in known:
        raise InvalidInputError(
            f"{kind} can be written as {', '.join(known)}, got {printable(name, 40)!r}; pass "
            f"--format {known[0]}, and a name for --out that goes with it"
        )
    return next(each for each in known if each == name)


def check(request: Request) -> None:
    """Refuse options that do not belong together.

    Raises:
        InvalidInputError: They do not.
    """
    spec = GRAMMAR[request.kind]
    given = [f.name for f in fields(request) if getattr(request, f.name) is not None]
    foreign = [name for name in given if name not in (*_FREE, *spec.options)]
    if foreign:
        shown = ", ".join(option(name) for name in sorted(spec.options))
        raise InvalidInputError(
            f"{request.kind} can be chosen by {shown}, got {option(foreign[0])}; leave it out"
        )
    if request.since and request.until and request.since >= request.until:
        raise InvalidInputError(
            f"--since must be before --until, got {request.since:%F %H:%M} and "
            f"{request.until:%F %H:%M}; swap them"
        )
    if request.format == "hf" and (request.out == "-" or request.split is not None):
        raise InvalidInputError(
            "a Hugging Face folder has every split and is no stream, got --out - or --split; name "
            "a new folder, or take --format parquet"
        )
    if request.format == "duckdb" and request.out == "-":
        raise InvalidInputError(
            "a database is a file, got --out -; name one, such as ratchet.duckdb"
        )
    if request.kind == "adapter" and request.out == "-":
        raise InvalidInputError(
            "an adapter is a folder or a file, got --out -; name a new folder, a file that ends in "
            ".gguf, or hf://owner/name on the Hugging Face Hub"
        )
    if request.cycle is not None and request.decision is not None:
        raise InvalidInputError("a sheet is of one cycle, got --cycle and --decision; give one")
    for name, menu in (("split", ("train", "validation")), ("sheet", ("pairs", "items"))):
        value = getattr(request, name)
        if value is not None and value not in menu:
            raise InvalidInputError(
                f"{option(name)} must be {' or '.join(menu)}, got {printable(value, 40)!r}; write "
                "one of the two"
            )


def option(name: str) -> str:
    """Return how an option is written."""
    return {"training_set": "--set", "sheet": "--of"}.get(name, f"--{name.replace('_', '-')}")
