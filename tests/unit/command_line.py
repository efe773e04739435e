"""The checkout's command line, called in this process."""

from operations.main import app


def call(*words: str) -> int:
    """Runs the command; its exit code."""
    try:
        app(args=list(words), prog_name="paceline")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
