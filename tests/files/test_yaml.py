"""The strict reader of YAML: what it refuses, with the line, and who uses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ratchet.analyze.failures.titles import load_titles
from ratchet.deploy.gate.policy import load_policy
from ratchet.errors import InvalidInputError
from ratchet.files.yaml import LARGEST, MOST_LEVELS, read_yaml
from ratchet.judges.jury import load_juries
from ratchet.judges.rubrics import load_judges
from ratchet.safety.rules import load_safety

READERS: dict[str, Callable[[Path], object]] = {
    "policy": load_policy,
    "judges": load_judges,
    "juries": lambda path: load_juries(path, ()),
    "safety": load_safety,
    "titles": load_titles,
}


def read(tmp_path: Path, content: str | bytes) -> object:
    path = tmp_path / "rules.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_yaml(path, what="rules", holds="a and b")


def refusal(tmp_path: Path, content: str | bytes) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read(tmp_path, content)
    said = str(caught.value)
    assert said.isprintable()
    return said


def test_plain_values_lists_and_mappings_are_read(tmp_path: Path) -> None:
    text = "\ufeffa: 1\r\nb: [x, 'y: z', 2.5, true, null]\r\nc:\r\n  d: {e: f}\r\n"
    assert read(tmp_path, text) == {
        "a": 1,
        "b": ["x", "y: z", 2.5, True, None],
        "c": {"d": {"e": "f"}},
    }


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=8,
)


@given(content=st.dictionaries(st.text("xyz", min_size=1), VALUES, min_size=1))
def test_what_a_yaml_writer_wrote_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]
) -> None:
    class Plain(yaml.SafeDumper):
        """Writes no anchors where a value is there twice."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    path = tmp_path_factory.mktemp("yaml") / "written.yaml"
    path.write_text(yaml.dump(content, Dumper=Plain), "utf-8")
    assert read_yaml(path, what="rules", holds="x") == content


@pytest.mark.parametrize(
    ("text", "line", "said", "way_out"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a key must be there once, got 'a' twice, first in line 1",
         "keep one"),
        ("a:\n- {x: 1, 'x': 2}\n", 2, "got 'x' twice, first in line 2", "keep one"),
        ("a: 1\nb: !!python/object/apply:os.mkdir ['x']\n", 2, "a value must have no tag",
         "write the plain value"),
        ("a: !!str 1\n", 1, "got 'tag:yaml.org,2002:str'", "in quotes"),
        ("a: ! 1\n", 1, "a value must have no tag, got '!'", "in quotes"),
        ("a: &x [1]\nb: *x\n", 1, "must not use aliases, got the anchor &x", "write the value out"),
        ("a: 1\nb: *nobody\n", 2, "must not use aliases, got the alias *nobody", "write the value"),
        ("a:\n  <<: {b: 1}\n", 2, "a key must be text, got '<<'", "write the keys out"),
        ("? [a]\n: b\n", 1, "a key must be text, got a list or mapping", "write the keys out"),
        ("a: 1\nb: 2024-13-45\n", 2, "a value must be readable, got '2024-13-45'", "in quotes"),
        (f"a: {'9' * 5_000}\n", 1, "a value must be readable, got '999", "in quotes"),
        ("a:\n" + "[" * (MOST_LEVELS + 1), 2, f"deeper than {MOST_LEVELS} levels", "flatter"),
        ("a: " + "{a: " * 20_000, 1, "got too many levels", "flatter"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_refused_with_its_line_and_the_way_out(
    tmp_path: Path, text: str, line: int, said: str, way_out: str
) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"rules.yaml, line {line}: ")
    assert said in message
    assert way_out in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("text", "line"),
    [("a:\n\t- b\n", 2), ("a: 1\nb: [", 2), ("a: 1\n---\nb: 2\n", 2), ("a: 1\nb: c: d\n", 2)],
)
def test_what_is_no_yaml_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    assert f"must be YAML, got in line {line}: " in refusal(tmp_path, text)


def test_a_character_that_yaml_does_not_allow_is_refused(tmp_path: Path) -> None:
    assert "must be YAML, got: unacceptable character #x0000" in refusal(tmp_path, "a: \x00\n")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n"])
def test_an_empty_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    assert "rules.yaml must hold a mapping with a and b, got nothing" in refusal(tmp_path, text)


@pytest.mark.parametrize(("text", "got"), [("- a\n", "a list"), ("word", "a str"), ("5", "a int")])
def test_what_is_no_mapping_is_one_clear_error(tmp_path: Path, text: str, got: str) -> None:
    assert f"must hold a mapping with a and b, got {got};" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("content", "byte", "line"),
    [("a: 1\nb: é\n".encode("latin-1"), "0xE9", 2), ("a: 1\n".encode("utf-16"), "0xFF", 1)],
)
def test_what_is_no_utf_8_is_one_clear_error(
    tmp_path: Path, content: bytes, byte: str, line: int
) -> None:
    said = refusal(tmp_path, content)
    assert f"must be YAML in UTF-8, got the byte {byte} in line {line} of rules.yaml" in said


def test_a_missing_file_a_folder_and_a_file_too_large_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"rules must be in a file, got no gone\.yaml"):
        read_yaml(tmp_path / "gone.yaml", what="rules", holds="a")
    with pytest.raises(InvalidInputError, match=r"must be a readable file, got .*directory"):
        read_yaml(tmp_path, what="rules", holds="a")
    assert f"at most {LARGEST:,} characters" in refusal(tmp_path, "#" * (LARGEST + 1))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\nb: 3\n", "line 3: a key must be there once, got 'b' twice"),
        ("a: 1\nb: &x 2\nc: *x\n", "line 2: a file must not use aliases"),
        ("a: 1\nb: !!set {}\n", "line 2: a value must have no tag"),
        ("a:\n  " + "[" * 30, "line 2: a file must not nest deeper"),
        ("", "must hold a mapping with"),
        ("- a\n", "must hold a mapping with"),
        ("a: [\n", "must be YAML, got in line 2"),
    ],
)
def test_every_file_of_rules_is_read_by_these_rules(
    tmp_path: Path, reader: str, text: str, said: str
) -> None:
    path = tmp_path / f"{reader}.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InvalidInputError) as caught:
        READERS[reader](path)
    assert said in str(caught.value)
    with pytest.raises(InvalidInputError, match=r"must be in a file, got no gone\.yaml"):
        READERS[reader](tmp_path / "gone.yaml")


@pytest.mark.parametrize("merged", [False, True])
def test_a_bomb_is_refused_before_it_grows(tmp_path: Path, merged: bool) -> None:
    lines = ["a0: &a0 {k: 1}" if merged else "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 12):
        inner = ", ".join([f"*a{n - 1}"] * 10)
        lines.append(f"a{n}: &a{n} " + (f"{{<<: [{inner}]}}" if merged else f"[{inner}]"))
    started = time.monotonic()
    assert "line 1: a file must not use aliases" in refusal(tmp_path, "\n".join(lines))
    assert time.monotonic() - started < 5.0


def test_a_tag_that_would_run_code_runs_none(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    harmful = f"a: !!python/object/apply:os.mkdir ['{victim}']\n"
    yaml.unsafe_load(harmful)  # it does what it says where it is let
    victim.rmdir()
    assert "a value must have no tag" in refusal(tmp_path, harmful)
    assert not victim.exists()
