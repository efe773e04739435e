"""Lines of a completion log, as the workers write them, for the tests that read it."""

import json
from pathlib import Path
from typing import Any

#: Sunday 2026-11-22 05:20:29.123 UTC.
NOW = 1_795_324_829_123
STREAM = "2026/11/22/[worker-1]0f3c"


def completion_text(seq: int = 1, started_at: int | None = NOW, **changed: Any) -> str:
    """The line of a task that started at its planned time and took 5 ms; `changed` fields as given, None left out."""
    ended_at = changed.pop("completed_at", (started_at or NOW) + 5)
    fields = {
        "timestamp": ended_at,
        "event": "task_completed",
        "user_id": "user123",
        "task_id": f"task-{seq}",
        "seq": seq,
        "task": "log",
        "planned_at": started_at,
        "started_at": started_at,
        "completed_at": ended_at,
        "late_ms": 0,
        "attempt": 1 + len(changed.get("starts") or ()),
        "result": {"text": "done"},
    }
    return json.dumps({name: value for name, value in {**fields, **changed}.items() if value is not None})


def write_stream(folder: Path, *texts: str, stream: str = STREAM, end: str = "\n") -> Path:
    """Append the texts to a stream's file, a line each, the last one ended by `end`."""
    path = folder / f"{stream}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write("\n".join(texts) + end)
    return path
