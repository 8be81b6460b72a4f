"""Keys of the config with type, range, default and description, for the reference.

A default comes from conf/, or from the schema if no YAML has it; types and ranges come from the schema. The description
stands beside the default: a comment in YAML, an entry of `Attributes:` in the schema.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from inspect import getdoc
from typing import Any

import yaml

from litlab.config.paths import ROOT, packaged_conf
from litlab.config.schema import GROUP_SECTIONS, LAUNCHERS, SECTIONS, Root, Section
from litlab.config.validate import MISSING
from litlab.sweep.decide.settings import DecideSettings
from litlab.sweep.search.settings import SearchSettings

SHARED = "base"  # folder in a group with keys that its options share
_HIDDEN_GROUPS = ("hydra/help",)
_NAMED_SECTIONS: Mapping[tuple[str, str], type[Section]] = {
    **{("hydra/launcher", name): section for name, section in LAUNCHERS.items()},
    ("hydra/sweeper", "search"): SearchSettings,
    ("hydra/sweeper", "decide"): DecideSettings,
}
_NO_KEYS = ("defaults", "_target_")
_COMMENT = re.compile(r"\s*#\s*(.*)")
_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n {5,}.+)*)", re.MULTILINE)  # in a docstring
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_SINGULAR = re.compile(r"\b(integer|number|text|mapping|node)\b")
_NOUNS = {"object": "mapping", "string": "text", "boolean": "boolean", "null": "`null`"}

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Schema = dict[str, Any]  # JSON schema


@dataclass(frozen=True)
class Key:
    """Key of the config.

    Attributes:
        name: Dotted name.
        type: Type with its range, in Markdown; empty if no schema has it.
        default: Text of the default in YAML, `???` for a key without one; None for a mapping, and for a part of a null
            one without a default.
        description: Comment; empty for a part of a key whose description covers it.
    """

    name: str
    type: str
    default: str | None
    description: str


def config_groups() -> list[str]:
    """Return the config groups that have files, as `data` and `hydra/launcher`."""
    groups = {path.parent.relative_to(packaged_conf()).as_posix() for path in packaged_conf().rglob("*/*.yaml")}
    return sorted(group for group in groups if group not in _HIDDEN_GROUPS and not group.endswith(f"/{SHARED}"))


def config_files(group: str) -> list["ConfigFile"]:
    """Return the options of a group, the default one first, and after them the files with keys that they share."""
    folder = packaged_conf() / group
    options = sorted(folder.glob("*.yaml"), key=lambda path: (path.stem != "default", path.stem))
    paths = [*options, *sorted(folder.glob(f"{SHARED}/*.yaml"))]
    return [ConfigFile(group, path.relative_to(folder).with_suffix("").as_posix()) for path in paths]


class ConfigFile:
    """YAML file in conf/.

    Args:
        group: Group; empty for conf/config.yaml.
        name: Name in the group, as `cifar10` and `base/images`.

    Attributes:
        header: Lines of the comment at the top of the file.
        body: The file without that comment.
        target: Class of the node of the group; None if the file names none.
    """

    def __init__(self, group: str = "", name: str = ROOT) -> None:
        self.group, self.name = group, name
        self._text = (packaged_conf() / group / f"{name}.yaml").read_text(encoding="utf-8")
        self._lines = self._text.splitlines()
        self._first = next(number for number, line in enumerate(self._lines) if not line.startswith("#"))
        top = self._lines[: self._first]
        self.header = [line[1:].removeprefix(" ") for line in top if not line.startswith("# @package")]
        self.body = "\n".join([line for line in top if line.startswith("# @package")] + self._lines[self._first :])
        self._tree: yaml.MappingNode = yaml.compose(self._text, Loader=_LOADER)
        self._values: dict[str, Any] = yaml.load(self._text, Loader=_LOADER)
        self.target: str | None = self._values.get("_target_")

    @cached_property
    def parents(self) -> list["ConfigFile"]:
        """Files of the group that this one includes."""
        names = self._values.get("defaults", []) if self.group in GROUP_SECTIONS else []
        folder = f"{SHARED}/" if self.name.startswith(f"{SHARED}/") else ""
        return [ConfigFile(self.group, folder + name) for name in names]

    @cached_property
    def keys(self) -> list[Key]:
        """Keys that the file has, and those of its classes that no YAML has."""
        if not self.group:
            return [*self._keys("", self._tree, Root), *_schema_keys("", Root, self._values.keys() | GROUP_SECTIONS)]
        prefix = self.group.replace("/", ".")
        if self._section is not None or self.group.startswith("hydra/"):
            keys = list(self._keys(prefix, self._tree, self._section))
            return keys + (_schema_keys(prefix, self._section, self._names) if self.target else [])
        nodes = {f"{prefix}.{key.value}": node for key, node in self._tree.value}
        keys = []
        for name, target in self.targets.items():
            section = SECTIONS.get(target)
            names = {key.value for key, _ in nodes[name].value}
            keys += [*self._keys(name, nodes[name], section), *_schema_keys(name, section, names)]
        return keys

    @cached_property
    def targets(self) -> dict[str, str]:
        """Dotted name of each node, of which callbacks and loggers have several -> its class."""
        nodes = {self.group: self._values, **{f"{self.group}.{name}": node for name, node in self._values.items()}}
        return {name: node["_target_"] for name, node in nodes.items() if isinstance(node, dict) and "_target_" in node}

    @cached_property
    def _section(self) -> type[Section] | None:
        """Section of the group's node; None if the group has no node, or the schema does not know its class."""
        if section := _NAMED_SECTIONS.get((self.group, self.name)):
            return section
        if self.name.startswith(f"{SHARED}/"):  # the first class that has all keys stands for all
            names = self._values.keys() - {"defaults"}
            return next(each for each in GROUP_SECTIONS[self.group].values() if names <= each.model_fields.keys())
        target = next((file.target for file in (self, *self.parents) if file.target), None)
        return SECTIONS.get(target) if target else None

    @cached_property
    def _names(self) -> set[str]:
        """Names of the keys at the root of the file and of those that it includes."""
        return self._values.keys() | {name for parent in self.parents for name in parent._names}

    def _keys(self, prefix: str, node: yaml.MappingNode, section: type[Section] | None) -> Iterator[Key]:
        """Yield the keys of a node in YAML; an override is described as the key that it overrides."""
        schema = _json_schema(section) if section is not None else {}
        described = {key.name: key.description for parent in self.parents for key in parent.keys}
        for key in self._entries(prefix, node, schema, schema.get("$defs", {})):
            yield key if key.description else replace(key, description=described.get(key.name, ""))

    def _entries(
        self, prefix: str, node: yaml.MappingNode | None, schema: Schema, definitions: Schema
    ) -> Iterator[Key]:
        """Yield the keys of a mapping with their parts, which for one that is null come from the schema."""
        properties, attributes = schema.get("properties", {}), _attribute_texts(schema.get("description", ""))
        nodes = {key.value: (key, value) for key, value in node.value} if node is not None else {}
        for name in nodes or properties:
            item, description, parts = properties.get(name, {}), attributes.get(name, ""), None
            default = None if name in nodes else _default(item)
            if name in nodes:
                key, value = nodes[name]
                description = self._comment(key, value)
                if isinstance(value, yaml.MappingNode) and not value.flow_style:
                    parts = value
                else:
                    default = self._text[value.start_mark.index : value.end_mark.index]
            dotted = f"{prefix}.{name}".lstrip(".")
            if name not in _NO_KEYS and (item or description):  # of Hydra's own keys, those with a comment
                yield Key(dotted, describe_type(item), default, description)
            if parts is not None or _referenced(item, definitions):
                yield from self._entries(dotted, parts, _referenced(item, definitions), definitions)

    def _comment(self, key: yaml.ScalarNode, value: yaml.Node) -> str:
        """Return the comment at the end of the line of a key, else that on the lines above it."""
        is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        mark = key.end_mark if is_block else value.end_mark
        if match := _COMMENT.fullmatch(self._lines[mark.line][mark.column :].removeprefix(":")):
            return match[1]
        above: list[str] = []
        for line in reversed(self._lines[self._first : key.start_mark.line]):
            if not line.startswith(" " * key.start_mark.column + "#"):
                break
            above.insert(0, line.strip(" #"))
        return " ".join(above)


