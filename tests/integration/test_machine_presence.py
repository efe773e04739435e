import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from local.presence import MachinePresence

SERVES = """
import sys
from pathlib import Path
from local.presence import MachinePresence
with MachinePresence(Path(sys.argv[1])).serving("theirs"):
    print("serving", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "serving"


@pytest.fixture
def presence(path):
    return MachinePresence(path)


@pytest.fixture
def other(path):
    with serving(path) as process:
        yield process


@contextmanager
def serving(path):
    command = [sys.executable, "-c", SERVES, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"serving\n"
        yield process
        process.kill()


def test_a_claim_is_served_while_the_body_runs(presence):
    with presence.serving("mine"):
        assert presence.is_served("mine")
        assert not presence.is_served("another")
    assert not presence.is_served("mine")


def test_a_claim_of_another_process_is_seen(presence, other):
    assert presence.is_served("theirs")
    assert not presence.is_served("mine")


def test_looking_takes_nothing_away(presence, other):
    presence.is_served("theirs")
    with presence.serving("mine"):
        presence.is_served("mine")
        assert presence.is_served("mine")
        assert presence.is_served("theirs")


def test_a_claim_of_a_process_that_was_killed_is_served_no_longer(presence, other):
    other.kill()
    other.wait()
    assert not presence.is_served("theirs")


def test_a_claim_of_a_worker_and_its_child_is_served_until_both_are_gone(presence, path):
    with serving(path) as child, serving(path) as worker:
        worker.kill()
        worker.wait()
        assert presence.is_served("theirs")
        child.kill()
        child.wait()
        assert not presence.is_served("theirs")


def test_a_process_that_stands_still_serves_its_claim(presence, other):
    other.send_signal(signal.SIGSTOP)
    assert presence.is_served("theirs")
