"""Looking after an installation: what is kept for how long, and what is taken away."""
