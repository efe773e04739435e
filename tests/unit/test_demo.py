from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from chalicelib.core.limits import parse_limits
from demo.board import Board, Member
from demo.picture import Row, draw
from demo.pictures import draw_terminal
from demo.script import FAST_LIMITS, bursts, planned_starts
from paceline_client import Lane
from paceline_client.answers import read_answer
from tests.unit.test_client import NOW_MS, lane
from tests.windows import most_in_any_window

LIMITS = "1/second; 20/minute"


@pytest.mark.parametrize(("text", "seconds"), [(LIMITS, 70), (FAST_LIMITS, 16), ("5/10 seconds", 22)])
def test_a_demo_reaches_the_limits_and_ends_soon(text: str, seconds: int) -> None:
    limits = parse_limits(text)
    planned = planned_starts(bursts(limits), limits)
    assert len(planned) == 5
    assert max(starts[-1] for starts in planned.values()) < seconds * 1000
    for limit in limits:
        most = [most_in_any_window(starts, limit.window_ms) for starts in planned.values()]
        assert max(most) == limit.quota
        assert min(most) < limit.quota or limit.quota == 1, "one user stays below the limit, and does not wait"


def test_the_board_shows_starts_and_what_waits_on_one_line() -> None:
    member = Member("ann", "ann-1", submitted=4)
    state = lane(starts=[NOW_MS + 1000, NOW_MS], next_starts=[NOW_MS + 2000, NOW_MS + 3000], backlog=2)
    member.see(read_answer(Lane, {**state, "next_start_at": NOW_MS + 2000}))
    board = Board(LIMITS, [member], 4, NOW_MS, NOW_MS + 10_000)
    out = Console(width=46, record=True, force_terminal=True)
    out.print(board.picture(NOW_MS + 1500, 46))
    (line,) = [line for line in out.export_text().splitlines() if line.startswith("ann")]
    assert line.split() == ["ann", "██░░", "2", "2", "in", "0.5", "s"]
    assert not member.is_idle


def test_the_picture_is_written_as_svg_and_png(tmp_path: Path) -> None:
    limits = parse_limits(LIMITS)
    script = bursts(limits)
    planned = planned_starts(script, limits)
    rows = [
        Row(name, [(b.at, b.count) for b in script if b.name == name], planned[name], len(planned[name]))
        for name in planned
    ]
    svg, png = draw(rows, limits, True, tmp_path / "new")
    assert ET.parse(svg).getroot().tag.endswith("svg")
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_terminal_is_drawn_without_asking_another_host(tmp_path: Path) -> None:
    draw_terminal("./paceline lane ann", tmp_path / "lane.svg", 64, "waiting     3 tasks")
    text = (tmp_path / "lane.svg").read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    assert text.count("http") == 1, "the namespace, and nothing else"
