"""Untrusted runs: the class names, arguments and files that litlab accepts in a run that the user did not sign.

Runs that the user signed (`litlab.runs.signature`) may name any class. All others may name only the classes on the
list below, and packages that the user allows with `--allow NAME`. docs/SECURITY.md gives the reasons.
"""

import importlib.abc
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from litlab.config.config_file import from_yaml
from litlab.config.paths import add_project_to_path, cache_root, prefer_snapshot
from litlab.config.schema import GROUP_SECTIONS, OPTIONAL_PACKAGES, SECTIONS
from litlab.config.targets import import_target
from litlab.config.tree import MAPPING_GROUPS, Config, lies_under, walk
from litlab.config.validate import validate
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.signature import signature_problem

ALLOW = "LITLAB_ALLOW"  # environment variable: names that the user allows to untrusted runs, separated by commas

# Classes of torch that can be built from plain arguments; litlab's own are those of the schema.
OPTIMIZERS = (
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam", "RAdam", "RMSprop",
    "Rprop", "SGD", "SparseAdam",
)  # fmt: skip
SCHEDULERS = (
    "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR", "LinearLR",
    "MultiStepLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "StepLR",
)  # fmt: skip
# Config group -> class names that an untrusted run may use there. Nodes inside other nodes may use none of them.
ALLOWED_TARGETS: dict[str, frozenset[str]] = {group: frozenset(sections) for group, sections in GROUP_SECTIONS.items()}
ALLOWED_TARGETS["logger"] -= OPTIONAL_PACKAGES.keys()  # they send what they are given to other machines
ALLOWED_TARGETS["optimizer"] |= {f"torch.optim.{name}" for name in OPTIMIZERS}
ALLOWED_TARGETS["schedule"] |= {f"torch.optim.lr_scheduler.{name}" for name in SCHEDULERS}

_NEVER_ALLOWED = sys.stdlib_module_names | {"hydra", "omegaconf"}  # they can execute anything they are given
_DOTTED_NAME = re.compile(r"[A-Za-z]\w*(\.\w+)*", re.ASCII)


@dataclass(frozen=True)
class Trust:
    """Permissions of a run.

    Attributes:
        signature_problem: Reason why the run is untrusted; None for the user's own run, which has a valid signature.
        allowed: Dotted names of classes and packages that the user allows to untrusted runs.
    """

    run: RunDirectory
    signature_problem: str | None
    allowed: tuple[str, ...]

    @classmethod
    def of(cls, run: RunDirectory, config: bytes, allow: Iterable[str] = ()) -> "Trust":
        """Return the permissions of a run with this config.yaml, with names to allow besides those in LITLAB_ALLOW.

        Raises:
            UserError: If one of the names can't be allowed, or if the directory holds a symbolic link that would be
                written through.
        """
        trust = cls(run, signature_problem(run, config), allowed_names(allow))
        trust.refuse_links()
        return trust

    @property
    def own(self) -> bool:
        """True if the user signed the run."""
        return self.signature_problem is None

    def refuse_links(self) -> None:
        """Refuse symbolic links, through which litlab would write to files elsewhere.

        In the user's own run a link for the checkpoint folder is accepted.

        Raises:
            UserError: If there is a link.
        """
        for folder, folders, files in os.walk(self.run.path):
            for name in files if self.own else (*files, *folders):
                if Path(folder, name).is_symlink():
                    raise UserError(
                        f"{Path(folder, name)} is a link, and what is written there would go elsewhere; "
                        "put a copy of the file in its place"
                    )
            if self.own:
                return

    def make_importable(self) -> None:
        """Make the project of the user's own run importable, from its snapshot if it has one.

        For an untrusted run, only the allowed packages become importable.

        Raises:
            UserError: If the snapshot is missing.
        """
        if self.own:
            add_project_to_path(self.run.project())
            if (snapshot := self.run.snapshot()) is not None:
                prefer_snapshot(snapshot)
        elif self.allowed:
            packages = frozenset(name.partition(".")[0] for name in self.allowed)
            finder = _AllowedPackages(packages, (str(Path.cwd()), str(Path.cwd() / "src")))
            if finder not in sys.meta_path:
                sys.meta_path.append(finder)

    def check_names(self, config: Config, groups: Collection[str] | None = None) -> None:
        """Check the class names and values of an untrusted run, or of some groups, without importing anything.

        Raises:
            UserError: With a line for each name or value that is refused.
        """
        if self.own:
            return
        nodes = [node for node in walk(config) if groups is None or node[0].partition(".")[0] in groups]
        problems = [problem for key, value in nodes if (problem := _interpolation_problem(key, value))]
        for key, target in _targets(nodes):
            if problem := _name_problem(key, target, self.allowed):
                problems.append(f"{key}._target_: {target!r} {problem}")
        self._refuse(problems)

    def check_imports(self, config: Config) -> None:
        """Check the names of an untrusted run, then import what it uses of allowed packages.

        A package also exposes names that it only imports, such as `package.os.system`. Those are refused.

        Raises:
            UserError: With a line for each name that is refused.
        """
        if self.own:
            return
        self.check_names(config)
        problems = []
        for key, target in _targets(walk(config)):
            if target in ALLOWED_TARGETS.get(_group(key), ()) or target in self.allowed:
                continue
            try:
                module = getattr(import_target(target), "__module__", None)
            except UserError as error:
                problems.append(f"{key}._target_: {error}")
                continue
            if not isinstance(module, str) or not lies_under(module, *self.allowed):
                problems.append(f"{key}._target_: {target} is defined in {module}, not in an allowed package")
        self._refuse(problems)

    def _refuse(self, problems: Sequence[str]) -> None:
        """Raise a UserError if there are problems."""
        if problems:
            first = f"{self.run.path} is untrusted ({self.signature_problem}), so it was not opened:"
            raise UserError("\n".join([first, *map(_printable, problems)]))

    def with_own_caches(self, config: Config) -> Config:
        """Return the config of an untrusted run with the cache folders of this user instead of those in the config."""
        data = config.get("data")
        if self.own or not data or data["_target_"] not in SECTIONS or "cache" not in data:
            return config
        folders = {"cache": str(cache_root())}
        if data["_target_"] == "litlab.data.torchvision.Torchvision":  # it downloads and unpacks into any folder
            folders["root"] = str(cache_root() / "torchvision" / data["name"])
        elif "url" in data and not Path(data["root"]).is_dir():  # else litlab would create and fill it
            folders["root"] = str(cache_root() / "cifar10")
        return config | {"data": data | folders}


