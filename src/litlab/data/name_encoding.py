"""Encoding of names in zip archives that do not tell it, as those of older programs for Windows."""

import unicodedata
from collections.abc import Collection

# DOS and Windows code pages by region; UTF-8 is what programs for macOS and Linux write without saying so.
_ENCODINGS = ("utf-8", "cp437", "cp850", "cp1252", "cp866", "gbk", "cp932", "big5", "cp949")
_ALPHABETS = ({"LATIN"}, {"CYRILLIC"}, {"LATIN", "CJK", "HIRAGANA", "KATAKANA", "HANGUL"})


def find_encodings(names: Collection[bytes], *, from_unix: bool) -> dict[str, str]:
    """Find the encodings in which all names can be words.

    Args:
        names: Names that are not ASCII.
        from_unix: Whether the archive was written on macOS or Linux, whose names are UTF-8 if they can be.

    Returns:
        Encoding -> the first name in it. Of encodings that read all names alike, one is returned. If no encoding gives
        words, all that can be used are returned.
    """
    readings = {encoding: reading for encoding in _ENCODINGS if (reading := _decode_all(names, encoding)) is not None}
    if from_unix and "utf-8" in readings:
        return {"utf-8": readings["utf-8"][0]}
    words = {encoding: reading for encoding, reading in readings.items() if all(map(_is_word, reading))}
    distinct = {tuple(reading): encoding for encoding, reading in reversed((words or readings).items())}
    return {encoding: reading[0] for reading, encoding in reversed(distinct.items())}


def _decode_all(names: Collection[bytes], encoding: str) -> list[str] | None:
    try:
        return [name.decode(encoding) for name in sorted(names)]
    except UnicodeDecodeError:
        return None


def _is_word(text: str) -> bool:
    """Tell if the characters besides ASCII are letters, and if all letters are of one alphabet."""
    if not all(character.isascii() or unicodedata.category(character)[0] in "LM" for character in text):
        return False
    letters = (character for character in text if character.isalpha())
    alphabets = {unicodedata.name(letter, "?").split(maxsplit=1)[0] for letter in letters}
    return any(alphabets <= alphabet for alphabet in _ALPHABETS)
