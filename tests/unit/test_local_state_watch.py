from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from local.state_file import StateFile, StateFileError
from local.state_watch import StateWatch


def test_deleted_and_replaced_files_are_found(tmp_path: Path) -> None:
    folder, file = tmp_path / "run", tmp_path / "lock"
    folder.mkdir()
    file.touch()
    watch = StateWatch([folder, file])
    assert watch.deleted() is None
    (tmp_path / "new").touch()
    (tmp_path / "new").rename(file)
    assert watch.deleted() == file
    folder.rmdir()
    assert watch.deleted() == folder


def test_state_file_refuses_to_store_once_it_was_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "ministack"
    folder.mkdir()
    file = StateFile(folder / "state.sqlite3")
    file.store()
    shutil.rmtree(folder)
    with pytest.raises(StateFileError, match="was deleted"):
        file.store()
    file.add("INSERT OR REPLACE INTO services VALUES (?, ?)", "sqs", "{}")
    with pytest.raises(StateFileError, match="was deleted"):
        file.store()
    file.close()
