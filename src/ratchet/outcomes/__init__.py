"""What an interaction was worth: interactions with their feedback, quality, experience."""
