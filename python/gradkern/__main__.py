"""``python -m gradkern``."""

from __future__ import annotations

import sys

from gradkern.cli import main

sys.exit(main())
