"""From an answer and an example's tests to the program that runs in the sandbox.

    program = answer_program(answer, tests, prompt=prompt, entry_point="add")

Answers are chat: the code is the first block between code fences that defines the entry point,
else the first block, else the whole text. Tests are plain Python that raises where the answer is
wrong; where they define `check`, as HumanEval's, it is called with the entry point. Where the
prompt itself begins the function, as HumanEval's, the answer may go on or write it anew.
"""

from __future__ import annotations

import re
import textwrap

from ratchet.evaluation.code_execution.sandbox import Program

_FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.M | re.S)
_PYTHON = frozenset({"", "py", "python", "python3"})
_CHECK = re.compile(r"^def check\b", re.M)


def answer_program(
    answer: str, tests: str, *, prompt: str = "", entry_point: str | None = None
) -> Program:
    """Return an answer's code with the tests that it is to pass.

    Args:
        answer: What the model said.
        tests: Python that must run without an error.
        prompt: What was asked; the code that it begins comes before an answer that goes on from it.
        entry_point: Name of what is tested.
    """
    if entry_point is not None and _CHECK.search(tests):
        tests = f"{tests}\ncheck({entry_point})\n"
    begun = answer_code(prompt, entry_point)
    return Program(
        tuple(_readings(answer_code(answer, entry_point), prompt, entry_point)),
        tests,
        begun.rstrip() + "\n" if _defines(begun, entry_point) else "",
        entry_point,
    )


def answer_code(answer: str, entry_point: str | None = None) -> str:
    r"""Return the code of an answer.

    Example:
        >>> answer_code("Sure:\n```python\nx = 1\n```\nThat is all.")
        'x = 1\n'
    """
    blocks = [(label.casefold(), code) for label, code in _FENCED.findall(answer)]
    python = [code for label, code in blocks if label in _PYTHON] or [code for _, code in blocks]
    first: str = [*python, answer][0]
    return next((code for code in python if _defines(code, entry_point)), first)


def _defines(code: str, name: str | None) -> bool:
    if name is None:
        return False
    return re.search(rf"^(?:async +def|def|class) +{re.escape(name)}\b", code, re.M) is not None


def _readings(code: str, prompt: str, entry_point: str | None) -> list[str]:
    """The sources that an answer may stand for; the first that compiles is taken."""
    begun = answer_code(prompt, entry_point)
    if not _defines(begun, entry_point):
        return [code]
    begun = begun.rstrip() + "\n"
    if _defines(code, entry_point):
        return [f"{begun}\n\n{code}", code]
    # servers and tokenizers strip answers, which takes the first line's indentation
    indented = [f"{begun}    {code.lstrip()}", begun + textwrap.indent(code, "    ")]
    raw = begun + code
    return [raw, *indented, code] if code[:1].isspace() else [*indented, raw, code]
