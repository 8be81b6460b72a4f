"""Record of a decide study in families.json: what was tested at which level, for the validity of later decisions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from litlab.errors import UserError
from litlab.runs.files import open_regular, write_json
from litlab.statistics.sequential import LARGEST
from litlab.sweep.decide.rounds import Family, Source

FILE = "families.json"
_MAX_BYTES = 1 << 24


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class SettingRecord(_Checked):
    """A setting: its name, and the keys that it varies with their values as texts."""

    name: str
    point: dict[str, str]


class FamilyRecord(_Checked):
    """A family of comparisons, see `rounds.Family`; `opened` is ISO time, UTC."""

    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    horizon: Annotated[int, Field(ge=2)] | None
    alpha: Annotated[float, Field(gt=0, lt=1)]
    source: Source
    extends: Annotated[int, Field(ge=0)] | None
    within: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    opened: str

    def to_family(self) -> Family:
        """Return the family."""
        pairs = tuple((first, second) for first, second in self.pairs)
        within = tuple((first, second) for first, second in self.within)
        return Family(pairs, self.horizon, self.alpha, self.source, self.extends, within)


class Record(_Checked):
    """Contents of families.json.

    Attributes:
        format: Number of the format.
        alpha: Level of the study.
        alpha_reserve: Share of it that is kept for later families.
        delta: Smallest difference that matters.
        seeds_max: Largest number of seeds of a setting.
        skipped_seeds: Seeds that are not used, since they have selected the settings.
        baseline: Key of the baseline.
        settings: Settings by key, the identity of the config with the first seed.
        families: Families in the order in which they were opened.
    """

    format: Literal[1] = 1
    alpha: Annotated[float, Field(gt=0, lt=1)]
    alpha_reserve: Annotated[float, Field(ge=0, lt=1)]
    delta: Annotated[float, Field(gt=0)] | None
    seeds_max: Annotated[int, Field(ge=2, le=LARGEST)]
    skipped_seeds: list[Annotated[int, Field(ge=0)]]
    baseline: str | None
    settings: dict[str, SettingRecord]
    families: list[FamilyRecord]

    @model_validator(mode="after")
    def _check(self) -> "Record":
        keys = {*self.settings, *([] if self.baseline is None else [self.baseline])}
        for number, family in enumerate(self.families):
            if not family.pairs or len({frozenset(pair) for pair in family.pairs}) < len(family.pairs):
                raise ValueError("a family has no comparison, or one twice")
            if any(key not in keys for pair in family.pairs for key in pair):
                raise ValueError("a comparison names a setting that it does not have")
            if any(first == second for first, second in family.pairs):
                raise ValueError("a setting is compared with itself")
            if self.baseline is not None and any(second != self.baseline for _, second in family.pairs):
                raise ValueError("a comparison is not with the baseline")
            if (family.source == "first") != (number == 0):
                raise ValueError("a family has the level of another one")
            if family.horizon is not None and family.horizon > self.seeds_max:
                raise ValueError("a family has more seeds than the study")
            if family.extends is not None and family.extends >= number:
                raise ValueError("a family extends a later one")
            extended = [] if family.extends is None else self.families[family.extends].pairs
            if any(pair not in family.pairs or pair not in extended for pair in family.within):
                raise ValueError("a comparison is within delta in a family that does not have it")
        return self

    def seed(self, index: int) -> int:
        """Return a seed by its index."""
        return seed_at(index, self.skipped_seeds)


def seed_at(index: int, skipped: Sequence[int]) -> int:
    """Return a seed by its index: they are counted from 0, without those that are skipped."""
    seed = index
    for other in sorted(set(skipped)):
        if other <= seed:
            seed += 1
    return seed


def read_record(study: Path) -> Record | None:
    """Read the record of a study; None if there is none.

    Raises:
        UserError: If it is damaged.
    """
    file = study / FILE
    try:
        with open_regular(file) as opened:
            content = opened.read(_MAX_BYTES)
        record = Record.model_validate(json.loads(content))
    except FileNotFoundError:
        return None
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"{file} is damaged: {_reason(error)}; bring it back, or choose another study.name") from error
    return record


def write_record(study: Path, record: Record) -> None:
    """Write the record atomically."""
    write_json(study / FILE, record.model_dump())


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    return str(error)
