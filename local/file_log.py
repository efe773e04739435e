"""Writes the completion log to files: a log group is a folder, a log stream a file, as in CloudWatch Logs."""

import os
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from chalicelib.worker.completion_log import as_line


class FileLog:
    """One log stream: a file that only this process writes, a new one each UTC day.

    Each line is one write to a file opened for appending, so concurrent readers see whole lines.
    """

    def __init__(self, log_dir: str, stage: str, process_name: str, stream_id: str, now_ms: Callable[[], int]) -> None:
        self._group = Path(log_dir) / "paceline" / stage / "completions"
        self._stream_name = f"[{process_name}]{stream_id}.log"
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._day = ""
        self._file = -1
        self._torn = False

    def write(self, event: dict[str, Any]) -> None:
        data = as_line(event).encode()
        with self._lock:
            self._open_today()
            if self._torn:  # the disk filled up in the middle of a line: end it, so that readers skip it
                data = b"\n" + data
            written = os.write(self._file, data)
            self._torn = 0 < written < len(data)
            if written < len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written to {self._stream_name}")

    def _open_today(self) -> None:
        day = datetime.fromtimestamp(self._now_ms() / 1000, timezone.utc).strftime("%Y/%m/%d")
        # Also reopen if the file is gone, or lines after a `rm -rf logs` would go to a deleted file.
        if day == self._day and os.fstat(self._file).st_nlink:
            return
        folder = self._group / day
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder / self._stream_name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._day, self._torn = opened, day, False
