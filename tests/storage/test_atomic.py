"""A file or folder that is replaced has its old content or its new one, whatever interrupts the writer."""

from pathlib import Path
from typing import Any

import pytest

from losskernel.storage.atomic import replacing, write_whole


@pytest.mark.parametrize("content", ["ünï\n", "ünï\n".encode(), lambda file: file.write("ünï\n".encode())])
@pytest.mark.parametrize("concurrent", [False, True])
def test_text_bytes_and_writers_replace_a_file(tmp_path: Path, content: Any, concurrent: bool) -> None:
    (tmp_path / "a.txt").write_text("old")
    write_whole(tmp_path / "a.txt", content, concurrent=concurrent)
    assert (tmp_path / "a.txt").read_bytes() == "ünï\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("concurrent", [False, True])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException, concurrent: bool
) -> None:
    (tmp_path / "a.txt").write_text("old")

    def fail(file: Any) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_whole(tmp_path / "a.txt", fail, concurrent=concurrent)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole_over_what_a_killed_writer_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "group.partial" / "left").mkdir(parents=True)
    flushed: list[int] = []
    monkeypatch.setattr("os.fsync", flushed.append)
    with replacing(tmp_path / "group", sync=True) as partial:
        (partial / "inner").mkdir(parents=True)
        (partial / "inner" / "x").write_text("1")
        (partial / "y").write_text("2")
        assert not (tmp_path / "group").exists()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        "group/inner/x",
        "group/y",
    ]
    assert len(flushed) == 2


def test_concurrent_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "a", concurrent=True) as one:
        one.write_text("one")
        write_whole(tmp_path / "a", "two", concurrent=True)
        assert one.read_text() == "one"
    assert (tmp_path / "a").read_text() == "one"


def test_a_file_is_flushed_before_it_replaces_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("old")
    seen: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: seen.append((tmp_path / "a").read_text()))
    write_whole(tmp_path / "a", "new", sync=True)
    write_whole(tmp_path / "b", "new")
    assert seen == ["old"]
