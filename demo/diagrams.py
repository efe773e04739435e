"""`make diagrams`: writes the architecture and the states of a task as SVG into docs/img.

Coordinates are pixels; a box is named by its left upper corner and its size.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

from msgspec import Struct

FOLDER = Path(__file__).parents[1] / "docs" / "img"

_FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">
<style>
text {{ font-family: system-ui, "DejaVu Sans", Arial, sans-serif; font-size: 13px; fill: #1d2733; }}
.name {{ font-weight: bold; }}
.small {{ font-size: 12px; fill: #4a5868; }}
.code {{ fill: #e8f1ff; stroke: #3b78c4; }}
.service {{ fill: #fff4e0; stroke: #c4842b; }}
.other {{ fill: #f3f5f7; stroke: #7a8896; }}
.final {{ fill: #e6f6ec; stroke: #2f8f57; }}
.arrow {{ fill: none; stroke: #4a5868; stroke-width: 1.5; marker-end: url(#head); }}
.both {{ marker-start: url(#head); }}
</style>
<defs>
<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse">
<path d="M0 0 L8 4 L0 8 z" fill="#4a5868"/></marker></defs>
<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>
{parts}
</svg>
"""


class Box(Struct, frozen=True):
    """A rounded box: its first line is its name, the others are remarks."""

    kind: str
    x: int
    y: int
    width: int
    height: int
    lines: tuple[str, ...]

    def svg(self) -> str:
        middle, first = self.x + self.width // 2, self.y + self.height // 2 + 5 - 9 * (len(self.lines) - 1)
        texts = [
            _text(middle, first + 18 * index, line, "small" if index else "name", "middle")
            for index, line in enumerate(self.lines)
        ]
        rect = (
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="6"/>'
        )
        return "\n".join([rect, *texts])


class Arrow(Struct, frozen=True):
    """A line through these points with a head at its end; `label` begins at `label_at`."""

    points: tuple[tuple[int, int], ...]
    label: tuple[str, ...] = ()
    label_at: tuple[int, int] = (0, 0)
    anchor: str = "start"
    both_ways: bool = False

    def svg(self) -> str:
        path = " L".join(f"{x} {y}" for x, y in self.points)
        x, y = self.label_at
        texts = [_text(x, y + 16 * index, line, "small", self.anchor) for index, line in enumerate(self.label)]
        return "\n".join([f'<path class="arrow{" both" * self.both_ways}" d="M{path}"/>', *texts])


def _text(x: int, y: int, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _picture(title: str, width: int, height: int, *parts: Box | Arrow) -> str:
    return _FRAME.format(title=escape(title), width=width, height=height, parts="\n".join(part.svg() for part in parts))


def architecture() -> str:
    """The functions, the services between them, and who calls whom."""
    return _picture(
        "The architecture of Paceline",
        900,
        430,
        Box("other", 20, 40, 130, 70, ("client", "HTTP")),
        Box("code", 290, 40, 170, 70, ("API function", "api, submit, lanes")),
        Box("service", 660, 40, 220, 70, ("DynamoDB table", "lanes, records, keys")),
        Box("service", 290, 190, 170, 70, ("SQS FIFO queue", "one group for each lane")),
        Box("code", 660, 190, 220, 70, ("worker function", "worker, tasks, own_tasks")),
        Box("service", 20, 190, 170, 70, ("SQS standard queue", "scheduled, callbacks")),
        Box("code", 20, 330, 170, 70, ("scheduled function", "scheduled")),
        Box("service", 290, 330, 170, 70, ("dead-letter queue", "failed tasks")),
        Box("service", 660, 330, 220, 70, ("completion log", "CloudWatch Logs or files")),
        Arrow(((150, 60), (290, 60)), ("submit",), (220, 52), "middle"),
        Arrow(((290, 92), (150, 92)), ("202 or 429",), (220, 108), "middle"),
        Arrow(((460, 60), (660, 60)), ("1 admit: planned start",), (560, 52), "middle"),
        Arrow(((460, 92), (660, 92)), ("3 store the record",), (560, 108), "middle"),
        Arrow(((400, 110), (400, 190)), ("2 send the message",), (410, 155)),
        Arrow(((320, 110), (130, 190)), ("run_at: schedule",), (205, 145), "end"),
        Arrow(((460, 212), (660, 212)), ("one message of a lane",), (560, 204), "middle"),
        Arrow(((660, 240), (460, 240)), ("4 too early: defer",), (560, 256), "middle"),
        Arrow(((750, 190), (750, 110)), ("5 claim the start",), (742, 155), "end"),
        Arrow(((825, 190), (825, 110)), ("8 store", "outcome"), (834, 147)),
        Arrow(((770, 260), (770, 330)), ("6 run, 7 log the", "outcome"), (780, 292)),
        Arrow(((690, 260), (460, 350)), ("failed: copy",), (560, 300), "end"),
        Arrow(((105, 260), (105, 330)), ("due",), (115, 300)),
        Arrow(((190, 350), (330, 260)), ("admit, send",), (244, 298), "end"),
    )


def states() -> str:
    """The states of a task and the events between them."""
    return _picture(
        "The states of a task",
        900,
        330,
        Box("other", 20, 130, 110, 60, ("submit",)),
        Box("code", 200, 30, 150, 64, ("queued", "scheduled: seq 0")),
        Box("code", 200, 130, 150, 64, ("queued", "in its lane")),
        Box("code", 470, 130, 140, 64, ("running", "one attempt")),
        Box("final", 750, 30, 130, 54, ("succeeded",)),
        Box("final", 750, 135, 130, 54, ("failed", "dead letter")),
        Box("final", 750, 255, 130, 54, ("cancelled",)),
        Arrow(((100, 130), (200, 68)), ("run_at",), (128, 92), "end"),
        Arrow(((130, 162), (200, 162)), ("admit",), (165, 154), "middle"),
        Arrow(((300, 94), (300, 130)), ("due: admit",), (308, 117)),
        Arrow(((350, 150), (470, 150)), ("claim",), (410, 142), "middle"),
        Arrow(((470, 176), (350, 176)), ("retry, throttled",), (410, 194), "middle"),
        Arrow(((610, 145), (750, 62)), ("returns",), (665, 92), "end"),
        Arrow(((610, 164), (750, 164)), ("last attempt fails",), (680, 180), "middle"),
        Arrow(((590, 194), (750, 262)), ("stops when cancelled",), (640, 246), "end"),
        Arrow(
            ((275, 194), (275, 282), (750, 282)), ("DELETE while it is queued, in its lane or scheduled",), (300, 274)
        ),
    )


PICTURES = {"architecture.svg": architecture, "states.svg": states}


def main() -> int:
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw())
    return 0


if __name__ == "__main__":
    sys.exit(main())
