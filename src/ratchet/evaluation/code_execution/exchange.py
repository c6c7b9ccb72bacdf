"""Two processes that call each other's functions and exchange nothing but data.

This source runs inside the box, once in the process of the tests and once in that of the answer
(`inside`), so it imports the standard library alone. Data travels by value as JSON, and what a
call did to lists, dicts and sets is written back into the caller's own. Everything else stays
where it is: the other side holds a `Remote`, which asks for each operation on it.

The side of the tests is on its guard: an object of the answer's equals nothing but another such
object, so that none can say that it equals what a test expects; and what the answer may do to
objects of the tests is a short list (`guarded`).
"""

from __future__ import annotations

import builtins
import functools
import json
import operator
import os
import struct
import types
from typing import Any

from ratchet.evaluation.code_execution.packing import Packing, Unpacking, described, finish
from ratchet.evaluation.code_execution.remote import Remote

LARGEST_MESSAGE = 2**26
_EXCEPTIONS = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
_OPERATIONS: dict[str, Any] = {
    name: getattr(operator, name)
    for name in (
        *("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod"),
        *("pow", "and_", "or_", "xor", "matmul", "lshift", "rshift", "neg", "pos", "abs", "invert"),
        *("getitem", "setitem", "delitem", "contains", "index"),
    )
} | {
    "len": len, "iter": iter, "next": next, "bool": bool, "int": int, "float": float, "str": str,
    "repr": repr, "isinstance": lambda kind, value: isinstance(value, kind),
}  # fmt: skip


class Gone(BaseException):
    """The other process has ended, or says what is no message: nothing that tests may catch."""


