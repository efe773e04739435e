"""`python -m local`: starts everything and stays until it is told to stop."""

import sys

from local.runner import main

sys.exit(main())
