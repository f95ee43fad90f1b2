"""``python -m dragoman`` is ``dragoman``."""

import sys

from dragoman.cli import main

sys.exit(main())
