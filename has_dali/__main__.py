"""``python -m has_dali`` is ``has-dali``."""

import sys

from has_dali.cli import main

sys.exit(main())
