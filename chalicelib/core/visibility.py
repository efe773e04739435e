"""Visibility timeouts, in seconds, for messages of lanes and scheduled messages that a worker cannot process now."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from chalicelib.core.errors import UnavailableError

#: Longest wait, in milliseconds, that a worker sleeps; longer waits are deferred, since SQS hides for whole seconds.
MAX_SLEEP_MS = 1_200
#: The same, in milliseconds, where a start may be late: hiding the message again costs about as much as this.
SHORT_SLEEP_MS = 350
#: Seconds for which a message is hidden after AWS failed: the first ones double, up to this.
SOON_SECONDS = 5
#: Receives after which it is hidden for longer. A message that only waited has fewer; an outage of three minutes uses
#: more.
MANY_RECEIVES = 30
#: Seconds for which it is hidden then. The 1,000 receives, after which SQS dead-letters a message, last for 15 hours,
#: and a lane goes on within a minute of the outage's end.
LATER_SECONDS = 57
#: Seconds for which a message in a newer form is hidden, until a newer function receives it. 1,000 receives, after
#: which SQS dead-letters it, allow a roll-out of eight hours.
NEWER_SECONDS = 30


def again_seconds(receives: int) -> int:
    """Seconds for which a message is hidden whose processing AWS stopped. receives: SQS's count, this one included.

    >>> [again_seconds(receives) for receives in (1, 2, 3, 4, 30, 31, 1_000)]
    [1, 2, 4, 5, 5, 57, 57]
    """
    if receives > MANY_RECEIVES:
        return LATER_SECONDS
    return min(1 << min(receives - 1, 10), SOON_SECONDS)


@contextmanager
def again_soon(defer: Callable[[str, int], object], receipt: str, receives: int) -> Iterator[None]:
    """Hides the message for `again_seconds` if the body raises UnavailableError, and re-raises it."""
    try:
        yield
    except UnavailableError:
        with suppress(UnavailableError):  # else it reappears when its visibility timeout ends
            defer(receipt, again_seconds(receives))
        raise
