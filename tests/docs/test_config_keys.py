"""Keys of the reference: none is missing, and a new one appears by itself."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args

import config_keys
import pytest
from config_keys import ConfigFile, config_files, config_groups, describe_type
from pydantic import Field, TypeAdapter

from litlab.config import schema
from litlab.config.paths import packaged_conf
from litlab.config.schema import GROUP_SECTIONS, LAUNCHERS, Root, Section
from litlab.sweep.decide.settings import DecideSettings
from litlab.sweep.search.settings import SearchSettings

FILES = {(group, file.name): file for group in config_groups() for file in config_files(group)}
SWEEPERS = {"search": SearchSettings, "decide": DecideSettings}


def names_below(prefix: str, section: type[Section]) -> Iterator[str]:
    """Yield the dotted names of the keys of a section, with those of the sections in it."""
    for name, field in section.model_fields.items():
        yield f"{prefix}.{name}"
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Section):
                yield from names_below(f"{prefix}.{name}", part)


def described(file: ConfigFile) -> set[str]:
    """Return the keys that a page describes under an option and under the files that it links to."""
    return {key.name for key in file.keys} | {name for parent in file.parents for name in described(parent)}


def find_file(group: str, target: str) -> tuple[ConfigFile, str]:
    """Return the file that names a class, and the dotted name of its node."""
    files = (file for (name, _), file in FILES.items() if name == group)
    return next((file, prefix) for file in files for prefix, other in file.targets.items() if other == target)


@pytest.mark.parametrize(
    ("group", "target"), [(group, target) for group in GROUP_SECTIONS for target in GROUP_SECTIONS[group]]
)
def test_every_key_of_a_class_is_described(group: str, target: str) -> None:
    file, prefix = find_file(group, target)
    assert set(names_below(prefix, GROUP_SECTIONS[group][target])) <= described(file)


@pytest.mark.parametrize(("group", "sections"), [("hydra/launcher", LAUNCHERS), ("hydra/sweeper", SWEEPERS)])
def test_every_key_of_a_launcher_and_a_sweeper_is_described(group: str, sections: dict[str, type[Section]]) -> None:
    for name, section in sections.items():
        assert set(names_below(group.replace("/", "."), section)) <= described(FILES[group, name])


def test_every_key_outside_of_groups_is_described() -> None:
    expected = {name.removeprefix(".") for name in names_below("", Root)}
    assert {name for name in expected if name.partition(".")[0] not in GROUP_SECTIONS} <= described(ConfigFile())


def test_every_key_says_what_it_is() -> None:
    files = [ConfigFile(), *FILES.values()]
    mappings = {f"{key.name}." for file in files for key in file.keys if key.description}
    silent = {key.name for file in files for key in file.keys if not key.description}
    silent = {name for name in silent if not any(name.startswith(mapping) for mapping in mappings)}
    assert silent == set(), "add a comment beside the default in conf/, or to Attributes: in litlab.config.schema"


def test_a_key_of_the_schema_has_a_type() -> None:
    unchecked = {"hydra.sweeper.params", "hydra.sweeper.conditional", "hydra.sweeper.paired"}
    files = [ConfigFile(), *FILES.values()]
    assert {key.name for file in files for key in file.keys if not key.type and key.name[:6] != "hydra."} == set()
    assert {key.name for file in files for key in file.keys if not key.type} - unchecked <= {
        "hydra.run.dir", "hydra.sweep.dir", "hydra.output_subdir",
    }  # fmt: skip


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of conf/ that may be changed."""
    copy = tmp_path / "conf"
    shutil.copytree(packaged_conf(), copy)
    monkeypatch.setattr(config_keys, "packaged_conf", lambda: copy)
    return copy


def test_a_new_key_appears(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shapes(schema.Shapes):
        """Keys of `data=shapes`.

        Attributes:
            corners: Number of corners,
                at most.
        """

        sparkle: Annotated[float, Field(ge=0, le=1)] | None
        corners: Annotated[int, Field(ge=3)] = 7

    monkeypatch.setitem(schema.SECTIONS, "litlab.data.shapes.Shapes", Shapes)
    file = conf / "data" / "shapes.yaml"
    file.write_text(file.read_text() + "# Fraction of pixels\n# that sparkle.\nsparkle: 0.5\n")
    keys = {key.name: key for key in ConfigFile("data", "shapes").keys}
    assert keys["data.sparkle"] == config_keys.Key(
        "data.sparkle", "number from 0 to 1 or `null`", "0.5", "Fraction of pixels that sparkle."
    )
    assert keys["data.corners"] == config_keys.Key("data.corners", "integer ≥ 3", "7", "Number of corners, at most.")
    assert keys["data.num_train"].default == "10000"


def test_a_new_option_and_a_new_group_appear(conf: Path) -> None:
    (conf / "trainer" / "tpu.yaml").write_text("# A TPU.\ndefaults: [default]\naccelerator: tpu\n")
    (conf / "recipe").mkdir()
    (conf / "recipe" / "soup.yaml").write_text("# @package _global_\n# Soup.\nseed: 3\n")
    assert "recipe" in config_groups()
    (file,) = (file for file in config_files("trainer") if file.name == "tpu")
    (key,) = file.keys
    assert (key.name, key.default, file.header) == ("trainer.accelerator", "tpu", ["A TPU."])
    assert key.description == "cpu, gpu, ...; auto: a GPU if there is one", "that of the key which it overrides"
    (soup,) = config_files("recipe")
    assert (soup.keys, soup.body) == ([], "# @package _global_\nseed: 3")


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (schema.Seed, "integer ≥ 0 and < 2³²"),
        (schema.BitDepth, "integer from 8 to 16"),
        (schema.Fraction | None, "number from 0 to 1 or `null`"),
        (schema.ImageSize, "integer ≥ 1 or list of 2 integers ≥ 1"),
        (schema.Channels, "list of 1 to 4 numbers > 0 or `null`"),
        (Annotated[list[str | int], Field(min_length=2)], "list of 2 or more texts or integers"),
        (schema.Duration, "days:hours:minutes:seconds"),
        (dict[str, int], "mapping"),
        (bool, "boolean"),
    ],
)
def test_types_in_words(annotation: object, text: str) -> None:
    assert describe_type(TypeAdapter(annotation).json_schema()) == text
