"""The committed pages of the study `laptop`, opened from disk in a browser that has no network."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import Witness, chromium, screenshot

from lib.paths import ROOT

HTML = ROOT / "outputs" / "laptop" / "html"
PAGES = sorted(path.name for path in HTML.glob("*.html"))
WIDTH = 1280
TEX = ("$$", "\\frac", "\\mathrm", "\\sigma", "\\bar")  # left in a text where a formula has not been typeset


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser):
    """A function that opens a file in a window without network, and returns the page and its witness."""
    context = browser.new_context(viewport={"width": WIDTH, "height": 900}, offline=True)

    def open_page(path):
        page = context.new_page()
        witness = Witness(page)
        page.goto(path.as_uri())
        return page, witness

    yield open_page
    context.close()


def links(page):
    """Where the links of a page lead: an address each, with those into the page itself left out."""
    found = page.locator("a[href]").evaluate_all("all => all.map(one => one.href)")
    return [address for address in found if urlsplit(address)._replace(fragment="").geturl() != page.url.split("#")[0]]


def test_every_link_of_the_index_leads_to_something_that_opens(open_page):
    page, _ = open_page(HTML / "index.html")
    addresses = links(page)
    assert all(address.startswith("file:") for address in addresses)
    paths = [Path(unquote(urlsplit(address).path)) for address in addresses]
    assert [path for path in paths if not path.exists()] == []
    assert set(PAGES) - {"index.html"} == {path.name for path in paths if path.suffix == ".html"}
    papers = [path for path in paths if path.suffix == ".pdf"]
    assert len(papers) == 1 and papers[0].read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize("name", PAGES)
def test_page_is_complete_without_a_network(open_page, tmp_path, name):
    page, witness = open_page(HTML / name)
    assert page.title() and page.locator("h1").first.is_visible()
    assert witness.requests_other_than("file", "data") == []
    assert witness.complaints == []
    assert page.locator("script, iframe, object, embed").count() == 0

    images = page.locator("img")
    widths = images.evaluate_all("all => all.map(one => one.naturalWidth && one.getBoundingClientRect().width)")
    assert all(0 < width <= WIDTH for width in widths)
    assert widths or name == "preregistration.html"

    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
    assert page.evaluate("document.body.scrollWidth") <= WIDTH
    if name in ("index.html", "analysis.html", "train-se_resnet18.html"):
        screenshot(page, f"page-{name.removesuffix('.html')}", tmp_path, page.locator("h1").first)


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith(("analysis", "train"))])
def test_formulas_are_typeset(open_page, name):
    page, _ = open_page(HTML / name)
    sizes = page.locator("math").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(box => [box.width, box.height])"
    )
    assert sizes and all(width > 2 and height > 5 for width, height in sizes)
    prose = " ".join(page.locator(".jp-RenderedMarkdown").all_inner_texts())
    assert [tex for tex in TEX if tex in prose] == []
