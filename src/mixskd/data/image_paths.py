"""The image files that a person names: files, folders, and patterns such as ``photos/*.jpg``."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixskd.data.images import EXTENSIONS
from mixskd.errors import UserError


def image_files(paths: Sequence[str | Path]) -> Iterator[str]:
    """The files that ``paths`` name, one after the other, as often as they are named.

    A file is given as it is, whatever its name. A folder gives the images under it (by their extension), sorted by
    name, folder by folder; hidden ones are left out. A pattern gives the images and folders that fit it, sorted;
    ``**`` stands for any folders. Only the names of one folder, or of one pattern, are held in memory.
    """
    for path in map(str, paths):
        if os.path.isdir(path):
            yield from _under(path, frozenset())
        elif os.path.lexists(path) or not glob.has_magic(path):
            yield path
        else:
            yield from _fitting(path)


def check_paths(paths: Sequence[str | Path]) -> None:
    """Raises UserError if there are none, and for a folder or a pattern without images."""
    if not paths:
        raise UserError("no image is named; give files, folders or patterns")
    for path in map(str, paths):
        if next(image_files([path]), None) is None:
            if os.path.isdir(path):
                raise UserError(f"the folder {path} holds no image ({', '.join(EXTENSIONS)}); give others")
            raise UserError(f"no image fits the pattern {path}; give others")


def _fitting(pattern: str) -> Iterator[str]:
    for found in sorted(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(found):
            if found.lower().endswith(EXTENSIONS):
                yield found
        elif "**" not in pattern:  # which enters folders by itself
            yield from _under(found, frozenset())


def _under(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """The images under ``folder``; a link to one of the folders ``above`` is not followed."""
    about = os.stat(folder)
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in found:
        path = os.path.join(folder, name)
        if is_folder:
            yield from _under(path, above | {here})
        elif name.lower().endswith(EXTENSIONS):
            yield path
