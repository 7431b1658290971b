"""``python -m mixskd``."""

import sys

from mixskd.cli import main

if __name__ == "__main__":
    sys.exit(main())
