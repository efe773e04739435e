"""How the worker ends a child: the fork server is asked to kill it, and is ended itself only if it does not answer."""

import socket
import threading

import pytest

from local.children import Child


def ended(words: tuple[bytes, ...]) -> tuple[int | None, int]:
    """The exit code, and how often the fork server was ended; `words` answer the request to kill the child."""
    job, job_of_child = socket.socketpair()
    line, server = socket.socketpair()
    stuck = list[bool]()

    def answer() -> None:
        assert server.recv(1) == b""
        for word in words:
            server.sendall(word)

    asked = threading.Thread(target=answer)
    asked.start()
    code = Child(job, line, lambda: stuck.append(True), end_seconds=0.2).end()
    asked.join()
    job_of_child.close()
    server.close()
    return code, len(stuck)


@pytest.mark.parametrize(
    ("words", "code"),
    [((b"killed\n", b"-9\n"), -9), ((b"killed\n-9\n",), -9), ((b"kil", b"led\n-", b"9\n"), -9), ((b"0\n",), 0)],
)
def test_the_fork_server_says_how_a_child_ended(words: tuple[bytes, ...], code: int) -> None:
    assert ended(words) == (code, 0)


def test_a_killed_child_that_hangs_in_a_system_call_leaves_the_others_alone() -> None:
    assert ended((b"killed\n",)) == (None, 0)


def test_a_fork_server_that_does_not_answer_is_ended() -> None:
    assert ended(()) == (None, 1)
