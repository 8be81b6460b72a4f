"""A font of the tests' own, as if it were installed, since machines have different ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from litlab import fonts
from litlab.callbacks.images import get_font

ASCII = "".join(map(chr, range(32, 127))) + "…"


def write_font(path: Path, characters: str, family: str = "Test Sans") -> None:
    """Write a TrueType font whose glyphs are a bar for each bit of their code, so that they all differ."""
    names = {ord(character): f"u{ord(character):X}" for character in characters}
    glyphs = {".notdef": _bars(0xFFFFF)} | {name: _bars(code) for code, name in names.items()}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([*glyphs])
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)


def _bars(code: int) -> object:
    pen = TTGlyphPen(None)
    for bit in range(20):
        if code >> bit & 1:
            left, top = 45 * bit + 50, 700 - 20 * bit
            pen.moveTo((left, 0))
            pen.lineTo((left, top))
            pen.lineTo((left + 30, top))
            pen.lineTo((left + 30, 0))
            pen.closePath()
    return pen.glyph()


@contextmanager
def installed_only(folder: Path) -> Iterator[None]:
    """Let the fonts of a folder be the only ones that are installed, besides matplotlib's own, within the context."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(font_manager, "_get_fontconfig_fonts", list)
        monkeypatch.setattr(font_manager, "X11FontDirectories", [str(folder)])
        _forget()
        yield
    _forget()


def _forget() -> None:
    for cached in (fonts.find_font, fonts.find_fallbacks, fonts._installed_fonts, get_font):
        cached.cache_clear()
