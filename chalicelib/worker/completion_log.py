"""The completion log: one JSON object a line, on standard output and so, on Lambda, in CloudWatch Logs."""

import json
import sys
import threading
from typing import Any, TextIO


def as_line(event: dict[str, Any]) -> str:
    """One event as one line: JSON escapes every line break that a payload or an error may hold."""
    return json.dumps(event, separators=(",", ":")) + "\n"


class StandardOutputLog:
    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._stream.write(as_line(event))
            self._stream.flush()
