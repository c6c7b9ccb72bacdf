"""The gate: is the challenger better than the champion on the same examples?"""

from ratchet.deploy.gate.gate import BORDERLINE, GateResult, run_gate

__all__ = [
    "BORDERLINE",
    "GateResult",
    "run_gate",
]
