"""Strings that steer a terminal, forge a line, run in a spreadsheet or draw in a page."""

# ruff: noqa: E501

from __future__ import annotations

from tests.browser.hostile import HOSTILE

FORGED = "FORGED"
"""Begins what a forged line says, so that no line of an output may begin so."""
_TERMINAL = [
    "\x1b[2J\x1b[H", "\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJmIH4=\x07", "\x1b[6n", "\x1b[?1049h", "\x1bc", "\x1bP+q544e\x1b\\", "\x1b[5;5Hmoved",
    "\x9b31mC1", "\x9d0;title\x9c", "\x90q\x9c", "\x85next line", "\x84\x8d", "\x07\x07", "gone\x08\x08\x08\x08",
    "overwritten\rok", "\x0b\x0cdown", "\x7f\x7f", "\u202egnp.exe", "\u202d\u202cx", "\u2066a\u2069", "\u2067b\u2069",
    "\u200eleft\u200f", "\u061cx", "ad\u200bmin", "ad\u200cmin", "ad\u200dmin", "ad\u2060min", "\ufeffadmin", "\u00adsoft",
    "\u2028FORGED line", "\u2029FORGED line", "\U000e0041\U000e0042tags", "\u180ex", "\ufff9a\ufffab\ufffb",
    "\x1b[1A\x1b[2KFORGED over the line above", "\x1b[8mhidden\x1b[0m", "\x1b]1337;File=inline=1:AAAA\x07", "\x1b[200~paste\x1b[201~",
]  # fmt: skip
_LINES = [
    "a\nFORGED ERROR ratchet.gateway all is lost", "\nFORGED", "\r\nFORGED", "x\rFORGED", "a\n\nFORGED b",
    "m/1\nFORGED WARNING m/2 is the champion", "x\r\n\r\nFORGED HTTP/1.1 200 OK", "\vFORGED", "\fFORGED", "a\x1cFORGED", "a\x1dFORGED", "a\x1eFORGED", "a\x85FORGED",
]  # fmt: skip
_FORMULAS = [
    "=1+1", "=HYPERLINK(\"https://evil.example\",\"x\")", "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1:A9)", "\t=1+1", "\r=1+1", "\n=1+1",
    "'=1+1", "''=1", "'", "''", "'+", "＝1+1", "＋1", "－1", "＠x", "=IMPORTXML(A1)", "-2+3+cmd|' /C calc'!A0", "\"=1\"", "a,=1", "a;=1",
]  # fmt: skip
_MARKDOWN = [
    "a | b | c", "|---|---|", "\n| forged | row |", "[link](https://evil.example)", "![x](https://evil.example/p.png)", "<img src=https://evil.example/p.png>",
    "[ref]: https://evil.example", "<https://evil.example>", "https://evil.example/auto", "www.evil.example", "me@evil.example", "`code`", "```\nend", "~~~\nend",
    "**bold**", "__bold__", "*x*", "_x_", "~~gone~~", "# Title", "- item", "1. item", "> quote", "&lt;b&gt;", "&#60;b&#62;", "\\", "\\|", "a\\", "<!-- x", "$$x$$", "---", "===",
    "<details><summary>x</summary>", "</table>", "[x][y]", "![x][y]", "^[note]", "[^1]: note", ":smile:", "javascript:alert(1)", "[x](javascript:alert(1))", "http://a\nb",
]  # fmt: skip
TEXTS = tuple(dict.fromkeys([*_TERMINAL, *_LINES, *_FORMULAS, *_MARKDOWN, *HOSTILE]))
STORABLE = tuple(
    text for text in TEXTS if "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
)


def breaks_of_a_terminal(output: str) -> list[str]:
    """Return what of an output steers a terminal or is a line that somebody forged."""
    odd = [f"U+{ord(c):04X}" for c in output if c != "\n" and not c.isprintable()]
    return odd + [line for line in output.split("\n") if line.lstrip().startswith(FORGED)]
