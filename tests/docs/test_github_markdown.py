"""Pages of docs/ on GitHub and on the site: lists that become tables of contents, commands that get colors."""

from pathlib import Path

import pytest
from github_markdown import GROUPS, CommandLexer, is_commands, listed_pages
from pygments.token import Comment, Generic, Keyword, String

DOCS = Path(__file__).parents[2] / "docs"


def test_every_page_is_in_exactly_one_group() -> None:
    """Else no reader finds it; Sphinx says so, too, but only when the site is built."""
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.glob("*.md")}
    pages |= {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.glob("examples/**/*.md")}
    listed = [
        (Path(group).parent / page).as_posix()
        for group in GROUPS
        for _, page in listed_pages((DOCS / f"{group}.md").read_text())
    ]
    assert sorted(listed) == sorted(pages - {"index"})


def test_a_list_becomes_a_table_of_contents() -> None:
    text = "- [A](a.md): one.\n- [B c](b/c.md)\\\n  two, as in [D](d.md).\n\n[E](e.md)\n- F [G](g.md)\n"
    assert listed_pages(text) == [("A", "a"), ("B c", "b/c")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("litlab train", True),
        ("$ ls", True),
        (".venv/bin/python -m x", True),
        ("litlab: error", False),
        ("makes", False),
    ],
)
def test_blocks_of_commands_are_known(text: str, expected: bool) -> None:
    assert is_commands(text) == expected


def test_commands_are_colored_and_output_is_not() -> None:
    text = "$ litlab train 'a=[1]' \\\n    seed=0  # it's one\nStudent's t # no comment\nlitlab  0.1\n$ make\n"
    tokens = [(kind, value) for kind, value in CommandLexer().get_tokens(text) if value.strip()]
    assert (Keyword, "litlab") in tokens
    assert (String, "'a=[1]'") in tokens
    assert (Comment, "# it's one") in tokens
    assert (Generic.Output, "Student's t # no comment\n") in tokens
    assert [value for kind, value in tokens if kind is Keyword] == ["litlab", "make"]
    assert "".join(value for _, value in CommandLexer().get_tokens(text)) == text
