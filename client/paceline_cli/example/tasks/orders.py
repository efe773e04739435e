"""Charges orders at a bank that takes one call a second for each customer."""

from paceline import Context, PermanentError, RetryAfter, task


class BusyError(Exception):
    """The bank asks for a pause of so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:g} s")
        self.seconds = seconds


def call_bank(order: str, cents: int, reference: str) -> str:
    """Stands for the bank's client library. The bank books one reference once."""
    return f"{order}: {cents} cents, booked as {reference}"


@task("charge", attempts=5, backoff_seconds=2)
def charge(order: str, cents: int, *, context: Context) -> str:
    """Charges an order; an attempt that fails is repeated up to four times."""
    if cents <= 0:
        raise PermanentError(f"{cents} cents can't be charged")
    try:
        return call_bank(order, cents, reference=context.task_id)
    except BusyError as busy:
        raise RetryAfter(busy.seconds, "the bank asked for a pause") from busy
