import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from completions.reader import completions_folder
from completions.tail import Choice, Entry, Tail, follow, parse_since, show
from tests.unit.command_line import call
from tests.unit.completion_lines import NOW, STREAM, completion_text, write_stream

ROOT = Path(__file__).resolve().parents[2]


def steps(*actions: Callable[[], object]) -> Callable[[], bool]:
    """A wait that does the next action each time it is waited for, and ends the following after the last."""
    left = iter(actions)

    def wait() -> bool:
        action = next(left, None)
        if action:
            action()
        return action is not None

    return wait


def followed(folder: Path, *actions: Callable[[], object], choice: Choice | None = None) -> list[list[int]]:
    batches = follow(Tail(folder), choice or Choice(), steps(*actions))
    return [[entry.completion.seq for entry in entries] for entries in batches]


def shown(folder: Path, form: str) -> str:
    written: list[str] = []
    show(follow(Tail(folder), Choice(), steps()), form, written.append)
    return "".join(written)


def test_new_lines_come_once_and_in_order(tmp_path: Path) -> None:
    write_stream(tmp_path, completion_text(1))

    assert followed(
        tmp_path,
        lambda: write_stream(tmp_path, completion_text(2), completion_text(3, NOW + 1)),
        lambda: None,
        lambda: write_stream(tmp_path, completion_text(4)),
    ) == [[1], [2, 3], [4]]


def test_new_days_and_new_workers_are_found(tmp_path: Path) -> None:
    assert followed(
        tmp_path,
        lambda: write_stream(tmp_path, completion_text(1), stream="2026/11/22/[worker-1]aa"),
        lambda: write_stream(tmp_path, completion_text(2), stream="2026/11/22/[worker-2]bb"),
        lambda: write_stream(tmp_path, completion_text(3), stream="2026/11/23/[worker-1]aa"),
    ) == [[1], [2], [3]]


def test_folder_may_come_later(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"

    assert followed(folder, lambda: None, lambda: write_stream(folder, completion_text(1))) == [[1]]


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    text = completion_text(2, result="\u00fc")

    assert followed(
        tmp_path,
        lambda: write_stream(tmp_path, completion_text(1), text[:50], end=""),
        lambda: write_stream(tmp_path, text[50:], end=""),
        lambda: write_stream(tmp_path, "", end="\n"),
    ) == [[1], [2]]


def test_file_that_is_cut_short_is_read_anew(tmp_path: Path) -> None:
    path = write_stream(tmp_path, completion_text(1), completion_text(2))

    def start_over() -> None:
        path.write_text("")
        write_stream(tmp_path, completion_text(3))

    assert followed(tmp_path, start_over) == [[1, 2], [3]]


def test_file_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    path = write_stream(tmp_path, completion_text(1))

    assert followed(tmp_path, path.unlink, lambda: write_stream(tmp_path, completion_text(2))) == [[1], [2]]


def test_file_that_goes_while_it_is_looked_at_ends_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "2026/11/22/[worker-1]aa.log"
    gone.parent.mkdir(parents=True)
    gone.symlink_to(tmp_path / "nowhere")
    write_stream(tmp_path, completion_text(1))

    assert followed(tmp_path) == [[1]]


def test_streams_are_put_in_the_order_of_time(tmp_path: Path) -> None:
    write_stream(tmp_path, completion_text(1, NOW), completion_text(3, NOW + 2), stream="2026/11/22/[worker-1]aa")
    write_stream(tmp_path, completion_text(2, NOW + 1), stream="2026/11/22/[worker-2]bb")

    assert followed(tmp_path) == [[1, 2, 3]]


def test_lines_that_are_no_completions_are_left_out(tmp_path: Path) -> None:
    write_stream(tmp_path, "no completion", completion_text(1), '{"event": "other"}')

    assert followed(tmp_path) == [[1]]


def test_user_and_time_choose(tmp_path: Path) -> None:
    write_stream(tmp_path, completion_text(1, NOW), completion_text(2, NOW + 1), completion_text(3, user_id="b"))

    assert followed(tmp_path, choice=Choice("user123")) == [[1, 2]]
    assert followed(tmp_path, choice=Choice("user123", since_ms=NOW + 6)) == [[2]]


def test_file_that_rests_since_long_is_passed_over_until_it_grows(tmp_path: Path) -> None:
    path = write_stream(tmp_path, completion_text(1))
    os.utime(path, (1, 1))
    waits = steps(lambda: write_stream(tmp_path, completion_text(2)))

    batches = list(follow(Tail(tmp_path, since_ms=2000), Choice(), waits))

    assert [[entry.completion.seq for entry in entries] for entries in batches] == [[2]]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("task_completed", f"user123-task completed at-{NOW + 5}\n"),
        ("task_failed", f"user123-task failed at-{NOW + 5}\n"),
        ("task_cancelled", f"user123-task cancelled at-{NOW + 5}\n"),
    ],
)
def test_line_form_says_what_became_of_the_task(tmp_path: Path, event: str, expected: str) -> None:
    write_stream(tmp_path, completion_text(event=event))

    assert shown(tmp_path, "line") == expected


