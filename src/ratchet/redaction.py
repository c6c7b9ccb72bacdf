"""placeholder"""
from pydantic import BaseModel, ConfigDict


class RedactionConfig(BaseModel):
    """x"""

    model_config = ConfigDict(frozen=True, extra="forbid")
