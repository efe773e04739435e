"""`python -m infra.local`: starts everything and stays until it is told to stop."""

import sys

from infra.local.runner import main

sys.exit(main())
