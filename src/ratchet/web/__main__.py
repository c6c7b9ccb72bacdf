"""`python -m ratchet.web`: the pages of a home, as a process of its own."""

import sys

from ratchet.web.serve import main

if __name__ == "__main__":
    sys.exit(main())
