from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
from local.open_files import OpenFilesError, raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
try:
    raise_limit()
except OpenFilesError as error:
    print(error)
else:
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limited(soft: int, hard: int) -> str:
    """Returns the soft limit after `raise_limit`, or its error."""
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_soft_limit_is_raised_to_the_hard_one() -> None:
    assert limited(200, 2000) == "2000"
    assert limited(1024, 1024) == "1024"


def test_too_low_a_hard_limit_is_named_with_the_remedy() -> None:
    assert limited(200, 300) == (
        "Only 300 files may be open, and Paceline needs 1024: raise the limit first, as in ulimit -n 1024"
    )
