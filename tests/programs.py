"""The programs in the documentation, as files that tests run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: A block whose first line is a comment with the file's name.
_BLOCK = re.compile(r"```(?:\w+)\n(?:#|//) ([\w./-]+\.\w+)\n(.*?)```", re.DOTALL)


def programs(page: str) -> dict[str, str]:
    """The named programs of a page, by file name."""
    return {match[1]: match[2] for match in _BLOCK.finditer((ROOT / page).read_text())}


def write_programs(page: str, folder: Path) -> list[str]:
    """Writes the programs into the folder; returns their names."""
    found = programs(page)
    for name, text in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return list(found)
