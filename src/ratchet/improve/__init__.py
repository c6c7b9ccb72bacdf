"""The stage improve: training sets and fine-tuning. Makes candidates, cannot decide on them."""
