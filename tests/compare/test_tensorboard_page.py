"""TensorBoard after a multirun in a real browser, compared with the results of the runs."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from support.browser import needs_browser, open_page
from support.runs import TINY_WITH_PICTURES, call_litlab, train_here
from support.studies import make_study

from litlab.cli.tensorboard import MAX_TICKED
from litlab.compare.tensorboard_summary import write_summaries
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.tensorboard_session import PREFIX, LoggedSummary, scalars, write_events

TOO_DEEP = "[2,4,8,16,32,64,128]"  # its maps would be smaller than a pixel: such a job is refused
WIDTHS = {"[2,4]": "2-4", "[4,8]": "4-8", TOO_DEEP: "2-4-8-16-32-64-128"}
METRICS = {"result/best/val/accuracy": ("best", "val/accuracy"), "result/test/loss": ("test", "test/loss")}

pytestmark = [needs_browser, pytest.mark.integrations]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a study of two settings with two seeds, one that fails, and a single run with another rate."""
    project = tmp_path_factory.mktemp("browser")
    swept = (f"model.widths={','.join(WIDTHS)}", "seed=0,1", "study.name=widths")
    done = call_litlab(project, "train", "-m", *TINY_WITH_PICTURES, *swept)
    assert done.returncode == 1  # of the jobs that are refused
    train_here(project / "outputs" / "single" / "2026-01-31_12-00-59_ab12cd", *TINY_WITH_PICTURES, "optimizer.lr=0.02")
    return project / "outputs"


