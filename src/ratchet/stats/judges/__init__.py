"""Statistics of judges: bias, length, drift, win rates and rates corrected by labels."""
