import io
import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.worker.completion_log import StandardOutputLog, as_line
from local.file_log import FileLog
from tests.factories import NOW, VirtualClock


def make_log(folder: Path, name: str = "worker-1", stream: str = "0f3c", clock: VirtualClock | None = None) -> FileLog:
    return FileLog(str(folder), "dev", name, stream, (clock or VirtualClock()).now_ms)


def streams(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def lines(folder: Path) -> list[str]:
    return [line for path in sorted(folder.rglob("*.log")) for line in path.read_text().split("\n")[:-1]]


def test_stream_is_a_file_in_its_group_s_folder_by_day(tmp_path: Path) -> None:
    make_log(tmp_path).write({"event": "task_completed"})
    assert streams(tmp_path) == ["paceline/dev/completions/2026/11/22/[worker-1]0f3c.log"]
    assert lines(tmp_path) == ['{"event":"task_completed"}']


def test_nothing_is_made_before_the_first_event(tmp_path: Path) -> None:
    make_log(tmp_path)
    assert streams(tmp_path) == []


def test_new_day_begins_a_new_file_by_utc(tmp_path: Path) -> None:
    clock = VirtualClock(NOW - NOW % 86_400_000 + 86_399_999)
    log = make_log(tmp_path, clock=clock)
    for number in range(3):
        log.write({"n": number})
        clock.advance(1 if number == 0 else 1_000)
    assert streams(tmp_path) == [
        "paceline/dev/completions/2026/11/22/[worker-1]0f3c.log",
        "paceline/dev/completions/2026/11/23/[worker-1]0f3c.log",
    ]
    assert lines(tmp_path) == ['{"n":0}', '{"n":1}', '{"n":2}']


def test_day_changes_leave_no_file_open(tmp_path: Path) -> None:
    clock = VirtualClock()
    log = make_log(tmp_path, clock=clock)
    log.write({})
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        clock.advance(86_400_000)
        log.write({})
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_file_that_was_deleted_is_made_anew_and_leaves_none_open(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.write({"n": 0})
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(1, 4):
        shutil.rmtree(tmp_path / "paceline")
        log.write({"n": number})
        log.write({"n": -number})
        assert lines(tmp_path) == [f'{{"n":{number}}}', f'{{"n":{-number}}}']
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_second_run_adds_to_what_is_there(tmp_path: Path) -> None:
    make_log(tmp_path).write({"run": 1})
    make_log(tmp_path).write({"run": 2})
    assert lines(tmp_path) == ['{"run":1}', '{"run":2}']


@given(st.text() | st.lists(st.text(), max_size=3) | st.dictionaries(st.text(), st.text(), max_size=3))
def test_event_is_one_line_whatever_it_holds(value: Any) -> None:
    line = as_line({"payload": value})
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert json.loads(line) == {"payload": value}


@pytest.mark.parametrize(
    "text", ['"}\n{"event":"task_completed"}', "a\r\nb", "\x85\u2028\u2029\x0b\x0c", "\x1b[2J", "\ud800"]
)
def test_payload_can_not_begin_a_line_of_its_own(tmp_path: Path, text: str) -> None:
    make_log(tmp_path).write({"result": text})
    [line] = (tmp_path / streams(tmp_path)[0]).read_bytes().splitlines()
    assert json.loads(line) == {"result": text}


# --- many at once


def test_each_line_is_whole_however_many_threads_write(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    together = threading.Barrier(8)

    def write(thread: int) -> None:
        together.wait()
        for number in range(100):
            log.write({"thread": thread, "n": number})

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(event["thread"], event["n"]) for event in map(json.loads, lines(tmp_path))}) == 800


# --- a disk that is full


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int], None]]:
    """Lets no file grow past so many bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else before[0], before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_line_that_does_not_fit_is_an_error_and_the_next_one_is_whole(
    tmp_path: Path, limit_file_size: Callable[[int], None]
) -> None:
    log = make_log(tmp_path)
    log.write({"n": 1})
    limit_file_size(20)  # of the next line, 12 bytes fit
    for _ in range(3):
        with pytest.raises(OSError, match=r"File too large|bytes were written"):
            log.write({"n": 2, "fill": "x" * 100})
    limit_file_size(-1)
    log.write({"n": 3})
    log.write({"n": 4})
    whole, torn = [], []
    for line in lines(tmp_path):
        try:
            whole.append(json.loads(line)["n"])
        except ValueError:
            torn.append(line)
    assert whole == [1, 3, 4]
    assert torn == ['{"n":2,"fill']


def test_line_that_is_an_error_may_be_written_again(tmp_path: Path, limit_file_size: Callable[[int], None]) -> None:
    log = make_log(tmp_path)
    limit_file_size(5)
    with pytest.raises(OSError, match="bytes were written"):
        log.write({"n": 1})
    limit_file_size(-1)
    log.write({"n": 1})
    assert lines(tmp_path) == ['{"n":', '{"n":1}']


def test_folder_that_is_a_file_is_an_error_until_it_is_mended(tmp_path: Path) -> None:
    blocked = tmp_path / "paceline"
    blocked.write_text("")
    log = make_log(tmp_path)
    with pytest.raises(OSError, match="paceline"):
        log.write({"n": 1})
    blocked.unlink()
    log.write({"n": 1})
    assert lines(tmp_path) == ['{"n":1}']


# --- standard output


def test_standard_output_gets_the_same_lines_at_once() -> None:
    stream = io.StringIO()
    StandardOutputLog(stream).write({"result": "a\nb"})
    assert stream.getvalue() == as_line({"result": "a\nb"})
