"""How long messages are hidden that can't be dealt with now, of lanes and of messages alike."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from chalicelib.core.errors import UnavailableError

#: The longest wait that is slept, milliseconds; SQS hides messages for whole seconds only, so longer ones are deferred.
MAX_SLEEP_MS = 1_200
#: How long a message is hidden when AWS failed: on Lambda its visibility would last far longer.
AGAIN_SECONDS = 5
#: How long a message is hidden that only a newer deployment can read, so that one of its functions gets it: at 1,000
#: receives that is a roll-out of eight hours before SQS itself makes it a dead letter.
NEWER_SECONDS = 30


@contextmanager
def again_soon(defer: Callable[[str, int], object], receipt: str) -> Iterator[None]:
    """Lets an UnavailableError pass, and the message come again soon after it."""
    try:
        yield
    except UnavailableError:
        with suppress(UnavailableError):  # or it comes back when its visibility ends
            defer(receipt, AGAIN_SECONDS)
        raise
