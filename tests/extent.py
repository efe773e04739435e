"""How much a run tests: `make test` a part of the seeds and examples, `make test-all` all of them."""

import os

#: conftest.py takes hypothesis' number of examples from the same variable.
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")


def extent(quick: int, full: int) -> int:
    """The number of seeds or examples in this run."""
    return quick if PROFILE == "quick" else full
