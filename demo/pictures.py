"""`make pictures`: runs the demo and writes what README shows into docs/img."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme

from demo.board import Board
from demo.show import perform
from demo.system import ROOT
from paceline_cli.rendering import lane_lines

FOLDER = ROOT / "docs" / "img"
COLUMNS = 104
LANE_COLUMNS = 64
#: Fraction of the demo after which the terminal is drawn.
DRAWN_AT = 0.64

_COLORS = [(240, 98, 98), (74, 195, 125), (240, 180, 60), (88, 156, 255), (190, 130, 240), (70, 200, 210)]
_THEME = TerminalTheme(
    (24, 30, 38),
    (214, 221, 230),
    [(50, 58, 69), *_COLORS, (214, 221, 230)],
    [(90, 101, 115), *_COLORS, (255, 255, 255)],
)
#: Rich's template without fonts from another host, so that a reader of README calls no other server.
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, Arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    """0 when all are written, 1 when the audit of the demo that they show is not clean."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return 0 if perform(False, FOLDER, Console(highlight=False), _Camera()).clean else 1


class _Camera:
    """Draws the terminal once, halfway through the demo."""

    def __init__(self) -> None:
        self._is_done = False

    def __call__(self, board: Board, now: int) -> None:
        if self._is_done or now - board.begin < DRAWN_AT * (board.end - board.begin):
            return
        self._is_done = True
        draw_terminal("./paceline demo", FOLDER / "demo.svg", COLUMNS, board.picture(now, COLUMNS))
        member = max(board.members, key=lambda member: member.waiting)
        if member.lane:
            lines = lane_lines(member.lane, with_bars=True)
            draw_terminal(f"./paceline lane {member.name}", FOLDER / "lane.svg", LANE_COLUMNS, *lines)


def draw_terminal(title: str, path: Path, width: int, *parts: RenderableType) -> None:
    """Write what a terminal would show, as SVG."""
    out = Console(
        width=width, record=True, file=StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    for part in parts:
        out.print(part)
    path.write_text(out.export_svg(title=title, theme=_THEME, code_format=_SVG, unique_id=path.stem))


if __name__ == "__main__":
    sys.exit(main())
