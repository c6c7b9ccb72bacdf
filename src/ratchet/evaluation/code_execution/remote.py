"""What stands for an object of the other process: it asks for each operation on it.

Runs inside the box as `exchange`, and imports the standard library alone.
"""

from __future__ import annotations

from typing import Any

_COMPARING = ("eq", "ne", "lt", "le", "gt", "ge")
_ARITHMETIC = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "matmul"),
    *("lshift", "rshift"),
)
_OF_ONE = (
    *("len", "iter", "next", "bool", "int", "float", "str", "repr", "index", "neg", "pos", "abs"),
    "invert",
)


class Remote:
    """Stands for an object of the other process."""

    def __init__(self, peer: Any, number: int) -> None:
        object.__setattr__(self, "_Remote__peer", peer)
        object.__setattr__(self, "_Remote__number", number)

    def __call__(self, *values: Any, **named: Any) -> Any:
        """Call it there."""
        return peer_of(self).ask("call", self, *values, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        return peer_of(self).ask("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        peer_of(self).ask("set attribute", self, name, value)

    def __hash__(self) -> int:
        return hash((id(peer_of(self)), number_of(self)))

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Remote) and bool(
            peer_of(self).ask("isinstance", self, instance)
        )

    def __getitem__(self, key: Any) -> Any:
        return peer_of(self).ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        peer_of(self).ask("setitem", self, key, value)

    def __delitem__(self, key: Any) -> None:
        peer_of(self).ask("delitem", self, key)

    def __contains__(self, item: Any) -> bool:
        if _may_compare(self, item):
            return bool(peer_of(self).ask("contains", self, item))
        return any(item is one or item == one for one in _through(self))

    def __enter__(self) -> Any:
        return peer_of(self).ask("attribute", self, "__enter__")()

    def __exit__(self, *_: Any) -> Any:
        return peer_of(self).ask("attribute", self, "__exit__")(None, None, None)

    def __await__(self) -> Any:
        if False:
            yield
        return peer_of(self).ask("finish", self)


def _through(remote: Any) -> Any:
    return iter(remote)


def _of_one(operation: str) -> Any:
    return lambda self: peer_of(self).ask(operation, self)


def _of_two(operation: str) -> Any:
    def forward(self: Remote, other: Any) -> Any:
        if not _may_compare(self, other):
            return NotImplemented
        return peer_of(self).ask(operation, self, other)

    return forward


def _reflected(operation: str) -> Any:
    def forward(self: Remote, other: Any) -> Any:
        if not _may_compare(self, other):
            return NotImplemented
        return peer_of(self).ask(operation, other, self)

    return forward


for _name in _OF_ONE:
    setattr(Remote, f"__{_name}__", _of_one(_name))
for _name in (*_COMPARING, *_ARITHMETIC):
    setattr(Remote, f"__{_name.strip('_')}__", _of_two(_name))
for _name in _ARITHMETIC:
    setattr(Remote, f"__r{_name.strip('_')}__", _reflected(_name))


def peer_of(remote: Remote) -> Any:
    """Return the end of the exchange that a remote asks."""
    found: Any = object.__getattribute__(remote, "_Remote__peer")
    return found


def number_of(remote: Remote) -> int:
    """Return the number of the object on the other side."""
    found: int = object.__getattribute__(remote, "_Remote__number")
    return found


def _may_compare(remote: Remote, other: Any) -> bool:
    """Whether the other side may be asked: it would see the value, and say that it is equal."""
    peer = peer_of(remote)
    return not peer.guarded or peer.comparable or type(other) is Remote
