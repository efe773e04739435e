"""Visibility timeouts, in seconds, for messages of lanes and scheduled messages that a worker cannot process now."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from chalicelib.core.errors import UnavailableError

#: Longest wait, in milliseconds, that a worker sleeps; longer waits are deferred, since SQS hides for whole seconds.
MAX_SLEEP_MS = 1_200
#: Seconds for which a message is hidden after AWS failed; on Lambda its visibility timeout would last far longer.
AGAIN_SECONDS = 5
#: Seconds for which a message in a newer form is hidden, until a newer function receives it. 1,000 receives, after
#: which SQS dead-letters it, allow a roll-out of eight hours.
NEWER_SECONDS = 30


@contextmanager
def again_soon(defer: Callable[[str, int], object], receipt: str) -> Iterator[None]:
    """Hides the message for AGAIN_SECONDS if the body raises UnavailableError, and re-raises it."""
    try:
        yield
    except UnavailableError:
        with suppress(UnavailableError):  # else it reappears when its visibility timeout ends
            defer(receipt, AGAIN_SECONDS)
        raise
