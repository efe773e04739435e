"""Writes the facts by port as the tables of docs/explanation/emulators.md: `python -m tests.facts.table`."""

from collections.abc import Iterator
from pathlib import Path

from tests.facts.differences import DIFFERENCES
from tests.facts.fact import PORTS, Fact, Facts, as_text
from tests.facts.ports import AREAS

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "emulators.md"
BEGIN = "<!-- The tables are written by `python -m tests.facts.table`. -->\n"
HEADER = "| scenario | AWS | Paceline's own | moto | MiniStack | LocalStack |\n|---|---|---|---|---|---|\n"


def with_tables(page: str) -> str:
    """The page with everything below its mark written anew."""
    return page.partition(BEGIN)[0] + BEGIN + "".join(map(_section, AREAS))


def _section(area: Facts) -> str:
    return f"\n## {area.area}\n\n{HEADER}" + "".join(f"| {' | '.join(_cells(fact))} |\n" for fact in area.all)


def _cells(fact: Fact) -> Iterator[str]:
    yield fact.name[0].upper() + fact.name[1:]
    yield f"`{as_text(fact.recorded)}`"
    for port in PORTS:
        differs = fact.name in DIFFERENCES[port]
        yield f"`{as_text(DIFFERENCES[port][fact.name])}`" if differs else "same" if port in fact.ports else ""


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
