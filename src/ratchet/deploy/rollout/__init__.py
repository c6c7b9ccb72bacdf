"""A release that reaches users by stages, watched at each."""
