"""What tells groups of runs apart, in as few columns as do.

A choice that was swept (`model=cnn,resnet`) and a class that differs (`optimizer._target_`) each stand for all
settings that come with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from litlab.compare.grouping import Alike
from litlab.compare.settings import SEED

_TARGET = "._target_"
FINGERPRINT = "data fingerprint"
_SHOWN = 12  # characters of a fingerprint
Value = str | None


@dataclass(frozen=True)
class Column:
    """What each group has for a key, in the order of the groups; None where it has no such setting."""

    key: str
    values: tuple[Value, ...]

    @property
    def varies(self) -> bool:
        return len(set(self.values)) > 1

    def decides(self, other: "Column") -> bool:
        """Whether groups that are equal here are equal there, too."""
        return len(set(zip(self.values, other.values, strict=True))) == len(set(self.values))


def swept_keys(groups: Sequence[Alike]) -> list[str]:
    """What studies sweep besides the seed, in their order."""
    return [key for key in dict.fromkeys(key for each in groups for key in each.choices) if key != SEED]


def leaves_of(groups: Sequence[Alike]) -> list[str]:
    """All settings, in the order of the configs."""
    return list(dict.fromkeys(key for each in groups for key in each.settings))


def keys_of(groups: Sequence[Alike]) -> list[str]:
    """All that there can be a column of: choices, leaves, and for `X._target_` X."""
    return list(dict.fromkeys([*swept_keys(groups), *(leaf.removesuffix(_TARGET) for leaf in leaves_of(groups))]))


def column(key: str, groups: Sequence[Alike]) -> Column:
    """Of a leaf its values; of another key what was chosen for it, or else the short names of its classes."""
    if not any(setting.startswith(f"{key}.") for setting in leaves_of(groups)):
        return Column(key, tuple(each.settings.get(key, each.choices.get(key)) for each in groups))
    chosen, classes = _chosen(key, groups), _classes(key, groups)
    return Column(key, tuple(a if a is not None else b for a, b in zip(chosen, classes.values, strict=True)))


def varying_columns(groups: Sequence[Alike]) -> list[Column]:
    """What was swept comes first, then the others in the order of the configs."""
    leaves = leaves_of(groups)
    found = (Column(leaf, tuple(each.settings.get(leaf) for each in groups)) for leaf in leaves)
    left = {each.key: each for each in found if each.varies}
    swept = [each for key in swept_keys(groups) if (each := left.pop(key, None) or column(key, groups)).varies]
    for each in swept:
        if None in _chosen(each.key, groups):
            left.pop(each.key + _TARGET, None)
            _cover(left, each, [key for key in left if _is_within(key, each.key) and None in left[key].values])
        else:
            is_anywhere = not any(_is_within(leaf, each.key) for leaf in leaves)  # `experiment` may set anything
            _cover(left, each, [key for key in left if is_anywhere or _is_within(key, each.key)])
    others: list[Column] = []
    for target in sorted((key for key in left if key.endswith(_TARGET)), key=len):
        if left.pop(target, None):  # else it is within a class that differs
            others.append(each := _classes(target.removesuffix(_TARGET), groups))
            _cover(left, each, [key for key in left if _is_within(key, each.key) and None in left[key].values])
    order = {key: number for number, leaf in enumerate(leaves) for key in (leaf.removesuffix(_TARGET), leaf)}
    return swept + sorted([*others, *left.values()], key=lambda each: order[each.key])


def _cover(left: dict[str, Column], by: Column, keys: Sequence[str]) -> None:
    """Leave out those of the settings that another column tells already."""
    for key in keys:
        if by.decides(left[key]):
            del left[key]


def fingerprints(groups: Sequence[Alike]) -> Column:
    """Of the data: where nothing else tells groups apart."""
    return Column(FINGERPRINT, tuple(each.data and each.data[:_SHOWN] for each in groups))


def _is_within(key: str, place: str) -> bool:
    return key == place or key.startswith(f"{place}.")


def _chosen(key: str, groups: Sequence[Alike]) -> list[Value]:
    """The choice for a node; a study that doesn't sweep it has that of another study with the same settings below the
    node, or of the only one with the same class."""
    choices = [each.choices.get(key) for each in groups]
    if None not in choices or not any(choices):
        return choices
    known: dict[object, set[str]] = {}
    for each, choice in zip(groups, choices, strict=True):
        if choice is not None:
            for trait in _traits(key, each):
                known.setdefault(trait, set()).add(choice)
    return [choice or _only(key, each, known) for each, choice in zip(groups, choices, strict=True)]


def _only(key: str, group: Alike, known: dict[object, set[str]]) -> Value:
    found = (known[trait] for trait in _traits(key, group) if trait in known)
    return next((min(choices) for choices in found if len(choices) == 1), None)


def _traits(key: str, group: Alike) -> list[object]:
    """What a choice is known by: all settings below its node, then the class there."""
    below = tuple(sorted((name, value) for name, value in group.settings.items() if _is_within(name, key)))
    target = group.settings.get(key + _TARGET)
    return ([below] if below else []) + ([target] if target else [])


def _classes(node: str, groups: Sequence[Alike]) -> Column:
    """The classes at a node by their short names, if those are as many; what stands there else is shown as it is."""
    targets = [each.settings.get(node + _TARGET) for each in groups]
    short = [target and target.rpartition(".")[2] for target in targets]
    names = short if len(set(short)) == len(set(targets)) else targets
    return Column(
        node, tuple(each.settings.get(node) if name is None else name for name, each in zip(names, groups, strict=True))
    )
