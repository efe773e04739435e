"""Makes clients and connections before the first request or message has to wait for them."""

from chalicelib.bootstrap import container


def warm_up() -> None:
    """What is wrong with AWS is left to those who need it."""
    parts = container()
    _ = (parts.intake, parts.worker, parts.errands, parts.authenticator)
    list(parts.check_health())
