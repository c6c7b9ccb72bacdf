"""What people decide about single interactions."""
