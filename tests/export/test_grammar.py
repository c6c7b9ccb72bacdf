"""Kinds, formats and options of `ratchet export`: which go together."""

from __future__ import annotations

from dataclasses import fields

import pytest

from ratchet.errors import InvalidInputError
from ratchet.export.grammar import (
    FORMATS,
    GRAMMAR,
    KINDS,
    Request,
    check,
    format_named,
    kind_named,
    option,
)
from tests.export.stores import MORNING, NOW

OPTIONS = [each.name for each in fields(Request) if each.name not in ("kind", "format", "out")]
VALUES = {
    "since": MORNING, "until": NOW, "redact": True, "split": "train", "sheet": "pairs", "most": 5,
}  # fmt: skip


def test_every_kind_format_and_option_is_in_the_grammar():
    assert set(GRAMMAR) == set(KINDS)
    assert {name for spec in GRAMMAR.values() for name in spec.formats} == set(FORMATS)
    assert {name for spec in GRAMMAR.values() for name in spec.options} == set(OPTIONS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_goes_with_the_kinds_that_it_chooses_of_and_is_refused_elsewhere(kind, name):
    spec = GRAMMAR[kind]
    request = Request(kind, spec.formats[0], "x", **{name: VALUES.get(name, "x")})
    if name in spec.options:
        check(request)
    else:
        with pytest.raises(
            InvalidInputError, match=f"{kind} can be chosen by .* got {option(name)}"
        ):
            check(request)


@pytest.mark.parametrize(
    ("kind", "name", "out", "expected"),
    [
        ("interactions", None, "-", "jsonl"),
        ("interactions", None, "a.jsonl.gz", "jsonl"),
        ("interactions", None, "a.b/c.PARQUET", "parquet"),
        ("interactions", None, "a/", "hf"),
        ("dataset", None, "a.jsonl", "trl"),
        ("dataset", None, "a.parquet", "parquet"),
        ("dataset", "openai", "a.jsonl", "openai"),
        ("label-sheet", None, "s.csv", "csv"),
        ("label-sheet", None, "s", "csv"),
        ("dataset", "axolotl", "a.jsonl", "axolotl"),
        ("database", None, "a.duckdb", "duckdb"),
        ("database", None, "a", "duckdb"),
    ],
)
def test_the_ending_says_the_format_where_none_is_named(kind, name, out, expected):
    assert format_named(kind, name, out) == expected


@pytest.mark.parametrize(
    ("kind", "name", "out"),
    [("interactions", "openai", "x"), ("interactions", None, "x.csv"), ("dataset", "csv", "x"),
     ("label-sheet", None, "s.parquet"), ("label-sheet", "jsonl", "s")],
)  # fmt: skip
def test_a_format_that_a_kind_does_not_come_in_is_refused(kind, name, out):
    with pytest.raises(InvalidInputError, match=f"{kind} can be written as .*; pass --format"):
        format_named(kind, name, out)


def test_what_does_not_hold_together_is_refused_with_the_way_out():
    for request, said in (
        (Request("labels", "jsonl", "x", since=NOW, until=MORNING), "swap them"),
        (Request("labels", "hf", "-"), "is no stream"),
        (Request("dataset", "hf", "x", split="train"), "has every split"),
        (Request("dataset", "trl", "x", split="test"), "--split must be train or validation"),
        (Request("label-sheet", "csv", "x", sheet="all"), "--of must be pairs or items"),
        (Request("label-sheet", "csv", "x", cycle="1", decision="2"), "give one"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            check(request)
    with pytest.raises(InvalidInputError, match=r"KIND must be one of interactions, .* 'traces'"):
        kind_named("traces")
