"""Settings of a run: their texts, their digits, and their short names."""

from typing import Any

import pytest

from litlab.compare.setting_names import full_name, parsed, short_names, shorten, text
from litlab.errors import UserError


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (0.1, "0.1"), (1e-05, "1e-05"), (100000.0, "100000"), (0.1 + 0.2, "0.30000000000000004"), (16, "16"),
        (True, "true"), (None, "null"), ([16, 32], "[16,32]"), (["a", None, [1.5]], "[a,null,[1.5]]"), ({}, "{}"),
        ("cnn", "cnn"), ("1", "'1'"), ("true", "'true'"), ("", "''"), (" a", "' a'"), ("nan", "'nan'"),
    ],
)  # fmt: skip
def test_texts_of_values(value: Any, read: str) -> None:
    assert text(value) == read
    if not isinstance(value, list | dict | str):
        assert parsed(read) == value


def test_shortest_names() -> None:
    keys = ["optimizer.lr", "schedule.lr", "seed", "data.seed", "model.widths", "net.model.depth"]
    assert short_names(["optimizer.lr", "data.seed", "seed", "model.widths", "net.model.depth"], keys) == {
        "optimizer.lr": "optimizer.lr", "data.seed": "data.seed", "seed": "seed", "model.widths": "widths",
        "net.model.depth": "depth",
    }  # fmt: skip
    assert [full_name(name, keys, "--sort") for name in ("widths", "seed", "model.depth")] == [
        "model.widths", "seed", "net.model.depth",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"--group lr is ambiguous: name one of optimizer.lr, schedule.lr"):
        full_name("lr", keys, "--group")
    with pytest.raises(UserError, match=r"--group widhts: no run has such a setting; did you mean model.widths\?"):
        full_name("widhts", keys, "--group")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["0.002236503628571064", "0.1"], ["0.0022365", "0.1"]),
        (["0.10000000149011612", "0.1", None], ["0.100000001", "0.1"]),
        (["1.23456789e-05"], ["1.2346e-05"]),
        (["[0.123456789,2]", "[0.9,0.999]"], ["[0.12346,2]", "[0.9,0.999]"]),
        (["123456.7", "1234567890", "12345678"], ["123456.7", "1234567890", "12345678"]),
        (["0.1234567890123456", "0.1234567890123457"], ["0.1234567890123456", "0.1234567890123457"]),
        (["v1.23456789", "'1.23456789'", "a[1.23456789]"], ["v1.23456789", "'1.23456789'", "a[1.23456789]"]),
    ],
)
def test_digits_keep_settings_different(texts: list[str | None], expected: list[str]) -> None:
    assert [shorten(texts)[text] for text in texts if text is not None] == expected
