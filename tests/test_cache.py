"""Folders in the cache are complete or absent."""

import pytest

from agentgym.errors import CacheError
from agentgym_envs.cache import write_folder


def test_a_folder_appears_complete_and_an_existing_one_is_kept(tmp_path):
    place = tmp_path / "deep" / "place"
    write_folder(place, lambda beside: (beside / "file").write_text("mine"))

    def slower(beside):
        assert beside.parent.parent == place.parent
        (beside / "file").write_text("late")

    write_folder(place, slower)
    assert (place / "file").read_text() == "mine"
    assert list(place.parent.iterdir()) == [place]


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    def breaks(beside):
        (beside / "file").write_text("half")
        raise OSError("disk full")

    with pytest.raises(CacheError, match="disk full"):
        write_folder(tmp_path / "place", breaks)
    assert not list(tmp_path.iterdir())
    (tmp_path / "place").write_text("a file where the folder should be")
    with pytest.raises(CacheError):
        write_folder(tmp_path / "place", lambda beside: None)
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
