"""Which files a person means by files, folders and patterns."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixskd.data.image_paths import check_paths, image_files
from mixskd.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.jpg", "b/10.PNG", "b/notes.txt", "a.jpg", "b/c/1.webp", "c.jpg", ".hidden/x.jpg", "b/._2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(folder: Path, *paths: str) -> list[str]:
    return [str(Path(file).relative_to(folder)) for file in image_files([str(folder / path) for path in paths])]


def test_images_of_a_folder_are_sorted(folder: Path) -> None:
    found = names(folder, "")
    assert found == ["a.jpg", "b/10.PNG", "b/2.jpg", "b/c/1.webp", "c.jpg"]
    assert [Path(file) for file in found] == sorted(Path(file) for file in found)


def test_the_order_of_the_paths_is_kept_and_a_file_may_have_any_name(folder: Path) -> None:
    assert names(folder, "c.jpg", "b/notes.txt", "a.jpg", "c.jpg") == ["c.jpg", "b/notes.txt", "a.jpg", "c.jpg"]
    assert list(image_files([folder / "a.jpg"])) == [str(folder / "a.jpg")]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jpg", ["a.jpg", "c.jpg"]),
        ("b/*", ["b/10.PNG", "b/2.jpg", "b/c/1.webp"]),
        ("**/*.jpg", ["a.jpg", "b/2.jpg", "c.jpg"]),
        ("**", ["a.jpg", "b/10.PNG", "b/2.jpg", "b/c/1.webp", "c.jpg"]),
        ("b/[12].jpg", ["b/2.jpg"]),
    ],
)
def test_pattern_of_paths(pattern: str, found: list[str], folder: Path) -> None:
    assert names(folder, pattern) == found


def test_a_file_whose_name_looks_like_a_pattern(folder: Path) -> None:
    (folder / "[a].jpg").touch()
    assert names(folder, "[a].jpg") == ["[a].jpg"]


def test_link_to_a_parent_folder_is_no_endless_loop(folder: Path) -> None:
    (folder / "b" / "again").symlink_to(folder)
    (folder / "elsewhere").symlink_to(folder / "b" / "c")
    assert names(folder, "")[-1] == "elsewhere/1.webp"
    assert len(names(folder, "")) == 6


def test_paths_without_images_are_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    for path, message in (("empty", "holds no image"), ("*.gif", "no image fits the pattern")):
        with pytest.raises(UserError, match=message):
            check_paths([folder / "a.jpg", folder / path])
    with pytest.raises(UserError, match="no image is named"):
        check_paths([])
    check_paths([folder / "x.jpg", folder])