def open_config(run: RunDirectory, allow: Iterable[str] = ()) -> tuple[Config, Trust]:
    """Read and validate config.yaml, in which secrets are still references.

    Args:
        run: Run directory.
        allow: Names that the user allows to an untrusted run.

    Returns:
        Frozen config; permissions of the run.

    Raises:
        UserError: If config.yaml is damaged or of another version of litlab, or as by `Trust.of`.
    """
    content = run.config.read_bytes()
    trust = Trust.of(run, content, allow)
    try:
        config = from_yaml(content.decode())
        validate(config)
        if not isinstance(init := config.get("init_from"), dict | None):
            raise UserError(f"init_from={init!r}: expected null, or the keys path and sha256")
    except ValueError as error:  # UserError, or bytes that are not UTF-8
        raise UserError(f"{run.config} is damaged or not of this version of litlab: {error}") from error
    return config, trust


def trusted_config(run: RunDirectory, frozen: Config) -> Config:
    """Return the config that a worker may build objects from, given what was read from config.yaml.

    Raises:
        UserError: If the run is untrusted and names something that it may not, or if config.yaml changed since it was
            read.
    """
    content = run.config.read_bytes()
    trust = Trust.of(run, content)
    if repr(from_yaml(content.decode())) != repr(frozen):  # not ==, since NaN is not equal to itself
        raise UserError(f"{run.config} was changed while the run was started; start it again")
    if trust.own:
        return frozen
    validate(frozen)
    trust.check_imports(frozen)
    return trust.with_own_caches(frozen)


def allowed_names(allow: Iterable[str]) -> tuple[str, ...]:
    """Return the names that the user allows to untrusted runs: these and those in LITLAB_ALLOW.

    Raises:
        UserError: If one is not a dotted name, or belongs to Python's standard library or Hydra.
    """
    given = [allow] if isinstance(allow, str) else list(allow)
    names = [*given, *filter(None, os.environ.get(ALLOW, "").replace(" ", "").split(","))]
    for name in names:
        if not _DOTTED_NAME.fullmatch(name):
            raise UserError(f"--allow {name}: expected the name of a package or class, as in mypackage.networks")
        if name.partition(".")[0] in _NEVER_ALLOWED:
            raise UserError(f"--allow {name}: it can execute any code, so it can't be allowed to an untrusted run")
    return tuple(dict.fromkeys(names))


def _targets(nodes: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, `_target_`) of the nodes that name a class."""
    return ((key, node["_target_"]) for key, node in nodes if isinstance(node, dict) and "_target_" in node)


def _group(key: str) -> str:
    """Return the config group whose node has this dotted key; empty for a node inside another node."""
    group, *rest = key.split(".")
    return group if len(rest) == (group in MAPPING_GROUPS) else ""


def _name_problem(key: str, target: Any, allowed: Collection[str]) -> str | None:
    if not isinstance(target, str) or not _DOTTED_NAME.fullmatch(target):
        return "is not a name as in package.module.Class"
    if target in ALLOWED_TARGETS.get(_group(key), ()):
        return None
    if (package := target.partition(".")[0]) in _NEVER_ALLOWED:
        return f"can't be used by an untrusted run: {package} can execute any code"
    if key == "trainer":
        return f"is not the trainer of a run; expected {', '.join(ALLOWED_TARGETS['trainer'])}"
    if lies_under(target, *allowed):
        return None
    return (
        "is not on the list of names for untrusted runs (docs/SECURITY.md); "
        f"if you have read its code and trust it with your machine: --allow {target}"
    )


def _interpolation_problem(key: str, value: Any) -> str | None:
    if not isinstance(value, dict | list) and ("${" in key or "${" in str(value)):
        return f"{key}: {value!r} would be filled in from your environment; put a plain value there, or null"
    return None


def _printable(text: str) -> str:
    """Replace control characters, which a terminal would interpret as commands."""
    return "".join(character if character.isprintable() else "?" for character in text)


@dataclass(frozen=True)
class _AllowedPackages(importlib.abc.MetaPathFinder):
    """Finder of the allowed packages in the user's project, so that no other file there is imported."""

    packages: frozenset[str]
    folders: tuple[str, ...]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        is_allowed = path is None and fullname in self.packages
        return PathFinder.find_spec(fullname, self.folders, target) if is_allowed else None
