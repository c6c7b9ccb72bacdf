"""`python -m ratchet.cli` is `ratchet`."""

from ratchet.cli import main

main()
