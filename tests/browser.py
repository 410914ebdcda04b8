"""A real browser for the tests of what a person sees: Debian's Chromium, driven by Playwright."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest


@contextlib.contextmanager
def chromium():
    """A headless browser; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = shutil.which("chromium") or pytest.skip("apt-get install chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with api.sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=arguments) as found:
        yield found


def screenshot(page, name, folder, place):
    """Save what is seen as `name`.png, with `place` in the middle, in the folder or in the one STUDY_EVIDENCE names."""
    for _ in range(2):  # what comes into view may change its height
        place.evaluate("element => element.scrollIntoView({block: 'center'})")
        page.wait_for_timeout(300)
    page.evaluate("Promise.allSettled([...document.images].map(image => image.decode()))")  # painted, not only loaded
    page.screenshot(path=Path(os.environ.get("STUDY_EVIDENCE") or folder) / f"{name}.png")