def describe_type(schema: Schema) -> str:
    """Describe a type and its range in Markdown, as in `integer ≥ 1 or null`."""
    if "description" in schema and "properties" not in schema:
        return str(schema["description"])
    if options := schema.get("anyOf"):
        return _enumeration(dict.fromkeys(describe_type(option) for option in options))
    if "enum" in schema or "const" in schema:
        return _enumeration(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "object" if "$ref" in schema else "")
    if kind in ("integer", "number"):
        bounds = {word: schema[word] for word in _BOUNDS if word in schema}
        if bounds.keys() == {"minimum", "maximum"}:
            return f"{kind} from {bounds['minimum']} to {bounds['maximum']}"
        texts = [f"{_BOUNDS[word]} {'2³²' if value == 2**32 else value}" for word, value in bounds.items()]
        return f"{kind} {' and '.join(texts)}".strip()
    if kind == "array":
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        size = f"{low} " if low == high else f"{low} to {high} " if high else f"{low} or more " if low > 1 else ""
        return f"list of {size}" + _SINGULAR.sub(r"\1s", describe_type(schema["items"]))
    return _NOUNS.get(kind, kind)


@cache
def _json_schema(section: type[Section]) -> Schema:
    return section.model_json_schema()


def _enumeration(texts: Iterable[str]) -> str:
    *others, last = texts
    return f"{', '.join(others)} or {last}" if others else last


def _referenced(schema: Schema, definitions: Schema) -> Schema:
    """Return the schema of the section that a key holds; empty if it holds none."""
    references = [option["$ref"] for option in (schema, *schema.get("anyOf", ())) if "$ref" in option]
    return definitions[references[0].rpartition("/")[2]] if references else {}


def _schema_keys(prefix: str, section: type[Section] | None, names: Collection[str]) -> list[Key]:
    """Return the keys of a section without those of the given names."""
    schema = _json_schema(section) if section is not None else {}
    descriptions = _attributes(section) if section is not None else {}
    return [
        Key(
            f"{prefix}.{name}".lstrip("."),
            describe_type(item),
            _default(item) or MISSING,
            descriptions.get(name, ""),
        )
        for name, item in schema.get("properties", {}).items()
        if name not in names
    ]


def _attributes(section: type[Section]) -> dict[str, str]:
    """Return the text of each attribute in the docstrings of a section and its bases."""
    docs = [getdoc(base) or "" for base in reversed(section.__mro__) if issubclass(base, Section)]
    return _attribute_texts("\n".join(docs))


def _attribute_texts(docstring: str) -> dict[str, str]:
    """Return the text of each attribute in a docstring."""
    return {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(docstring)}


def _default(schema: Schema) -> str | None:
    """Return the text of the default in a schema; None without one."""
    return json.dumps(schema["default"]).strip('"') if "default" in schema else None
