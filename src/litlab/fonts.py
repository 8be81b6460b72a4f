"""Font files for the characters of a text: DejaVu Sans, which matplotlib brings along, or one that is installed."""

import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_FIRST_RARE = 0x250  # DejaVu Sans has all letters below, those of Latin alphabets
_UNUSUAL = ("black", "bold", "condensed", "italic", "light", "medium", "mono", "oblique", "serif", "thin")


@cache
def dejavu_sans() -> str:
    """Return the file of DejaVu Sans: Latin, Greek, Cyrillic, Hebrew and Arabic letters."""
    import matplotlib  # slow to import

    return str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")


@cache
def find_font(text: str) -> str | None:
    """Find a font file that has every character of a text: DejaVu Sans if possible; None if no font has them."""
    characters = _visible(text)
    return next((font for font in _candidates(characters) if not _missing(font, characters)), None)


@cache
def find_fallbacks(text: str) -> tuple[str, ...]:
    """Find font files that have, together, the characters of a text that DejaVu Sans lacks, as far as there are any."""
    fonts: list[str] = []
    missing = _visible(text)
    for font in _candidates(missing):
        if (remaining := _missing(font, missing)) < missing:
            fonts.append(font)
            missing = remaining
        if not missing:
            break
    return tuple(font for font in fonts if font != dejavu_sans())


@cache
def add_to_matplotlib(font: str) -> str:
    """Make a font file known to matplotlib; return the name of its family."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    fontManager.addfont(font)
    return FT2Font(font).family_name


def _visible(text: str) -> frozenset[str]:
    """Return the characters that need a glyph: no spaces, and nothing that only controls others."""
    return frozenset(character for character in text if unicodedata.category(character)[0] not in "CZ")


def _candidates(characters: frozenset[str]) -> Iterator[str]:
    yield dejavu_sans()
    if any(ord(character) >= _FIRST_RARE for character in characters):
        yield from _installed_fonts()


def _missing(font: str, characters: frozenset[str]) -> frozenset[str]:
    """Return the characters that a font lacks; all of them if it can't be used."""
    rare = frozenset(character for character in characters if ord(character) >= _FIRST_RARE)
    if font == dejavu_sans() and not rare:
        return rare
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(font)
    except (OSError, RuntimeError):  # damaged
        return characters
    if not face.scalable:
        return characters
    return frozenset(character for character in characters if not face.get_char_index(ord(character)))


@cache
def _installed_fonts() -> tuple[str, ...]:
    """List the fonts of the system, plain sans-serif ones first."""
    from matplotlib.font_manager import findSystemFonts

    def order(font: str) -> tuple[bool, bool, str]:
        name = Path(font).stem.lower().replace("sansserif", "sans")
        return any(word in name for word in _UNUSUAL), "sans" not in name, font

    return tuple(sorted(findSystemFonts(), key=order))
