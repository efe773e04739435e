"""The request that a running task stop, as the process sees it in which its function runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class CancelRequest(Protocol):
    """What a context needs of it: a child process of `make run` has another one than Lambda."""

    @property
    def is_made(self) -> bool: ...

    def calling(self, action: Callable[[], object]) -> AbstractContextManager[None]:
        """Calls `action` once if the request is made while the body runs, or was made before; never after it.

        An asyncio loop runs in the calling thread; the action may come from another thread.
        """
        ...


class LocalCancelRequest:
    """The request within one process. Thread-safe. Implements CancelRequest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_made = False
        self._action: Callable[[], object] | None = None

    @property
    def is_made(self) -> bool:
        return self._is_made

    def make(self) -> None:
        """Makes the request; a repeat changes nothing."""
        with self._lock:
            if not self._is_made:
                self._is_made = True
                self._call()

    @contextmanager
    def calling(self, action: Callable[[], object]) -> Iterator[None]:
        with self._lock:
            self._action = action
            if self._is_made:
                self._call()
        try:
            yield
        finally:
            with self._lock:
                self._action = None

    def _call(self) -> None:
        if self._action:
            self._action()
