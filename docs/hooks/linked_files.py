"""A hook of mkdocs: files outside docs/ that pages link to become part of the site, at their path in the repository.

So a relative link such as ``../results/README.md`` works on a code host and in the site, and ``mkdocs build --strict``
checks it. A folder becomes a page with a list of its files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

LINK = re.compile(r"(?<=\]\()(?!\w+:|[/#])[^)#\s]+")
LISTING = "index.md"


def on_files(files: Files, config: Any) -> Files:
    """Add what the pages link to, and what these files link to."""
    pages = [Path(page.abs_src_path) for page in files.documentation_pages()]
    for page in pages:  # it grows
        text = page.read_text(encoding="utf-8")
        for target in [place(page, link) for link in LINK.findall(text)]:
            inside = sorted(path for path in target.iterdir() if path.is_file()) if target.is_dir() else [target]
            for file in inside:
                if file.is_file() and (name := name_in_site(file, config)) and not files.get_file_from_path(name):
                    files.append(from_repository(name, config))
                    pages += [file] if file.suffix == ".md" else []
            name = name_in_site(target, config)
            if target.is_dir() and name and not files.get_file_from_path(name):
                files.append(listing(name, inside, config))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they are in the site, where the folder docs/ is the top."""
    if page.file.abs_src_path is None:  # a list of files
        return markdown
    source, folder = Path(page.file.abs_src_path), Path(page.file.src_uri).parent

    def moved(link: re.Match[str]) -> str:
        name = name_in_site(place(source, link[0]), config)
        return link[0] if name is None else Path(os.path.relpath(name, folder)).as_posix()

    return LINK.sub(moved, markdown)


def place(page: Path, link: str) -> Path:
    """The file or folder that a ``link`` of ``page`` names."""
    return Path(os.path.normpath(page.parent / link))


def name_in_site(path: Path, config: Any) -> str | None:
    """The path of a file, or of a folder's list, in the site's sources; None for one outside the repository."""
    root, docs = Path(config.config_file_path).parent, Path(config.docs_dir)
    if not path.is_relative_to(root):
        return None
    name = path.relative_to(docs if path.is_relative_to(docs) else root)
    return (name / LISTING if path.is_dir() else name).as_posix()


def from_repository(name: str, config: Any) -> File:
    """A file outside docs/, which is not in the navigation."""
    root = str(Path(config.config_file_path).parent)
    return File(name, root, config.site_dir, config.use_directory_urls, inclusion=InclusionLevel.NOT_IN_NAV)


def listing(name: str, inside: list[Path], config: Any) -> File:
    """A page with links to the files ``inside`` a folder."""
    lines = [f"# {Path(name).parent.as_posix()}\n", *(f"- [{path.name}]({path.name})" for path in inside)]
    return File.generated(config, name, content="\n".join(lines), inclusion=InclusionLevel.NOT_IN_NAV)
