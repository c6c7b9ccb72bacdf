"""Safety rules, the sources of safety flags, and redaction of personal data."""
