"""Tests of the storage of the trials of a search."""

from pathlib import Path

import pytest
from support.search_jobs import BASE

from litlab.errors import UserError
from litlab.sweep.search.settings import make_objectives
from litlab.sweep.search.storage import check_url, open_trials


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://me:canary-word@127.0.0.1:1/search",
        "sqlite:///file:/nowhere/there/search.db?uri=true&password=canary-word",
        "nonsense://me:canary-word@there",
        "no url: canary-word",
    ],
)
def test_errors_of_a_missing_database_hide_its_password(url: str) -> None:
    with pytest.raises(UserError, match=r"hydra.sweeper.storage: .* can't be read or written: .") as error:
        check_url(url)
    assert "canary-word" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize("name", ["with space", "what?", "50%20", "{brace}", "#"])
def test_special_characters_in_the_path_of_the_database(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir()
    open_trials(path, None, "s", make_objectives(BASE, None))
    assert [file.name for file in path.iterdir()] == ["search.db"]
