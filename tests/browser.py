"""A real browser for the tests of what a person sees: Debian's Chromium, driven by Playwright."""

import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium():
    """A headless browser; the test is skipped where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Witness:
    """What a page has asked for and complained about since its start."""

    def __init__(self, page):
        self.requests, self.complaints = [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def requests_other_than(self, *origins):
        """Requests to neither of these: a scheme such as `file`, or a host such as 127.0.0.1."""
        parts = [(url, urlsplit(url)) for url in self.requests]
        return [url for url, split in parts if split.scheme not in origins and split.hostname not in origins]


def screenshot(page, name, folder, place):
    """Save what is seen as `name`.png, with `place` in the middle, in the folder or in the one STUDY_EVIDENCE names."""
    for _ in range(2):  # what comes into view may change its height
        place.evaluate("element => element.scrollIntoView({block: 'center'})")
        page.wait_for_timeout(300)
    folder = Path(os.environ.get("STUDY_EVIDENCE") or folder)
    folder.mkdir(parents=True, exist_ok=True)
    page.evaluate("Promise.allSettled([...document.images].map(image => image.decode()))")  # painted, not only loaded
    page.screenshot(path=folder / f"{name}.png")
