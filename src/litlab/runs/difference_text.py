"""What differs between two runs, line by line."""

from typing import get_args

from litlab.runs.difference import Comparison, Section


def listed(found: Comparison, most: int) -> list[str]:
    """A line for each difference, at most so many a section, and for each section without one; in columns."""
    rows = []
    for section in get_args(Section):
        ours = [each for each in found.differences if each.section == section]
        texts = [(each.name, f"{each.old} -> {each.new}", each.note) for each in ours[:most]]
        texts += [(f"and {len(ours) - most} more", "", "")] if len(ours) > most else []
        unknown = found.unknown.get(section)
        texts = texts or [(f"not known: {unknown}" if unknown else "the same", "", "")]
        rows += [(section if number == 0 else "", *text) for number, text in enumerate(texts)]
    widths = [max((len(row[column]) for row in rows if row[column + 1]), default=0) for column in range(3)]
    return ["  ".join([*map(str.ljust, row, widths), row[3]]).rstrip() for row in rows]
