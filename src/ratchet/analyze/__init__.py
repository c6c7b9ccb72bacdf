"""The stage analyze: reads and measures; cannot train or deploy."""
