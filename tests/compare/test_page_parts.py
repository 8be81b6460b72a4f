"""What the HTML page says in particular cases, without a browser."""

import os
import shutil
from pathlib import Path

import pytest
from support.studies import make_run, make_study

from litlab.compare.comparison import compare
from litlab.compare.environment import environment_of
from litlab.compare.html import to_html, unfinished_section


def test_what_is_not_done_is_not_read_again(tmp_path: Path) -> None:
    make_run(tmp_path / "good", {}, 0.5)
    failed = make_run(tmp_path / "failed", {}, 0.5, status="failed", error="out of memory")
    found = compare([tmp_path])
    shutil.rmtree(failed.path)
    assert [run["reason"] for run in unfinished_section(found)["runs"]] == ["out of memory"]


@pytest.mark.parametrize(
    ("seeds", "question", "answer"),
    [
        ([0], "What validation accuracy does the run reach?", "All runs: 50.00 % (one seed)."),
        (
            [0, 1, 2],
            "What validation accuracy do the runs reach?",
            "All runs: 51.0 % (95 % interval 48.5 to 53.5, 3 seeds).",
        ),
    ],
)
def test_where_nothing_varies(seeds: list[int], question: str, answer: str, tmp_path: Path) -> None:
    make_study(tmp_path / "s", {"seed": seeds}, lambda point: 0.5 + 0.01 * point["seed"])
    html = to_html(compare([tmp_path / "s"]))
    assert f"<h1>{question}</h1>" in html
    assert f'<p class="answer">{answer}</p>' in html


def test_strangers_records_of_their_environment_are_passed_over(tmp_path: Path) -> None:
    texts = ["[" * 100_000, '{"machine": {"packages": [1], "device": {"a": 1}}, "started": "2026-99-99"}', "7", ""]
    for number, said in enumerate(texts):
        make_run(tmp_path / str(number), {"seed": number}, 0.5).provenance.write_text(said)
    pipe = make_run(tmp_path / "pipe", {"seed": 9}, 0.5).provenance
    os.mkfifo(pipe)
    huge = make_run(tmp_path / "huge", {"seed": 10}, 0.5).provenance
    huge.write_text('{"machine": {"device": "cpu"}}')
    os.truncate(huge, 1 << 40)  # without a byte on the disk, and more than any memory
    found = environment_of(compare([tmp_path]).groups[0].runs)
    assert (found.num_read, found.facts, found.packages, found.dates) == (1, {"device": ("?",)}, {}, ())
