from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = "from local.parent import end_with_parent; import time; end_with_parent(); time.sleep(60)"


def test_a_process_whose_parent_died_before_it_looked_ends_too() -> None:
    """Found by chaos: supervisord killed right after it had started workers left them running for good."""
    died = subprocess.Popen([sys.executable, "-c", ""])
    died.wait()
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], env={**os.environ, "PACELINE_PARENT": str(died.pid)})
    assert child.wait(20) == -15


def test_a_process_goes_on_while_its_parent_lives() -> None:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(2)
    finally:
        child.kill()
        child.wait()
