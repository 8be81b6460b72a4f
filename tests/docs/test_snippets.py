"""Commands with outputs on a page: read, compared, written back."""

from pathlib import Path

import pytest
from support import snippets
from support.snippets import Session, different_lines, read_sessions, write_outputs

PAGE = """\
Text.

    $ litlab train \\
    seed=1
    epoch 1: 0:12, 79.70 %

    done

More text.

    $ ls outputs
    $ litlab compare outputs

End.
"""


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snippets, "DOCS", tmp_path)
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path


def test_commands_are_read_with_their_outputs(docs: Path) -> None:
    assert read_sessions("page.md") == [
        Session("litlab train seed=1", "epoch 1: 0:12, 79.70 %\n\ndone"),
        Session("ls outputs", ""),
        Session("litlab compare outputs", ""),
    ]


def test_outputs_are_written_and_text_stays(docs: Path) -> None:
    write_outputs("page.md", ["new\n\nlines", "a  b", ""])
    assert [session.output for session in read_sessions("page.md")] == ["new\n\nlines", "a  b", ""]
    page = (docs / "page.md").read_text()
    assert page.startswith("Text.\n\n    $ litlab train \\\n    seed=1\n    new\n\n    lines\n\nMore text.\n\n")
    assert page.endswith("    $ ls outputs\n    a  b\n    $ litlab compare outputs\n\nEnd.\n")
    write_outputs("page.md", ["epoch 1: 0:12, 79.70 %\n\ndone", "", ""])
    assert (docs / "page.md").read_text() == PAGE


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("training 1.9 s, 13,938 images/s", "training 12.4 s, 938 images/s"),
        ("run  outputs/x/2026-11-29_14-35-42_7cbd5c", "run  outputs/x/2027-01-02_00-00-00_000000"),
        ("0.05  4  79.70   0:12  1,669  62,006", "0.05  4  79.70  0:08   988  62,006"),
        (
            "lr    mean  training time  images/s\n0.1  79.70           0:22       275\n\nThe same: parameters 62,006.",
            "lr    mean  images/s\n0.1  79.70     1,419\n\nThe same: training time 0:03, parameters 62,006.",
        ),
        (
            "0000_seed-0: started\n0000_seed-0: completed: 79.70 %  [1 completed of 2; 0:30, 0:00 left]",
            "0000_seed-0: completed: 79.70 %  [1 completed, 1 running of 2; 0:31, 0:01 left]\n0000_seed-0: started",
        ),
    ],
)
def test_times_ids_and_the_order_of_jobs_are_left_out(expected: str, printed: str) -> None:
    assert different_lines(expected, printed, 0.0) == []


def test_numbers_are_compared_within_the_tolerance() -> None:
    assert different_lines("accuracy 79.70 %", "accuracy 79.80 %", 0.0) == ["- accuracy 79.70 %", "+ accuracy 79.80 %"]
    assert different_lines("accuracy 79.70 %", "accuracy 85.00 %", 25.0) == []
    assert different_lines("accuracy 79.70 %", "accuracy 10.00 %", 25.0) != []
    assert different_lines("3 epochs", "4 epochs", 25.0) != []
    assert different_lines("lr  0.05", "rate  0.05", 25.0) != []
    assert different_lines("one\ntwo", "one", 25.0) != []


@pytest.mark.parametrize(
    ("shown", "shortened"), [("...\nold", "...\n3"), ("a\nb\n...", "1\n2\n..."), ("a", "1\n2\n3"), ("", "1\n2\n3")]
)
def test_lines_that_a_page_leaves_out_stay_left_out(shown: str, shortened: str) -> None:
    assert Session("litlab train", shown).shorten("1\n2\n3") == shortened
