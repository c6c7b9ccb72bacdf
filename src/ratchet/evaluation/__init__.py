"""What an interaction and a model are worth: task metrics and user-experience metrics."""
