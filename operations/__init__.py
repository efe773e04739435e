"""Commands of the checkout, beside those of the client: run, demo, logs, audit, redrive, token, deploy, destroy."""

import sys
from pathlib import Path

# The client is used as it stands in this checkout, and is not installed.
sys.path.insert(0, str(Path(__file__).parents[1] / "client"))
