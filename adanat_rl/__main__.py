"""`python -m adanat_rl` is `adanat-rl`."""

import sys

from adanat_rl.cli import main

sys.exit(main())
