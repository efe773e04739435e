import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.limits import parse_limits
from completions.reader import (
    Completion,
    Foreign,
    LogLine,
    cloudwatch_lines,
    completions_folder,
    folder_lines,
    parse_line,
    read_completions,
)
from completions.windows import Used
from tests.unit.completion_lines import NOW, STREAM, completion_text, write_stream


def parsed(text: str) -> Completion:
    entry = parse_line(LogLine(STREAM, text))
    assert isinstance(entry, Completion), entry
    return entry


def refused(text: str, outcome: bool = True) -> Foreign:
    entry = parse_line(LogLine(STREAM, text, outcome))
    assert isinstance(entry, Foreign), entry
    return entry


def test_every_field_of_a_line_is_read() -> None:
    text = completion_text(
        7,
        NOW,
        event="task_failed",
        starts=[NOW - 3000, NOW - 2000],
        limits="5/second",
        late_ms=2,
        units=40,
        used_units=50,
        starts_used=[None, {"units": 7, "at": NOW}],
        shared="stripe",
        shared_limits="9/second",
        starts_shared_limits=[None, ""],
    )

    assert parsed(text) == Completion(
        stream=STREAM,
        timestamp=NOW + 5,
        event="task_failed",
        user_id="user123",
        task_id="task-7",
        seq=7,
        completed_at=NOW + 5,
        task="log",
        planned_at=NOW,
        started_at=NOW,
        earlier_starts=(NOW - 3000, NOW - 2000),
        late_ms=2,
        attempt=3,
        limits=parse_limits("5/second"),
        earlier_limits=(parse_limits("5/second"),) * 2,
        units=40,
        last_used=Used(50, NOW + 5),
        earlier_used=(None, Used(7, NOW)),
        shared="stripe",
        shared_limits=parse_limits("9/second"),
        earlier_shared_limits=(None, ()),
    )


def test_starts_are_all_attempts_in_order() -> None:
    assert parsed(completion_text(started_at=NOW, starts=[NOW - 9, NOW - 4])).starts == (NOW - 9, NOW - 4, NOW)


def test_cancelled_task_has_no_start() -> None:
    end = parsed(completion_text(started_at=None, event="task_cancelled", attempt=0, late_ms=None))

    assert (end.word, end.starts, end.late_ms, end.limits) == ("cancelled", (), None, None)


@pytest.mark.parametrize(
    "text",
    [
        "START RequestId: 8f0a Version: $LATEST",
        "[1, 2]",
        "7",
        "null",
        '{"event": "task_started"}',
        '{"event": ["task_completed"]}',
        "[" * 100_000,
        "\x00\x00\x00",
    ],
)
def test_foreign_line_is_told_apart(text: str) -> None:
    assert not refused(text).torn


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seq": "1"}, "seq"),
        ({"seq": True}, "seq"),
        ({"user_id": 7}, "user_id"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"completed_at": 10**18}, "completed_at"),
        ({"planned_at": -1}, "planned_at"),
        ({"starts": ["x"], "attempt": 2}, "starts"),
        ({"limits": "often"}, "often"),
        ({"limits": {}}, "limits"),
        ({"task_id": None}, "task_id"),
    ],
)
def test_completion_with_a_bad_field_is_foreign_and_names_it(changed: dict[str, Any], named: str) -> None:
    fields = {**json.loads(completion_text()), **changed}

    reason = refused(json.dumps({name: value for name, value in fields.items() if value is not None})).reason

    assert "bad field" in reason
    assert named in reason


@given(st.text())
def test_no_line_whatever_raises(text: str) -> None:
    assert isinstance(parse_line(LogLine(STREAM, text)), Foreign)


@given(
    st.sampled_from(sorted(json.loads(completion_text(starts=[1], limits="5/second")))),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists),
)
def test_no_value_of_a_field_raises(name: str, value: Any) -> None:
    fields = {**json.loads(completion_text()), name: value}

    assert isinstance(parse_line(LogLine(STREAM, json.dumps(fields))), Completion | Foreign)


def test_folder_is_read_stream_after_stream(tmp_path: Path) -> None:
    folder = completions_folder(tmp_path, "dev")
    write_stream(folder, completion_text(3), stream="2026/11/23/[worker-1]aa")
    write_stream(folder, completion_text(1), completion_text(2), stream="2026/11/22/[worker-2]bb")

    ends = [entry for entry in read_completions(folder_lines(folder)) if isinstance(entry, Completion)]

    assert folder == tmp_path / "paceline" / "dev" / "completions"
    assert [(end.seq, end.stream) for end in ends] == [
        (1, "2026/11/22/[worker-2]bb"),
        (2, "2026/11/22/[worker-2]bb"),
        (3, "2026/11/23/[worker-1]aa"),
    ]


def test_folder_that_is_not_there_is_an_empty_log(tmp_path: Path) -> None:
    assert list(folder_lines(tmp_path / "none")) == []


def test_torn_last_line_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    write_stream(tmp_path, completion_text(1), completion_text(2)[:40], end="")

    first, second = read_completions(folder_lines(tmp_path))

    assert isinstance(first, Completion)
    assert second == Foreign(STREAM, "not JSON", torn=True)


def test_last_line_that_lacks_only_its_newline_counts(tmp_path: Path) -> None:
    write_stream(tmp_path, completion_text(1), end="")

    assert [type(entry) for entry in read_completions(folder_lines(tmp_path))] == [Completion]


def test_bytes_that_are_no_text_are_one_foreign_line(tmp_path: Path) -> None:
    path = write_stream(tmp_path, completion_text(1))
    path.write_bytes(b"\xff\xfe\x00\n\n" + path.read_bytes())

    assert [type(entry) for entry in read_completions(folder_lines(tmp_path))] == [Foreign, Completion]


class StubLogs:
    """Answers FilterLogEvents with the pages it was given and notes the requests."""

    def __init__(self, *pages: list[str]) -> None:
        self.pages = pages
        self.requests: list[dict[str, Any]] = []

    def filter_log_events(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        number = int(request.get("nextToken", "0"))
        events = [{"logStreamName": STREAM, "timestamp": NOW, "message": text} for text in self.pages[number]]
        more = {"nextToken": str(number + 1)} if number + 1 < len(self.pages) else {}
        return {"events": events, **more}


def test_cloudwatch_gives_the_same_completions_as_a_folder(tmp_path: Path) -> None:
    texts = [completion_text(seq) for seq in (1, 2, 3)]
    write_stream(tmp_path, *texts)
    client = StubLogs([f"{texts[0]}\n"], [], [f"{texts[1]}\n", f"{texts[2]}\n"])

    from_cloudwatch = list(read_completions(cloudwatch_lines(client, "/aws/lambda/paceline-dev-worker", since_ms=5)))

    assert from_cloudwatch == list(read_completions(folder_lines(tmp_path)))
    assert [request.get("nextToken") for request in client.requests] == [None, "1", "2"]
    assert {(request["logGroupName"], request["startTime"]) for request in client.requests} == {
        ("/aws/lambda/paceline-dev-worker", 5)
    }


def test_lines_of_lambda_itself_are_foreign() -> None:
    client = StubLogs(["START RequestId: 8f0a Version: $LATEST\n", completion_text(), "REPORT RequestId: 8f0a\t\n"])

    entries = read_completions(cloudwatch_lines(client, "group"))

    assert [type(entry) for entry in entries] == [Foreign, Completion, Foreign]
