"""The docs site, as `make docs` builds it: links, offline use, search, and its looks in a browser."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Page, Request
from support.browser import needs_browser, open_page

pytestmark = pytest.mark.integrations

DOCS = Path(__file__).parents[2] / "docs"
# Front page, a how-to guide with code, tables and figures, two pages of the reference, search.
PAGES = ("index", "comparing", "reference/config/trainer", "reference/python/data", "search")
OFFLINE = """
import socket, sys
def refuse(*arguments):
    raise OSError(f"the build is offline: {arguments}")
socket.socket.connect = socket.getaddrinfo = refuse
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


def sphinx(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Call sphinx-build without a network, as the Makefile does."""
    command = [sys.executable, "-c", OFFLINE, "-q", "-E", "-a", "-W", "--keep-going", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site once."""
    folder = tmp_path_factory.mktemp("site")
    done = sphinx(DOCS, folder)
    assert (done.stderr, done.stdout, done.returncode) == ("", "", 0)
    return folder


class Links(HTMLParser):
    """Collect the links of a page, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("link", "script", "img", "source", "iframe", "video"):
            self.loaded += [values[name] for name in ("href", "src") if name in values]


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    files = (path for path in site.rglob("*.html") if site / "_static" not in path.parents)  # templates of the theme
    pages = {path: Links(path.read_text()) for path in files}
    assert len(pages) > 60
    problems = []
    for path, page in pages.items():
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto") and link in page.links:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else set()
            if parts.scheme or parts.netloc or not target.is_file():
                problems.append(f"{path.relative_to(site)}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in anchors | {""}:
                problems.append(f"{path.relative_to(site)}: {link} has no such anchor")
    assert problems == []


def test_styles_load_nothing_from_elsewhere(site: Path) -> None:
    loading = re.compile(r"""(url\(|@import)\s*["']?(https?:)?//""")
    assert [path for path in site.rglob("*.css") if loading.search(path.read_text())] == []


def test_mistakes_in_pages_fail_the_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "_static").mkdir(parents=True)
    (source / "index.md").write_text(
        "# Front\n\n- [Page](page.md): a page.\n\n[file](missing.md), [anchor](page.md#missing), [own](#missing), "
        "![picture](missing.png), [source](../src/missing.py)\n"
    )
    (source / "page.md").write_text("# Page\n\n## Section\n\n[good](#section)\n")
    (source / "orphan.md").write_text("# Orphan\n")
    done = sphinx("-b", "dummy", "-c", DOCS, "-D", "extensions=myst_parser,github_markdown", source, tmp_path / "out")
    assert done.returncode == 1
    wrong = (
        "found: 'missing.md'",
        "doc 'page': 'missing'",
        "found: 'missing'",
        "missing.png",
        "missing.py",
        "orphan.md",
    )
    for text in wrong:
        assert text in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == len(wrong)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def is_failure(request: Request) -> bool:
    """Tell a request that failed from one that ended as the next page was opened, such as that of the icon."""
    return request.failure != "net::ERR_ABORTED"


@contextmanager
def watched(page: Page, address: str) -> Iterator[list[str]]:
    """Collect the requests to other addresses, which are refused, and the errors of scripts."""
    problems: list[str] = []
    page.route(
        lambda url: not url.startswith((address, "data:", "blob:")),
        lambda route: (problems.append(f"request to {route.request.url}"), route.abort())[1],
    )
    page.on("pageerror", lambda error: problems.append(f"error {error}"))
    page.on("requestfailed", lambda request: problems.append(f"failed {request.url}") if is_failure(request) else None)
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield problems


def search(page: Page, address: str, query: str) -> list[str]:
    """Type a query into the search of the front page, and return the titles of the results."""
    page.goto(f"{address}/index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type(query)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?*")
    page.wait_for_selector("#search-results li a")
    page.wait_for_function("document.querySelector('.search-summary').textContent.includes('finished')")
    return page.locator("#search-results li > a").all_inner_texts()


@needs_browser
@pytest.mark.parametrize("is_file", [True, False], ids=["file", "server"])
def test_search(site: Path, is_file: bool) -> None:
    with served(site) as server, open_page() as page:
        address = f"file://{site}" if is_file else server
        with watched(page, address) as problems:
            assert {"Config keys", "litlab train"} <= set(search(page, address, "init_from"))
            assert "Config group: callbacks" in search(page, address, "early stopping")
            assert search(page, address, "ImageDataModule")[0] == "litlab.data.module.ImageDataModule"
            page.locator("#search-results li > a").first.click()
            page.wait_for_url("**/reference/python/data.html*")
            assert page.locator("dt[id='litlab.data.module.ImageDataModule']").is_visible()
        assert problems == []


LOW_CONTRAST = """() => {
    const parse = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
    const linear = v => v <= 10 ? v / 3294 : ((v / 255 + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const background = element => {
        for (; element; element = element.parentElement) {
            const color = parse(getComputedStyle(element).backgroundColor);
            if (color.length < 4 || color[3] > 0.5) return color;
        }
        return [255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility({opacityProperty: true})) continue;
        if (element.matches('script, style, noscript, .headerlink, .visually-hidden')) continue;
        const style = getComputedStyle(element);
        const [high, low] = [luminance(parse(style.color)), luminance(background(element))].sort((a, b) => b - a);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5))
            found.push(`${element.tagName}.${element.className} ${walker.currentNode.data.trim().slice(0, 40)}: ` +
                `${ratio.toFixed(2)} ${style.color} on ${background(element)}`);
    }
    return [...new Set(found)];
}"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1300, 400])
def test_looks(site: Path, width: int, dark: bool) -> None:
    address = f"file://{site}"
    with open_page(width=width, dark=dark) as page, watched(page, address) as problems:
        for name in PAGES:
            page.goto(f"{address}/{name}.html" + "?q=seed" * (name == "search"))
            overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(overflow) <= 0, f"{name} scrolls sideways"
            assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
            low_contrast = page.evaluate(LOW_CONTRAST)
            assert low_contrast == [], name
            assert page.evaluate("[...document.images].filter(image => !image.complete || !image.naturalWidth)") == []
        assert problems == []
