"""Ratchet: LLM quality that only turns one way."""

__version__ = "0.1.0"