class Peer:
    """One end of the exchange.

    Attributes:
        classes: Classes that both sides have from the prompt, whose objects travel by value.
        comparable: Whether objects of the other side may be compared with one's own values.
        guarded: Whether the other side is not trusted.
        gone: Why the exchange ended, once it has.
        namespace: Where names of the answer are looked up.
    """

    def __init__(self, reading: int, writing: int, *, guarded: bool) -> None:
        self._in, self._out, self.guarded = reading, writing, guarded
        self.classes: dict[str, type] = {}
        self.comparable = False
        self.gone: Gone | None = None
        self.namespace: dict[str, Any] = {}
        self._mine: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._theirs: dict[int, Remote] = {}
        self._raised: dict[str, type[BaseException]] = {}

    # messages

    def ask(self, operation: str, *values: Any, **named: Any) -> Any:
        """Ask the other side for an operation, answer what it asks meanwhile, return the result."""
        if self.gone is not None:
            raise self.gone
        try:
            outcome, value = self._ask(operation, values, named)
        except Gone as gone:
            self.gone = gone
            raise
        if outcome == "raised":
            raise value
        return value

    def _ask(self, operation: str, values: Any, named: Any) -> tuple[Any, Any]:
        sending = Packing(self)
        self._send(["ask", operation, sending.pack([values, named])])
        while (message := self._receive())[0] == "ask":
            self._send(self._answer(message))
        _, outcome, result, after = message
        receiving, sent = Unpacking(self, sending.containers), len(sending.containers)
        try:
            value = receiving.unpack(result)
            for place, content in enumerate(after[:sent]):
                receiving.refill(sending.containers[place], content)
            return outcome, self.exception(*value) if outcome == "raised" else value
        except Exception as error:
            raise Gone(f"what came is no value: {error}") from None

    def serve(self) -> None:
        """Answer what the other side asks until it ends."""
        while True:
            self._send(self._answer(self._receive()))

    def _answer(self, message: Any) -> list[Any]:
        receiving = Unpacking(self, [])
        sending = Packing(self)
        outcome, result = "returned", None
        try:
            _, operation, packed = message
            try:
                values, named = receiving.unpack(packed)
            except BaseException:
                receiving.containers.clear()  # what could not be read is not written back
                raise
            sending.containers[:] = receiving.containers
            sending.places.update({id(c): n for n, c in enumerate(receiving.containers)})
            result = sending.pack(self._do(operation, values, named))
        except Gone:
            raise
        except BaseException as error:  # also SystemExit: it is the caller's to decide
            outcome, result = "raised", sending.pack(described(error))
        after = [sending.content(one) for one in list(receiving.containers)]
        return ["done", outcome, result, after]

    def _do(self, operation: str, values: Any, named: Any) -> Any:
        if self.guarded:
            guard(operation, values)
        if operation == "call":
            return values[0](*values[1:], **named)
        if operation == "attribute":
            return getattr(values[0], values[1])
        if operation == "set attribute":
            return setattr(*values)
        if operation == "finish":
            import asyncio

            return asyncio.run(finish(values[0]))
        if operation in _OPERATIONS:
            return _OPERATIONS[operation](*values)
        return self.extra(operation, values)

    def extra(self, operation: str, _values: Any) -> Any:
        """What one side can do beyond operations on objects; overridden there."""
        raise TypeError(f"an operation must be a known one, got {operation!r}")

    def _send(self, message: Any) -> None:
        body = json.dumps(message).encode()
        if len(body) > LARGEST_MESSAGE:
            raise ValueError(f"what is handed over must be under 64 MB, got {len(body)} bytes")
        whole = memoryview(struct.pack("=Q", len(body)) + body)
        try:
            while whole:
                whole = whole[os.write(self._out, whole) :]
        except OSError:
            raise Gone from None

    def _receive(self) -> Any:
        (size,) = struct.unpack("=Q", self._read(8))
        if size > LARGEST_MESSAGE:
            raise Gone(f"a message must be under 64 MB, got {size} bytes")
        try:
            message = json.loads(self._read(size))
            if message[0] == "ask" and len(message) == 3 and isinstance(message[1], str):
                return message
            if message[0] == "done" and len(message) == 4 and isinstance(message[3], list):
                return message
        except (ValueError, TypeError, LookupError, RecursionError):
            pass
        raise Gone("what came is no message")

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._in, min(size, 2**20))
            if not part:
                raise Gone
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    # objects that stay

    def number(self, value: Any) -> int:
        """Return the number by which the other side asks for an object of this side."""
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._mine)
            self._mine[len(self._mine)] = value  # kept, so that its id stays its own
        return self._numbers[id(value)]

    def mine(self, number: int) -> Any:
        """Return the object of this side that has a number."""
        return self._mine[number]

    def theirs(self, number: int) -> Remote:
        """Return what stands for an object of the other side, the same one each time."""
        if number not in self._theirs:
            self._theirs[number] = Remote(self, number)
        return self._theirs[number]

    def exception_class(self, names: Any) -> type[BaseException]:
        """Return the class that stands for one of the other side's, by its names up to a builtin.

        Args:
            names: Of the class and its bases, in the order of their resolution.
        """
        first = str(names[0])
        if first in _EXCEPTIONS:
            return _EXCEPTIONS[first]
        known = self.classes.get(first)
        if known is not None and issubclass(known, BaseException):
            return known
        if first not in self._raised:
            base = self.exception_class(names[1:]) if len(names) > 1 else Exception
            self._raised[first] = type(first if first.isidentifier() else "Error", (base,), {})
        return self._raised[first]

    def exception(self, names: Any, values: Any, attributes: Any) -> BaseException:
        """Return the exception of this side that stands for one of the other's."""
        kind = self.exception_class(names)
        try:
            error = kind.__new__(kind)
        except TypeError:  # as groups of exceptions, which hold others
            error = Exception.__new__(Exception)
        error.args = tuple(values)
        for name, value in dict(attributes).items():
            if isinstance(name, str) and not name.startswith("_"):
                try:
                    setattr(error, name, value)
                except (AttributeError, TypeError):
                    continue
        return error


def guard(operation: str, values: Any) -> None:
    """Refuse what the answer may not do to an object of the tests.

    It may call functions, go through what can be gone through, and use objects of classes that the
    tests define by their public attributes. What leads to the tests' own names and frames is not
    among these.

    Raises:
        PermissionError: It may not.
    """
    target = values[0] if values else None
    own = type(target).__module__ == "tests" and not isinstance(target, type)
    if operation in ("attribute", "set attribute"):
        name = values[1] if len(values) > 1 else None
        public = isinstance(name, str) and not name.startswith("_")
        if own and public and operation == "attribute":
            return
        held = getattr(type(target), str(name), None)
        if own and public and not callable(held):
            return
    elif operation == "call":
        functions = (
            types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial,
        )  # fmt: skip
        if isinstance(target, functions) or own:
            return
        if isinstance(target, type) and target.__module__ == "tests":
            return
    elif operation in ("len", "iter", "next", "isinstance", "str", "repr", "bool", "finish"):
        return
    elif operation in ("setitem", "delitem"):
        if own:
            return
    elif operation in _OPERATIONS:
        return
    raise PermissionError(f"an answer may not do this to an object of the tests: {operation}")
