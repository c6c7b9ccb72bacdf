"""Statistics: arrays in, frozen results out. Knows nothing of language models."""
