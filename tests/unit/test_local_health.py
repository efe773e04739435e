import os
import time
from pathlib import Path

import pytest

from local.health import HEARTBEAT_SECONDS, heartbeat_files, is_healthy


def beat(path: Path, seconds_ago: float = 0) -> None:
    path.touch()
    os.utime(path, (time.time() - seconds_ago,) * 2)


def test_worker_whose_loops_go_on_is_healthy(tmp_path: Path) -> None:
    assert not is_healthy(tmp_path, "worker-1")
    for path in heartbeat_files(tmp_path, "worker-1"):
        beat(path)
    assert is_healthy(tmp_path, "worker-1")
    assert not is_healthy(tmp_path, "worker-2")


@pytest.mark.parametrize("dead", [0, 1])
def test_worker_is_not_healthy_when_one_of_its_loops_is_dead(tmp_path: Path, dead: int) -> None:
    for path in heartbeat_files(tmp_path, "worker-1"):
        beat(path)
    beat(heartbeat_files(tmp_path, "worker-1")[dead], HEARTBEAT_SECONDS + 1)
    assert not is_healthy(tmp_path, "worker-1")


def test_api_process_that_is_not_there_is_not_healthy(tmp_path: Path) -> None:
    assert not is_healthy(tmp_path, "api-1")
