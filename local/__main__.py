"""`python -m local`: starts all processes and runs until a signal stops it."""

import sys

from local.runner import main

sys.exit(main())
