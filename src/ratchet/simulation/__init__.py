"""Users and traffic with known truth, to test the loop and its instruments against."""