def test_forms_are_those_of_aws_logs_tail(tmp_path: Path) -> None:
    text = completion_text()
    write_stream(tmp_path, text)

    assert shown(tmp_path, "detailed") == f"2026-11-22T05:20:29.128000+00:00 {STREAM} {text}\n"
    assert shown(tmp_path, "short") == f"2026-11-22T05:20:29 {text}\n"
    assert shown(tmp_path, "json") == (
        f"2026-11-22T05:20:29.128000+00:00 {STREAM} \n{json.dumps(json.loads(text), indent=4)}\n"
    )
    assert json.loads(shown(tmp_path, "none")) == {"logStreamName": STREAM, "timestamp": NOW + 5, "message": text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", NOW - 30_000),
        ("10m", NOW - 600_000),
        ("2h", NOW - 7_200_000),
        ("1d", NOW - 86_400_000),
        ("1w", NOW - 604_800_000),
        ("2026-11-22T05:20:29.123Z", NOW),
        ("2026-11-22T06:20:29.123+01:00", NOW),
        ("2026-11-22T05:20:29", NOW - 123),
    ],
)
def test_since_is_relative_or_a_time(text: str, expected: int) -> None:
    assert parse_since(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "5h30m", "-1m", "yesterday"])
def test_other_since_is_bad_usage(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_since(text, NOW)
    assert call("logs", f"--since={text}", "--no-follow") == 2


def test_ctrl_c_ends_it_quietly() -> None:
    def interrupted() -> Iterator[list[Entry]]:
        raise KeyboardInterrupt
        yield []

    show(interrupted(), "line", lambda text: pytest.fail(f"wrote {text}"))


def test_command_prints_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stream(completions_folder(tmp_path, "dev"), completion_text(1), completion_text(2, user_id="b"))

    assert call("logs", "--no-follow", "--stage=dev", f"--log-dir={tmp_path}", "--since=2020-01-01", "--user=b") == 0

    assert capsys.readouterr().out == f"b-task completed at-{NOW + 5}\n"


def test_command_says_when_there_is_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("logs", "--no-follow", "--stage=dev", f"--log-dir={tmp_path}") == 0

    assert capsys.readouterr() == ("", f"no completion log yet in {tmp_path}/paceline/dev/completions\n")


@contextmanager
def following(log_dir: Path) -> Iterator[tuple["subprocess.Popen[str]", IO[str]]]:
    """The command as a process, and the reading end of its pipe. It is gone afterwards, whatever happened."""
    command = [sys.executable, "-m", "operations", "logs", "--stage=dev", f"--log-dir={log_dir}", "--since=2020-01-01"]
    # Unbuffered, Python takes a write that found no reader half way for a whole one.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        try:
            yield process, process.stdout
        finally:
            process.kill()


def outcome(process: "subprocess.Popen[str]") -> tuple[int, str]:
    assert process.stderr
    return process.wait(timeout=10), process.stderr.read()


def test_process_follows_until_ctrl_c(tmp_path: Path) -> None:
    folder = completions_folder(tmp_path, "dev")
    write_stream(folder, completion_text(1))
    with following(tmp_path) as (process, output):
        assert output.readline() == f"user123-task completed at-{NOW + 5}\n"
        write_stream(folder, completion_text(2, NOW + 1), stream="2026/11/23/[worker-2]bb")
        assert output.readline() == f"user123-task completed at-{NOW + 6}\n"
        process.send_signal(signal.SIGINT)
        assert outcome(process) == (0, "")
        assert output.read() == ""


def test_process_ends_when_its_reader_goes_though_nothing_new_comes(tmp_path: Path) -> None:
    write_stream(completions_folder(tmp_path, "dev"), completion_text(1))
    with following(tmp_path) as (process, output):
        output.readline()
        output.close()
        assert outcome(process) == (0, "")


def test_process_ends_when_a_write_finds_no_reader(tmp_path: Path) -> None:
    write_stream(completions_folder(tmp_path, "dev"), *(completion_text(seq) for seq in range(5000)))
    with following(tmp_path) as (process, output):
        output.readline()
        output.close()
        assert outcome(process) == (0, "")