@contextmanager
def served(*directories: Path) -> Iterator[list[Callable[[], str]]]:
    """Start `litlab tensorboard DIR` for all; yield functions that wait for their addresses."""
    with ExitStack() as stack:
        servers = []
        for directory in directories:
            command = [sys.executable, "-m", "litlab", "tensorboard", str(directory)]
            servers.append(stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
        try:
            yield [partial(address, server) for server in servers]
        finally:
            for server in servers:
                server.terminate()
            assert [server.wait(timeout=20) for server in servers] == [143] * len(servers)


def address(server: "subprocess.Popen[str]") -> str:
    (url,) = re.findall(r"http://\S+", server.stdout.readline())
    return str(url)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files of a study of more runs than TensorBoard ticks on all pages, one of a name that it can't tick."""
    path = tmp_path_factory.mktemp("many") / "study"
    rates = [number / 100 for number in range(1, MAX_TICKED // 2 + 2)]
    for run in make_study(path, {"optimizer.lr": rates, "seed": [0, 1]}, lambda point: point["optimizer.lr"]):
        write_events(run.path / f"{PREFIX}1.host", [LoggedSummary(scalars({"val/accuracy": 0.5}), 1, 1.0)])
    write_summaries(path)
    (path / "日本").mkdir()
    write_events(path / "日本" / f"{PREFIX}1.host", [LoggedSummary(scalars({"val/accuracy": 0.5}), 1, 1.0)])
    return path


@pytest.fixture(scope="module")
def servers(outputs: Path, many: Path) -> Iterator[list[Callable[[], str]]]:
    """On the study, on the folder that it is in, and on a study of many runs."""
    with served(outputs / "widths", outputs, many) as servers:
        yield servers


@pytest.fixture(scope="module")
def study(servers: list[Callable[[], str]], page: Page) -> str:
    return servers[0]()  # which starts while the browser does


@pytest.fixture(scope="module")
def several(servers: list[Callable[[], str]], page: Page) -> str:
    return servers[1]()


@pytest.fixture(scope="module")
def page(servers: list[Callable[[], str]]) -> Iterator[Page]:
    expect.set_options(timeout=30_000)
    with open_page() as page:
        yield page


def rows(address: str) -> dict[str, dict[str, Any]]:
    """Return run -> data of the HParams page with all digits."""
    query = {"allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE"], "startIndex": 0, "sliceSize": 100}
    query |= {"colParams": [], "includeMetrics": True}
    url, header = f"{address}data/plugin/hparams/session_groups", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(query).encode(), header)
    with urllib.request.urlopen(request) as answer:
        return {group["name"]: group for group in json.load(answer)["sessionGroups"]}


def result_of(outputs: Path, widths: str, seed: int) -> dict[str, Any]:
    (path,) = outputs.glob(f"widths/*_widths-{WIDTHS[widths]}_seed-{seed}")
    return read_result(RunDirectory(path))


def test_hparams_shows_settings_and_final_metrics(study: str, page: Page, outputs: Path) -> None:
    page.goto(f"{study}#hparams")
    table = page.locator("tf-hparams-table-view")
    expect(table.locator("vaadin-grid-cell-content", has_text="_seed-")).to_have_count(6)
    shown = table.locator("vaadin-grid-cell-content").all_inner_texts()
    by_settings = {(row["hparams"]["model.widths"], row["hparams"]["seed"]): row for row in rows(study).values()}
    assert set(by_settings) == {(widths, seed) for widths in WIDTHS for seed in (0, 1)}
    for (widths, seed), row in by_settings.items():
        metrics = {value["name"]["tag"]: value["value"] for value in row["metricValues"]}
        (session,) = row["sessions"]
        if widths == TOO_DEEP:
            assert (session["status"], metrics) == ("STATUS_FAILURE", {})
            continue
        result = result_of(outputs, widths, int(seed))
        assert session["status"] == "STATUS_SUCCESS"
        for tag, (part, name) in METRICS.items():
            assert metrics[tag] == pytest.approx(result[part][name], rel=1e-7)  # single precision
        assert format(result["best"]["val/accuracy"], "#.5g") in shown  # as the page writes it
    titles = ["widths", "seed", "best val/accuracy", "last val/accuracy", "test/accuracy"]
    assert [title for title in titles if title not in shown] == []
    assert not {"-1", "None", "null", "NaN"} & set(shown)


def test_the_filter_by_status_finds_failures(study: str, page: Page) -> None:
    page.goto(f"{study}#hparams")
    names = page.locator("tf-hparams-table-view vaadin-grid-cell-content", has_text="_seed-").filter(visible=True)
    expect(names).to_have_count(6)
    for status in ("Unknown", "Success", "Running"):
        page.locator("tf-hparams-query-pane paper-checkbox", has_text=status).click()
    expect(names).to_have_count(2)
    assert all(WIDTHS[TOO_DEEP][:4] in name for name in names.all_inner_texts())


def test_custom_scalars_shows_the_groups_in_margin_charts(study: str, page: Page) -> None:
    page.goto(f"{study}#custom_scalars")
    cards = page.locator("tf-custom-scalar-margin-chart-card")
    expect(cards).to_have_count(4)
    expect(cards.first).to_contain_text("val/accuracy")
    expect(cards.first).to_contain_text("Matches (2)")
    cards.first.locator(".toggle-matches-button").click()
    for widths in ("[2,4]", "[4,8]"):
        expect(cards.first).to_contain_text(f"summary/widths={widths}")
    expect(cards.first.locator("path.area")).to_have_count(2)


def test_scalars_shows_runs_and_means(study: str, page: Page, outputs: Path) -> None:
    page.goto(f"{study}#timeseries")
    runs = page.locator("runs-data-table")
    for name in ("0000_widths-2-4_seed-0", "summary/widths=[2,4]", "summary/widths=[4,8]"):
        expect(runs).to_contain_text(name)
    page.get_by_role("combobox", name="Filter tags (regex)").fill("^val/accuracy/mean$")
    card = page.locator("scalar-card").first
    expect(card).to_contain_text(re.compile(r"val/accuracy\s*/mean"))
    for widths in ("[2,4]", "[4,8]"):
        mean = sum(result_of(outputs, widths, seed)["last"]["val/accuracy"] for seed in (0, 1)) / 2
        row = card.locator("tb-data-table-content-row", has_text=f"widths={widths}")
        expect(row.get_by_text(f"{mean:.4g}", exact=True)).to_be_visible()


def test_images_shows_the_pictures_of_the_runs(study: str, page: Page) -> None:
    page.goto(f"{study}#images")
    picture = page.locator("tf-image-loader img").first
    expect(picture).to_be_visible()
    page.wait_for_function("element => element.complete && element.naturalWidth > 100", arg=picture.element_handle())


def test_the_most_important_settings_are_the_first_columns(several: str, page: Page) -> None:
    """TensorBoard would sort them by their names."""
    page.goto(f"{several}#hparams")
    boxes = page.locator("tf-hparams-query-pane .hparam-checkbox, tf-hparams-query-pane .metric-checkbox")
    expect(boxes.first).to_be_visible()
    assert [text.strip() for text in boxes.all_inner_texts()][:3] == ["lr", "widths", "seed"]


def test_of_many_runs_the_newest_are_ticked_on_all_pages(servers: list[Callable[[], str]], page: Page) -> None:
    page.goto(servers[2]())
    expect(page.locator("scalar-card").first).to_be_visible()
    page.get_by_role("tab", name="Custom Scalars").click()
    cards = page.locator("tf-custom-scalar-margin-chart-card")
    expect(cards.first).to_contain_text(f"Matches ({MAX_TICKED // 2 + 1})")


def test_several_studies_have_names_that_read_as_settings(several: str, page: Page) -> None:
    page.goto(f"{several}#hparams")
    names = page.locator("tf-hparams-table-view vaadin-grid-cell-content", has_text="/")
    expect(names.filter(has_text="widths/widths=[2,4] seed=0")).to_have_count(1)
    data = rows(several)
    assert data["single/2026-01-31 12:00"]["hparams"] == {"optimizer.lr": 0.02, "model.widths": "[2,4]", "seed": 0}
    assert data["widths/widths=[4,8] seed=1"]["hparams"]["optimizer.lr"] == 0.05
    assert len(data) == 7
