"""From values to what JSON can say and back, with the containers that a call may change.

Runs inside the box as `exchange`, and imports the standard library alone.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import enum
import fractions
import importlib
import keyword
import operator
import sys
import types
from typing import Any

from ratchet.evaluation.code_execution.remote import Remote, number_of

_PLAIN = (type(None), bool, int, float, str)
_MUTABLE = (list, dict, set, bytearray, collections.deque)
_TYPES = {("builtins", name) for name, value in vars(builtins).items() if isinstance(value, type)}


async def finish(awaited: Any) -> Any:
    """Wait for what can be awaited."""
    return await awaited


def described(error: BaseException) -> list[Any]:
    """Return what an exception is, as data: names of its classes, arguments, attributes."""
    names = [kind.__name__ for kind in type(error).__mro__ if kind is not object]
    values = [one if _is_data(one) else str(one) for one in error.args]
    attributes = {
        name: value for name, value in getattr(error, "__dict__", {}).items() if _is_data(value)
    }
    return [names, values, attributes]


def _is_data(value: Any) -> bool:
    return isinstance(value, (*_PLAIN, bytes)) or type(value) in (list, tuple, dict, set)


class Packing:
    """From values to what JSON can say; remembers the containers that a call may change."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.containers: list[Any] = []
        self.places: dict[int, int] = {}

    def pack(self, value: Any) -> Any:
        """Return a value as JSON."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is Remote:
            return ["yours", number_of(value)]
        if kind in _MUTABLE or kind in (dict, collections.OrderedDict, collections.Counter):
            return self._container(value)
        if kind is collections.defaultdict:
            return self._container(value)
        if kind in (tuple, frozenset):
            return [kind.__name__, [self.pack(one) for one in value]]
        if self._travels(kind):
            return self._container(value)
        return self._single(value)

    def _travels(self, kind: type) -> bool:
        name = kind.__name__
        return (
            self.peer.classes.get(name) is kind
            and not issubclass(kind, (BaseException, enum.Enum, *_MUTABLE, *_PLAIN[1:], tuple))
        )  # fmt: skip

    def _single(self, value: Any) -> Any:
        if isinstance(value, enum.Enum) and self.peer.classes.get(type(value).__name__):
            return ["member", type(value).__name__, value.name]
        if isinstance(value, (bool, int, float, str)):
            return next(
                kind.__new__(kind, value)  # type: ignore[type-var]
                for kind in (int, float, str)
                if isinstance(value, kind)
            )
        if isinstance(value, bytes):
            return ["bytes", value.hex()]
        if isinstance(value, tuple):
            fields = [str(name) for name in getattr(type(value), "_fields", ())]
            return ["named", type(value).__name__, fields, [self.pack(one) for one in value]]
        if isinstance(value, BaseException):
            return ["exception", self.pack(described(value))]
        known = _KNOWN.get(type(value).__name__)
        if known is not None and type(value) is known[0]:
            return ["known", type(value).__name__, self.pack(known[1](value))]
        named = _importable(value)
        if named is not None and (self.peer.guarded or named in _TYPES):
            return ["import", *named]
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["raises", [one.__name__ for one in value.__mro__ if one is not object]]
        kind = "awaits" if isinstance(value, types.CoroutineType) else "mine"
        return [kind, self.peer.number(value)]

    def _container(self, value: Any) -> Any:
        place = self.places.get(id(value))
        if place is not None:
            return ["same", place]
        place = self.places[id(value)] = len(self.containers)
        self.containers.append(value)
        return [type(value).__name__, place, self.content(value)]

    def content(self, value: Any) -> Any:
        """Return what is in a container."""
        if isinstance(value, dict):
            return [[self.pack(key), self.pack(one)] for key, one in list(value.items())]
        if isinstance(value, bytearray):
            return value.hex()
        if isinstance(value, (list, set, collections.deque)):
            return [self.pack(one) for one in list(value)]
        return [[name, self.pack(one)] for name, one in _state(value)]


class Unpacking:
    """From what JSON says to values, with the containers of the call in their order."""

    def __init__(self, peer: Any, containers: list[Any]) -> None:
        self.peer, self.containers = peer, containers

    def unpack(self, said: Any) -> Any:
        """Return the value that was packed; any exception says that it is none."""
        return self._tagged(*said) if isinstance(said, list) else said

    def _tagged(self, tag: str, *said: Any) -> Any:
        if tag == "same":
            return self.containers[said[0]]
        if tag in ("tuple", "frozenset"):
            return (tuple if tag == "tuple" else frozenset)(map(self.unpack, said[0]))
        if tag == "bytes":
            return bytes.fromhex(said[0])
        if tag == "yours":
            return self.peer.mine(said[0])
        if tag == "mine":
            return self.peer.theirs(said[0])
        if tag == "awaits":
            return finish(self.peer.theirs(said[0]))
        if tag == "known":
            return _KNOWN[said[0]][2](self.unpack(said[1]))
        if tag == "import":
            if self.peer.guarded and said not in _TYPES:
                raise ValueError("a function of the answer's stays there")
            return _imported(*said)
        if tag == "raises":
            return self.peer.exception_class(said[0])
        if tag == "exception":
            return self.peer.exception(*self.unpack(said[0]))
        if tag == "member":
            return self.peer.classes[said[0]][said[1]]
        if tag == "named":
            return _named_tuple(said[0], said[1], [self.unpack(one) for one in said[2]])
        return self._container(tag, *said)

    def _container(self, tag: str, place: int, content: Any) -> Any:
        kinds: dict[str, Any] = {kind.__name__: kind for kind in _MUTABLE} | {
            "OrderedDict": collections.OrderedDict,
            "Counter": collections.Counter,
            "defaultdict": collections.defaultdict,
        }
        kind = kinds.get(tag) or self.peer.classes[tag]
        made = kind() if tag in kinds else object.__new__(kind)
        if place != len(self.containers):
            raise ValueError("containers must come in order")
        self.containers.append(made)
        self.refill(made, content)
        return made

    def refill(self, container: Any, content: Any) -> None:
        """Put a content into a container, in place of what is there."""
        if isinstance(container, bytearray):
            container[:] = bytes.fromhex(content)
        elif isinstance(container, dict):
            pairs = [(self.unpack(key), self.unpack(value)) for key, value in content]
            dict.clear(container)
            for key, value in pairs:
                dict.__setitem__(container, key, value)
        elif isinstance(container, (list, set, collections.deque)):
            values = [self.unpack(one) for one in content]
            container.clear()
            container.update(values) if isinstance(container, set) else container.extend(values)
        else:
            for name, value in content:
                if name.startswith("__") or callable(getattr(type(container), name, None)):
                    raise ValueError(f"{name} is no attribute that an object may bring")
                object.__setattr__(container, name, self.unpack(value))


def _state(value: Any) -> list[tuple[str, Any]]:
    slots = [
        name
        for kind in type(value).__mro__
        for name in getattr(kind, "__slots__", ())
        if not name.startswith("__") and hasattr(value, name)
    ]
    return [*vars(value).items()] if hasattr(value, "__dict__") else [
        (name, getattr(value, name)) for name in slots
    ]  # fmt: skip


def _named_tuple(name: str, fields: list[str], values: list[Any]) -> Any:
    usable = len(fields) == len(values) and all(
        field.isidentifier() and not field.startswith("_") and not keyword.iskeyword(field)
        for field in fields
    )
    if not fields or not usable or not str(name).isidentifier():
        return tuple(values)
    return collections.namedtuple(name, fields, rename=True)(*values)


def _importable(value: Any) -> tuple[str, str] | None:
    """Module and name of a function or class of the standard library; None for any other value."""
    if isinstance(value, types.ModuleType):
        return (value.__name__, "") if _is_standard(value.__name__) else None
    if isinstance(value, types.MethodDescriptorType):
        kind = value.__objclass__
        return ("builtins", f"{kind.__name__}.{value.__name__}") if _is_builtin(kind) else None
    if not isinstance(value, (type, types.BuiltinFunctionType, types.FunctionType)):
        return None
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", "")
    if not isinstance(module, str) or not _is_standard(module):
        return None
    return (module, name) if getattr(sys.modules.get(module), name, None) is value else None


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names and module != "__main__"


def _imported(module: str, name: str) -> Any:
    if not _is_standard(module):
        raise ValueError(f"{module} is not of the standard library")
    found = importlib.import_module(module)
    return operator.attrgetter(name)(found) if name else found


def _is_builtin(kind: type) -> bool:
    return getattr(builtins, kind.__name__, None) is kind


_KNOWN: dict[str, tuple[type, Any, Any]] = {
    "complex": (complex, lambda v: [v.real, v.imag], lambda said: complex(*said)),
    "Decimal": (decimal.Decimal, str, decimal.Decimal),
    "Fraction": (
        fractions.Fraction, lambda v: [v.numerator, v.denominator],
        lambda said: fractions.Fraction(*said),
    ),
    "range": (range, lambda v: [v.start, v.stop, v.step], lambda said: range(*said)),
    "slice": (slice, lambda v: [v.start, v.stop, v.step], lambda said: slice(*said)),
    "datetime": (
        datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat,
    ),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "timedelta": (
        datetime.timedelta, lambda v: [v.days, v.seconds, v.microseconds],
        lambda said: datetime.timedelta(*said),
    ),
    "ellipsis": (type(...), lambda _: None, lambda _: ...),
}  # fmt: skip
