"""Many processes that write the completion log at once."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from local.file_log import FileLog
from tests.factories import NOW
from tests.unit.test_completion_log import lines, streams

#: New interpreters: a fork of a process that has threads may hang.
PROCESSES = multiprocessing.get_context("spawn")


def write_many(folder: str, name: str, stream: str, count: int, go: Any) -> None:
    log = FileLog(folder, "dev", name, stream, lambda: NOW)
    go.wait()
    for number in range(count):
        log.write({"writer": f"{name}-{os.getpid()}", "n": number, "fill": "x" * (number % 50) * 400})


@pytest.mark.parametrize("streams_used", ["a stream each", "one stream for all"])
def test_each_line_is_whole_however_many_processes_write(tmp_path: Path, streams_used: str) -> None:
    go = PROCESSES.Event()
    names = [f"worker-{n}" if streams_used == "a stream each" else "worker" for n in range(4)]
    writers = [PROCESSES.Process(target=write_many, args=(str(tmp_path), name, "0f3c", 300, go)) for name in names]
    for writer in writers:
        writer.start()
    go.set()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    written = [json.loads(line) for line in lines(tmp_path)]
    assert len(written) == 4 * 300
    for name in {event["writer"] for event in written}:
        assert [event["n"] for event in written if event["writer"] == name] == list(range(300))
    assert len(streams(tmp_path)) == len(set(names))
