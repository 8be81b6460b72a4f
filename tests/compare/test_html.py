"""HTML page of a comparison: its texts, and its display in a real browser."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from support.browser import needs_browser, open_page
from support.studies import make_run, make_study

from litlab.compare.comparison import compare
from litlab.compare.data_model import Comparison
from litlab.compare.html import environment_of, to_html
from litlab.compare.output_files import write_output
from litlab.runs.files import write_json

HOSTILE = (
    "--></svg></style><script>window.hacked = 1; alert(1)</script><img src=http://localhost/x onerror=alert(2)>\"'"
)
RATES = [0.01, 0.1, 1e-05, 0.05]
PROVENANCE = {
    "started": "2026-11-23T12:00:00+00:00",
    "code": {"commit": "a" * 40, "diff": "+x"},
    "machine": {"device": "cpu", "cores": 2, "packages": {"torch": "2.15.0", "numpy": "2.4.6", "other": "1.0"}},
}


def accuracy(point: dict[str, Any]) -> float:
    """Best at 0.1; 0.05 near enough to be tied with it, the others far below; 0.05 alone differs in how seeds rank."""
    rate, seed = point["optimizer.lr"], point["seed"]
    return {0.1: 0.9, 0.05: 0.896, 0.01: 0.7, 1e-05: 0.3}[rate] + 0.004 * (seed * 2 % 3 if rate == 0.05 else seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a study of four learning rates, a run that failed and a damaged one."""
    folder = tmp_path_factory.mktemp("page")
    for run in make_study(folder / "study", {"optimizer.lr": RATES, "seed": [0, 1, 2]}, accuracy):
        write_json(run.provenance, PROVENANCE, sync=False)
    other = {"device": "A100", "packages": {"torch": "2.14.0", "numpy": "2.4.6", "other": "1.0"}}
    write_json(run.provenance, PROVENANCE | {"machine": other}, sync=False)
    make_run(folder / "broken", {"seed": 5, "optimizer.lr": 0.01}, 0.0, status="failed", error="out of memory\nmore")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.yaml").write_text("{")
    return folder


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Comparison:
    return compare([folder], baseline="lr=0.01")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_page() as page:
        yield page.context.browser


@contextmanager
def visited(browser: Browser, file: Path, **settings: Any) -> Iterator[Page]:
    """Open the page in a browser; it may request nothing but its file, log nothing and open no dialog."""
    events: list[str] = []
    page = browser.new_page(**settings)
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: events.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert events == [file.as_uri()]


@pytest.fixture(scope="module")
def file(comparison: Comparison, folder: Path) -> Path:
    file = folder.parent / "made" / "comparison.html"
    write_output(file, to_html(comparison))
    return file


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    with visited(browser, file, viewport={"width": 1400, "height": 1000}) as page:
        page.set_default_timeout(5_000)
        yield page


def column(page: Page, name: str) -> list[str]:
    """Return the texts of a column of the results, from the top."""
    heads = page.locator("table.results thead tr").last.locator("th").all_inner_texts()
    index = [head.strip() for head in heads].index(name)
    return [
        text.strip() for text in page.locator(f"table.results tbody tr > :nth-child({index + 1})").all_inner_texts()
    ]


@needs_browser
@pytest.mark.integrations
def test_question_and_answer_stand_on_top(page: Page) -> None:
    assert page.title() == page.locator("h1").inner_text() == "Which setting of lr gives the best validation accuracy?"
    best = "lr=0.1 is best: 90.40 % (95 % interval 89.36 to 91.35, 3 seeds)"
    assert page.locator(".answer").inner_text() == f"{best}; 1 of the 3 others cannot be told from it."
    assert page.locator(".facts").inner_text() == "12 completed runs in 4 groups of 3, made on 23 November 2026."


@needs_browser
@pytest.mark.integrations
def test_values_are_those_of_the_results(page: Page, folder: Path) -> None:
    results = [json.loads(file.read_text()) for file in sorted((folder / "study").glob("*lr-0.05*/result.json"))]
    row = page.locator("table.results tbody tr", has=page.locator(".unseen", has_text="tie"))
    cells = row.locator("td.number")
    of_val = mean(result["best"]["val/accuracy"] for result in results)
    of_test = mean(result["test"]["test/accuracy"] for result in results)
    values = [float(value) for value in cells.evaluate_all("cells => cells.map(cell => cell.dataset.value || NaN)")]
    assert len(results) == 3
    assert values[:2] == [0.05, 3]
    assert values[2] == pytest.approx(of_val, rel=1e-12)
    assert values[5] == pytest.approx(of_test, rel=1e-12)
    assert values[7] == pytest.approx(0.196, rel=1e-9)  # from the baseline
    assert cells.nth(2).inner_text() == f"{100 * of_val:.2f} ± 0.40"
    page.locator("summary", has_text="lr=0.05").click()
    shown = page.locator("details[open] table tbody tr td:nth-child(2)").all_inner_texts()
    assert shown == [f"{100 * result['best']['val/accuracy']:.2f} %" for result in results]
    assert page.locator("details[open] mark").all_inner_texts() == ["  lr: 0.05"]


@needs_browser
@pytest.mark.integrations
def test_a_heading_sorts_both_ways_by_mouse_and_by_keyboard(page: Page) -> None:
    heading = page.locator("th", has=page.get_by_role("button", name="lr", exact=True))
    heading.get_by_role("button").click()
    assert column(page, "lr") == ["1e-05", "0.01", "0.05", "0.1"]
    assert heading.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert column(page, "lr") == ["0.1", "0.05", "0.01", "1e-05"]
    assert heading.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="p", exact=True).focus()
    for _ in range(2):
        page.keyboard.press("Space")
        assert column(page, "p")[1:] == ["", "", ""], "what has no p stays last"
    assert page.locator("[aria-sort]").count() == 1


