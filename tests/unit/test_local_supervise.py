"""supervisord's logs on a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Writes two records with a limit on the size of files, two more without one; standard error is always full.
PROGRAM = """
import resource, signal, sys
from supervisor.loggers import LevelsByName, getLogger, handle_file
from local import supervise
if sys.argv[2] == "tolerant":
    supervise.survive_full_disk()
log = getLogger()
handle_file(log, sys.argv[1], "%(message)s\\n", rotating=True, maxbytes=100, backups=1)
limit = lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
limit(0)
log.info("lost")
log.info("lost too")
limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
for number in range(30):
    log.info(f"kept {number}")
"""


def run(path: Path, how: str) -> int:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", PROGRAM, str(path), how]
        return subprocess.run(command, stderr=full, env={**os.environ}, check=False).returncode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_supervisord_survives_a_log_that_can_not_be_written(tmp_path: Path) -> None:
    assert run(tmp_path / "before.log", "as it is") != 0
    assert run(tmp_path / "after.log", "tolerant") == 0
    lines = (tmp_path / "after.log.1").read_text() + (tmp_path / "after.log").read_text()
    assert "kept 29\n" in lines
