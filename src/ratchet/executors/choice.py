"""Which executor a setting names."""

from __future__ import annotations

import re

from ratchet.errors import SettingsError
from ratchet.executors.executor import INLINE, Executor
from ratchet.executors.on_ray import OnRay
from ratchet.executors.several import Processes

_FORMS = re.compile(
    r"inline|processes:(?P<workers>[1-9]\d{0,2})"
    r"|(?P<ray>ray)(:(?P<address>[^,\s]+))?(,gpus=(?P<gpus>\d+(\.\d+)?))?"
)


def executor_of(text: str) -> Executor:
    """Return the executor that a setting names.

    Args:
        text: `inline`, `processes:N`, `ray` (the cluster that this machine is part of),
            `ray:local` (a cluster of this machine alone, for this process) or `ray:ADDRESS`;
            after `ray` may stand `,gpus=G`, the part of a GPU that a shard is given.

    Raises:
        SettingsError: It is none of these.
    """
    found = _FORMS.fullmatch(text.strip())
    if found is None:
        raise SettingsError(
            "an executor must be inline, processes:N or ray[:ADDRESS][,gpus=G], got "
            f"{text!r}; correct RATCHET_EXECUTOR"
        )
    if found["ray"]:
        return OnRay(found["address"] or "auto", gpus=float(found["gpus"] or 0.0))
    return Processes(int(found["workers"])) if found["workers"] else INLINE
