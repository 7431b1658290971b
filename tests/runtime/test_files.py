"""Files that are there whole or not at all, and places that this user may not use."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path

import pytest
import torch

from mixskd.errors import UserError, exit_code
from mixskd.runtime import files
from mixskd.runtime.files import check_readable, check_writable, replacing, write_text


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fill() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="no space left"):
        fill()
    assert path.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_full_disk_on_a_real_file_system(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(UserError, match="disk"), replacing(tmp_path / "checkpoint.pt"):
        torch.save({"x": torch.zeros(100_000)}, "/dev/full")


@pytest.mark.parametrize("name", ["file/below/it", "folder"])
def test_unwritable_output_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"cannot write .*{name}: "):
        check_writable(tmp_path / name)
    with pytest.raises(UserError, match=f"cannot write .*{name}: "):
        write_text(tmp_path / name, "new")
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(f.name for f in tmp_path.rglob("*")) == ["file", "folder"]


def test_check_of_a_writable_folder_leaves_no_file(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "report.json")
    assert not list((tmp_path / "new").iterdir())


def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(UserError, match="it is missing"):
        check_readable(path, "it is missing")
    path.write_text("whole")
    check_readable(path, "it is missing")
    # Root may read everything, so no file's mode would show this wherever the tests run.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="no permission to read"):
        check_readable(path, "it is missing")


def test_missing_permission_gives_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/other/photos")

    assert exit_code(act) == 2
    assert capsys.readouterr().err == "mixskd: error: no permission to use /other/photos\n"


@pytest.mark.parametrize("number", [errno.EIO, errno.EFBIG, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_every_way_in_which_a_write_fails_is_one_line(
    number: int, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    write_text(tmp_path / "file", "old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UserError, match="nothing was lost"):
        write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_a_pipe_or_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "null"):
        with pytest.raises(UserError, match="a device or a pipe"):
            write_text(tmp_path / name, "new")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "null").is_char_device()


def test_only_temporary_files_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    gone = 2**22 + 1  # above the kernel's largest process number
    left = tmp_path / f".file.{files._HOST}-{gone}.tmp"
    elsewhere, alive, other, old = (
        tmp_path / name
        for name in (f".file.another-{gone}.tmp", f".file.{files._HOST}-1.tmp", f".files.{gone}.tmp", ".file.b-1.tmp")
    )
    for path in (left, elsewhere, alive, other, old):
        path.touch()
    os.utime(old, (0, 0))
    write_text(tmp_path / "file", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", elsewhere.name, alive.name, other.name}


def test_impossible_file_name_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name too long"):
        write_text(tmp_path / ("x" * 300), "new")
    write_text(tmp_path / "caf\udce9", "bytes that are not UTF-8 are a name as well")
    assert (tmp_path / "caf\udce9").exists()


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1000)}, tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as bomb:
        for name in stored.namelist():
            bomb.writestr(name, stored.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="cannot be read"):
        files.load_tensors(tmp_path / "bomb.pt")