@needs_browser
@pytest.mark.integrations
def test_best_and_ties_are_marked(page: Page) -> None:
    assert page.locator("tr.best").inner_text().split()[:4] == ["●", "best", "0.1", "3"]
    assert page.locator("tr.tie").inner_text().split()[:4] == ["○", "tie", "0.05", "3"]
    assert page.locator("tr:has(td:text-is('baseline'))").count() == 1
    assert page.locator("svg.interval").count() == 4


@needs_browser
@pytest.mark.integrations
def test_it_fits_narrow_screens_the_dark_and_paper(browser: Browser, file: Path) -> None:
    with visited(browser, file, viewport={"width": 400, "height": 800}, color_scheme="dark") as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        assert page.locator(".wide").first.evaluate("box => box.scrollWidth > box.clientWidth")
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(22, 22, 23)"
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator(".wide").first.evaluate("box => getComputedStyle(box).overflowX") == "visible"
        assert not page.locator(".groups").is_visible(), "what is closed is not printed"


@needs_browser
@pytest.mark.integrations
@pytest.mark.parametrize(("num_settings", "fits"), [(5, True), (16, False)])
def test_no_column_is_hidden_without_a_word(num_settings: int, fits: bool, browser: Browser, tmp_path: Path) -> None:
    """The settings of a sweep, with differences from a baseline, fit into 1,300 pixels; far more are said to go on."""
    for number in range(4):
        settings = {f"data.setting_{index}": round(0.001234 * (number + index), 6) for index in range(num_settings)}
        for seed in (0, 1):
            make_run(tmp_path / f"{number}_{seed}", {**settings, "seed": seed}, 0.5 + number / 8 + seed / (50 + number))
    file = tmp_path / "page.html"
    write_output(file, to_html(compare([tmp_path], baseline=compare([tmp_path]).groups[0].name)))
    with visited(browser, file, viewport={"width": 1300, "height": 900}) as page:
        box = page.locator(".wide").first
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth") is fits
        assert page.locator("#scrolls").is_visible() is not fits
        assert page.evaluate("document.documentElement.scrollWidth") <= 1300


