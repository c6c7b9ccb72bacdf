"""LLM judges: from a rubric to a validated score."""
