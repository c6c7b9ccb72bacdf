"""Versions of the golden set in words: for the terminal and for Prefect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ratchet.files.text import INDENT, cell, clipped, counted, one_line, shown_lines
from ratchet.records import Example, GoldenVersion

_SHOWN = 100
_SOURCES = {
    "approval": "approved answers",
    "correction": "corrections",
    "file": "a file",
    "label": "labels",
}


def versions_text(versions: Sequence[GoldenVersion]) -> str:
    """List versions, the latest one last."""
    return shown_lines(
        f"{one.number:>3}  {one.created_at:%Y-%m-%d %H:%M} UTC  {counted(one.examples, 'example')} "
        f"of {counted(one.users, 'user')}, {one.metric}; {one.added} new, {one.retired} retired"
        for one in versions
    )


def version_text(version: GoldenVersion, examples: Sequence[Example], rows: int) -> str:
    """Describe a version, with its first examples."""
    lines = [
        f"GOLDEN   version {version.number}, {counted(len(examples), 'example')}"
        f" of {counted(version.users, 'user')}",
        *(f"{INDENT}{line}" for line in _facts(version)),
    ]
    erased = version.examples - len(examples)
    if erased:
        lines.append(f"{INDENT}{counted(erased, 'example')} erased with their users since")
    for example in examples[:rows]:
        lines.append(f"{INDENT}asked  {clipped(example.prompt, _SHOWN)}")
        lines.append(f"{INDENT}right  {clipped(example.target or '(none written)', _SHOWN)}")
    return shown_lines(lines)


def draft_text(right: Iterable[tuple[str, str, str]], set_aside: Mapping[str, int]) -> str:
    """Say what a version would add, and what was left out.

    Args:
        right: Source, question and right answer of each.
        set_aside: Why others were left out.
    """
    found = list(right)
    lines = [f"GOLDEN   the next version would have {counted(len(found), 'new example')}"]
    lines += [
        f"{INDENT}{source:10} {clipped(prompt, 60)} -> {clipped(target, 40)}"
        for source, prompt, target in found[:10]
    ]
    lines += [f"{INDENT}left out: {count:,} {why}" for why, count in set_aside.items() if count]
    return shown_lines(lines)


def version_markdown(version: GoldenVersion) -> str:
    """Describe a version in Markdown."""
    lines = [f"# Golden set, version {version.number}", ""]
    return "\n".join([*lines, *(f"- {cell(line)}" for line in _facts(version))])


def _facts(version: GoldenVersion) -> list[str]:
    since = version.said_after
    sources = [f"{count:,} from {_SOURCES.get(name, name)}" for name, count in version.sources]
    facts = [
        f"made {version.created_at:%Y-%m-%d %H:%M} UTC: {one_line(version.why)}",
        f"gated on {version.metric}: {version.why_metric}",
        f"{version.added:,} new ({', '.join(sources) or 'none'}), {version.kept:,} of the version "
        f"before, {version.retired:,} retired",
    ]
    if since is not None:
        facts.append(f"what is right was said after {since:%Y-%m-%d %H:%M} UTC, the end of what "
                     "was trained on")  # fmt: skip
    return facts + [f"left out: {count:,} {why}" for why, count in version.set_aside]
