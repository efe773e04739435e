import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from local.file_limit import raise_file_limit
print(raise_file_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("soft", "hard", "expected"), [(100, 2000, 2000), (100, 200, 200)])
def test_soft_limit_of_open_files_is_raised_to_the_hard_one(soft: int, hard: int, expected: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(soft), str(hard)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [str(expected)] * 2
