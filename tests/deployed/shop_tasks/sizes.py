"""A task that needs a package of its own."""

import humanize

from paceline import task


@task("size")
def size(count: int) -> str:
    return humanize.naturalsize(count, binary=True)
