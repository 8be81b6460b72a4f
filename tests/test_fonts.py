"""Fonts for texts beyond DejaVu Sans, from those that are installed."""

from pathlib import Path

import pytest
from support.fonts import ASCII, installed_only, write_font

from litlab import fonts


@pytest.mark.parametrize("text", ["", "a cat", "Größe, naïve…", "кошка σκύλος חתול", "a\tb\n\u200d"])
def test_dejavu_sans_is_used_where_it_has_the_characters(tmp_path: Path, text: str) -> None:
    write_font(tmp_path / "other.ttf", ASCII + text + "猫")
    with installed_only(tmp_path):
        assert fonts.find_font(text) == fonts.dejavu_sans()
        assert fonts.find_fallbacks(text) == ()


def test_the_plainest_installed_font_with_all_characters_is_found(tmp_path: Path) -> None:
    for name, characters in (("sans-bold", "猫狗"), ("sans", "猫"), ("z", "猫狗"), ("song", "狗鳥")):
        write_font(tmp_path / f"{name}.ttf", ASCII + characters)
    (tmp_path / "sans-damaged.ttf").write_bytes(b"no font")
    with installed_only(tmp_path):
        assert fonts.find_font("猫 1") == str(tmp_path / "sans.ttf")
        assert fonts.find_font("猫狗") == str(tmp_path / "z.ttf")
        assert fonts.find_font("猫鳥") is None
        assert fonts.find_fallbacks("a 猫鳥") == (str(tmp_path / "sans.ttf"), str(tmp_path / "song.ttf"))
        assert fonts.find_fallbacks("魚") == ()
