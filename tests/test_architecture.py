"""docs/architecture.md names every file of the package, each with one sentence for one idea."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `([\w/]+\.py)` \| (.+) \|$", re.MULTILINE)


def test_every_file_has_one_sentence() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = ROW.findall(text[text.index("\n## What is where") :])
    files = {str(path.relative_to(ROOT / "src")).removeprefix("litlab/") for path in (ROOT / "src").rglob("*.py")}

    assert sorted(file for file, _ in rows) == sorted(files)
    assert [row for row in rows if re.search(r"\band\b", row[1]) or row[1].rstrip(".").count(". ")] == []