@needs_browser
@pytest.mark.integrations
def test_untrusted_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    """As a setting, and so in the table, the figures and the config; as an error; as a package."""
    for number, value in enumerate([HOSTILE, "plain"]):
        run = make_run(tmp_path / "runs" / str(number), {"model.hidden": value}, 0.5)
        write_json(run.provenance, {"started": HOSTILE, "machine": {HOSTILE: 1, "packages": {HOSTILE: HOSTILE}}})
    make_run(tmp_path / "runs" / "failed", {"seed": 2}, 0.0, status="failed", error=HOSTILE)
    write_output(tmp_path / "page.html", to_html(compare([tmp_path / "runs"])))
    with visited(browser, tmp_path / "page.html") as page:
        assert page.evaluate("[window.hacked, document.scripts.length]") == [None, 1]
        for shown in (page.locator("table.results"), page.locator("table.unfinished"), page.locator("pre").first):
            assert HOSTILE[:40] in shown.text_content()
        assert page.locator("figure svg").count() >= 1


def test_unfinished_runs_skipped_directories_and_environment(file: Path) -> None:
    html = file.read_text()
    assert "<td>failed</td>" in re.sub(r' class="\w+"', "", html)
    assert "out of memory" in html
    assert "more</td>" not in html
    assert "in no group" not in html
    assert "damaged</code></dt>" in html
    assert "<dt>device</dt><dd>cpu (11), A100 (1)</dd>" in html
    assert "<dt>torch</dt><dd>2.15.0 (11), 2.14.0 (1)</dd>" in html
    assert "<dt>numpy</dt><dd>2.4.6</dd>" in html
    assert "aaaaaaaaaaaa with uncommitted changes" in html
    assert "1 other package</span>" in html


def test_intervals_of_three_seeds_are_drawn_whole(comparison: Comparison, file: Path) -> None:
    ends = re.findall(r'<line x1="(.*?)%" x2="(.*?)%" y1="50%"', file.read_text())
    assert len(ends) == len(comparison.groups)
    assert all(0 < float(low) < float(high) < 100 for low, high in ends)


def test_filtered_runs_are_counted_and_unfinished_ones_not_read_again(tmp_path: Path) -> None:
    make_run(tmp_path / "good", {}, 0.5)
    failed = make_run(tmp_path / "failed", {"optimizer.lr": 0.2}, 0.5, status="failed", error="out of memory\nmore")
    comparison = compare([tmp_path], filters=["lr<0.2"])
    shutil.rmtree(failed.path)
    html = to_html(comparison)
    assert "out of memory</td>" in html
    assert "1 of them are in no group: the filters leave them out." in html


def test_the_same_comparison_gives_the_same_page(comparison: Comparison, file: Path) -> None:
    assert to_html(comparison) == file.read_text()


def test_a_thousand_groups_stay_one_small_page(comparison: Comparison) -> None:
    group = replace(comparison.groups[0], difference=None)
    groups = [replace(group, name=f"lr={number}", settings={"lr": str(number)}) for number in range(1000)]
    many = replace(comparison, groups=tuple(groups), ties=frozenset(), baseline=None)
    html = to_html(many)
    assert len(html) < 5_000_000
    assert html.count('<tr class="best">') == 1
    assert html.count('<svg class="interval"') == 1000
    assert html.count('<pre class="config"') == 50
    assert "The first 50 of 1,000 groups." in html


def test_damaged_provenance_is_left_out(tmp_path: Path) -> None:
    texts = ["[" * 100_000, '{"machine": {"packages": [1], "device": {"a": 1}}, "started": "2026-99-99"}', "7", ""]
    for number, content in enumerate(texts):
        make_run(tmp_path / str(number), {"seed": number}, 0.5).provenance.write_text(content)
    pipe = make_run(tmp_path / "pipe", {"seed": 9}, 0.5).provenance
    os.mkfifo(pipe)
    huge = make_run(tmp_path / "huge", {"seed": 10}, 0.5).provenance
    huge.write_text('{"machine": {"device": "cpu"}}')
    os.truncate(huge, 1 << 40)  # without a byte on the disk, and more than any memory
    environment = environment_of(compare([tmp_path]).groups[0].runs)
    assert environment == {
        "num_read": 1, "facts": {"device": ("?",)}, "packages": {}, "other_packages": [], "dates": [],
    }  # fmt: skip
