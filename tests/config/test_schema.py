"""Schema: sections, constructors and conf/ agree, and defaults stand in YAML only."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

import pytest
import yaml
from lightning.pytorch import Trainer

from litlab.config import schema
from litlab.config.paths import packaged_conf
from litlab.config.schema import (
    FACTS,
    SCHEDULE_KEYS,
    SECTIONS,
    TRAINER_DECIDED,
    DataFacts,
    Root,
    Schedule,
    Section,
)
from litlab.config.targets import INJECTED, import_target

OF_LITLAB = [target for target in SECTIONS if target.startswith("litlab.")]
FOREIGN = [target for target in SECTIONS if not target.startswith("litlab.")]
INJECTED_ANYWHERE = {name for names in INJECTED.values() for name in names}
EMPTY = inspect.Parameter.empty


def yaml_nodes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and name, keys) of everything with a target in litlab's own YAML; inherited keys included."""
    for path in sorted(packaged_conf().glob("*/*.yaml")):
        content = read(path)
        for name, node in {"": content, **content}.items():
            if isinstance(node, dict) and "_target_" in node:
                yield f"{path.parent.name}/{path.stem} {name}".strip(), node


def read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text())
    inherited: dict[str, Any] = {}
    for default in content.pop("defaults", []):
        if isinstance(default, str) and default != "_self_":
            inherited |= read(path.parent / f"{default}.yaml")
    return inherited | content


NODES = dict(yaml_nodes())


def required(section: type[Section]) -> set[str]:
    return {name for name, field in section.model_fields.items() if field.is_required()}


@pytest.mark.parametrize("target", OF_LITLAB)
def test_a_section_of_litlab_has_what_the_constructor_takes(target: str) -> None:
    parameters = parameters_of(target)
    taken = {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    taken = {
        name: parameter for name, parameter in taken.items() if name not in INJECTED_ANYWHERE or name in fields(target)
    }
    read_by_task = set(SCHEDULE_KEYS) if issubclass(SECTIONS[target], Schedule) else set()
    assert set(fields(target)) - read_by_task == set(taken)
    assert read_by_task <= set(fields(target))
    assert [name for name, parameter in taken.items() if parameter.default is not EMPTY] == [], "defaults stand in YAML"
    assert required(SECTIONS[target]) == set(fields(target)), "nor in the schema"
    if target.startswith(("litlab.models.", "litlab.tasks.")):  # a config gives them facts that data do not tell
        assert SECTIONS[target].facts == tuple(name for name in FACTS if name in {value.name for value in parameters})
    positional = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    assert positional in ([], ["optimizer"], ["params"]), "given by position"


def test_each_fact_has_a_type() -> None:
    assert tuple(DataFacts.model_fields) == FACTS


def parameters_of(target: str) -> list[inspect.Parameter]:
    """Return the parameters of a signature; for `**settings: Unpack[Settings]` the keys of Settings."""
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(import_target(target)).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            parameters.append(parameter)
            continue
        (settings,) = get_args(parameter.annotation)
        assert is_typeddict(settings)
        assert not settings.__optional_keys__
        parameters += [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in settings.__annotations__]
    return parameters


def fields(target: str) -> list[str]:
    return list(SECTIONS[target].model_fields)


@pytest.mark.parametrize("target", FOREIGN)
def test_a_section_of_a_foreign_class_has_only_what_it_takes(target: str) -> None:
    parameters = inspect.signature(import_target(target)).parameters
    assert set(fields(target)) <= set(parameters)
    needed = {
        name
        for name, parameter in parameters.items()
        if parameter.default is EMPTY and parameter.kind is not parameter.VAR_KEYWORD
    } - INJECTED_ANYWHERE
    assert needed <= required(SECTIONS[target])


def test_each_argument_of_the_trainer_is_a_key_or_decided_by_litlab() -> None:
    arguments = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert set(schema.Trainer.model_fields) | set(TRAINER_DECIDED) == arguments
    assert set(schema.Trainer.model_fields) & set(TRAINER_DECIDED) == set()


# Types that a key takes besides those of the Trainer's argument: litlab builds the strategy of a node, and leaves out
# a `max_steps` of null.
MORE_TYPES = {"strategy": {dict}, "max_steps": {type(None)}}


@pytest.mark.parametrize("name", schema.Trainer.model_fields)
def test_each_key_of_the_trainer_has_the_types_of_its_argument(name: str) -> None:
    parameter = inspect.signature(Trainer.__init__).parameters[name]
    theirs, field = plain_types(parameter.annotation), schema.Trainer.model_fields[name]
    ours = plain_types(field.annotation)
    assert ours - MORE_TYPES.get(name, set()) <= theirs, "else Lightning would refuse what the schema accepts"
    numbers = {
        bool: {bool},
        int: {int, float},
        float: {int, float},
        str: {str},
        dict: {dict},
        list: {list},
        type(None): {type(None)},
    }
    missing = theirs & set(numbers) - {kind for kind in theirs if numbers.get(kind, set()) & ours}
    assert missing <= NARROWED.get(name, set()), "else the schema would refuse what Lightning accepts"
    if not field.is_required() and name != "max_steps":
        assert field.default == parameter.default


# Types of the Trainer's argument that a key does not take: the YAML has a value, or the type has only another spelling.
NARROWED = {
    "precision": {int, type(None)},
    "devices": set(),
    "log_every_n_steps": {type(None)},
    "deterministic": {type(None)},
    "overfit_batches": set(),
}


def plain_types(annotation: Any) -> set[type]:
    """Return the plain types in an annotation: of a Literal those of its values, of a generic its origin."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return plain_types(get_args(annotation)[0])
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    if origin in (Union, UnionType):
        return set().union(*map(plain_types, get_args(annotation)))
    kind = origin or annotation or type(None)
    return {kind} if isinstance(kind, type) else set()


@pytest.mark.parametrize("target", [target for target in FOREIGN if target != "lightning.pytorch.Trainer"])
def test_defaults_of_foreign_classes_are_theirs(target: str) -> None:
    """Keys left out of a YAML have the defaults that the schema says."""
    parameters = inspect.signature(import_target(target)).parameters
    for name, field in SECTIONS[target].model_fields.items():
        if not field.is_required() and name != "weight_decay":
            default = parameters[name].default
            assert field.default == (list(default) if isinstance(default, tuple) else default), name


@pytest.mark.parametrize("node", NODES)
def test_each_yaml_holds_each_key_of_its_section(node: str) -> None:
    target = NODES[node]["_target_"]
    keys = set(NODES[node]) - {"_target_"}
    assert target in SECTIONS
    assert required(SECTIONS[target]) <= keys <= set(fields(target))


def test_each_section_has_a_yaml() -> None:
    assert {node["_target_"] for node in NODES.values()} == set(SECTIONS)


def test_the_root_holds_each_key_of_its_section() -> None:
    root = yaml.safe_load((packaged_conf() / "config.yaml").read_text())
    groups = {key for default in root["defaults"] if isinstance(default, dict) for key in default} - {
        "study"
    }  # which is both
    keys = set(Root.model_fields) - groups
    assert set(root) - {"defaults", "hydra"} == keys
    for name in ("objective", "checkpoint", "study"):
        annotation = Root.model_fields[name].annotation
        members = getattr(annotation, "__args__", (annotation,))
        (section,) = [member for member in members if inspect.isclass(member) and issubclass(member, Section)]
        assert set(root[name]) == set(section.model_fields)
