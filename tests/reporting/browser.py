"""Headless Chromium, for the tests that open the report in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WHY = "there is no Chromium here: apt-get install chromium"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=WHY)


def opened(page: Path, folder: Path, script: str = "", *, width: int = 1400, dark: bool = False) -> str:
    """The document after ``page`` was opened, ``width`` px wide, and ``script`` ran; fails if the console has an error.

    A request to the outside is an error of the console too, since the page's policy refuses it.
    """
    text = page.read_text(encoding="utf-8").replace("</script></body>", f"{script}</script></body>")
    changed = folder / "changed.html"
    changed.write_text(text, encoding="utf-8")
    # A window has 500 px or more; a page that fills a screen has the width of the screen.
    screen = [f"--screen-info={{{width}x900}}", "--kiosk", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *screen,
               f"--user-data-dir={folder / 'profile'}", "--dump-dom", changed.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def opens_within(seconds: float, page: Path, folder: Path, times: int = 8) -> bool:
    """Whether ``page`` is read and laid out so fast from the start of the navigation, at one of some ``times``."""
    measure = (
        'addEventListener("load", () => { const height = document.body.offsetHeight;'
        "document.documentElement.dataset.opened = `${performance.now()} ${height}`; });"
    )
    for _ in range(times):
        found = re.search(r'data-opened="([\d.]+) (\d+)"', opened(page, folder, measure))
        assert found is not None
        assert int(found[2]) > 1000
        if float(found[1]) / 1000 < seconds:
            return True
    return False
