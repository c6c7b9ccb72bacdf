"""Experiments on users: sequences that hold at every look, sample ratio, clustered differences."""
