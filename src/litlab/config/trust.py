"""What a run of somebody else's may name: judged by names alone here, and by what they stand for in litlab.kinds."""

import hashlib
import hmac
import importlib.abc
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from litlab.config.paths import add_project_to_path, cache_root
from litlab.config.schema import SECTIONS
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import sync_directory, write_text

SIGNATURE = ".signature"
_FORMAT = "litlab-1"
_KEY = re.compile(r"[0-9a-f]{64}\s*")
# Stands in for the key file where there can be none, for this process and the workers that it starts.
_SESSION_KEY = "LITLAB_SESSION_KEY"
_STUDY = b"study"  # no JSON, as a run's project is: the signature of a run is none of a study


class _NoKey(Exception):
    """Why the key file can't be used."""


def sign(run: RunDirectory, *, coming: bytes | None = None, sync: bool = True) -> None:
    """Mark a run as the user's own: its config.yaml and its project folder as they are now.

    Where no key can be kept (no home, read-only), the mark holds for this process and those that it starts.

    Args:
        run: its directory.
        coming: what will replace config.yaml next; both are signed, so that at no time the run is somebody else's.
        sync: False if the caller syncs the files of many runs at once.

    Raises:
        OSError: if the run directory can't be written.
    """
    configs = [run.config.read_bytes()] + ([] if coming is None else [coming])
    project = _project(run)
    _write_signature(run.path, [(config, project) for config in configs], sync=sync)


def sign_study(directory: Path, *contents: bytes) -> None:
    """Mark a study as the user's own, with its study.yaml as it is and, if that is replaced next, as it will be.

    Raises:
        OSError: if the directory can't be written.
    """
    _write_signature(directory, [(content, _STUDY) for content in contents], sync=True)


def is_own(run: RunDirectory) -> bool:
    """Whether the run, as it is now, was signed with the key of this user."""
    return doubt(run, run.config.read_bytes()) is None


def doubt(run: RunDirectory, config: bytes) -> str | None:
    """Why a run whose config.yaml holds these bytes is not known as the user's own; None if it is."""
    return _doubt(run.path, (config, _project(run)), "config.yaml or the project in provenance.json")


def doubt_study(directory: Path, content: bytes) -> str | None:
    """Why a study whose study.yaml holds these bytes is not known as the user's own; None if it is."""
    return _doubt(directory, (content, _STUDY), "study.yaml")


def _doubt(directory: Path, parts: Sequence[bytes], what: str) -> str | None:
    file = directory / SIGNATURE
    try:
        found = file.read_text(encoding="ascii").splitlines()[:2]
    except FileNotFoundError:
        return "it is not signed"
    except (OSError, ValueError) as error:
        return f"its signature can't be read: {error}"
    try:
        for key in _known_keys():
            expected = f"{_FORMAT} {_digest(key, parts)}"
            if any(hmac.compare_digest(line, expected) for line in found):
                return None
    except _NoKey as error:
        return str(error)
    return f"its signature is not yours, or {what} changed since it was signed"


def key_file() -> Path:
    """The user's key: litlab's folder in the state directory of the XDG base directory specification.

    Raises:
        RuntimeError: if the user has no home.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "litlab" / "key"


def _write_signature(directory: Path, signed: Sequence[Sequence[bytes]], *, sync: bool) -> None:
    """One line for each of the states that the directory may be found in."""
    try:
        key = _made_key()
    except _NoKey:
        key = os.environ.setdefault(_SESSION_KEY, secrets.token_hex(32))
    text = "".join(f"{_FORMAT} {_digest(key, parts)}\n" for parts in signed)
    write_text(directory / SIGNATURE, text, sync=sync)


def _digest(key: str, parts: Sequence[bytes]) -> str:
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hmac.new(bytes.fromhex(key), _FORMAT.encode() + digests, hashlib.sha256).hexdigest()


def _project(run: RunDirectory) -> bytes:
    """The project folder that provenance.json names, and that the run's classes are imported from."""
    try:
        known = json.loads(run.provenance.read_bytes())
    except (OSError, ValueError, RecursionError):
        known = None
    return json.dumps(known.get("project") if isinstance(known, dict) else None).encode()


def _known_keys() -> Iterator[str]:
    if session := os.environ.get(_SESSION_KEY):
        yield session
    try:
        yield _read_key(key_file())
    except FileNotFoundError:
        raise _NoKey("there is no key of yours on this machine yet") from None
    except (OSError, RuntimeError) as error:
        raise _NoKey(f"your key can't be read: {error}") from error


def _made_key() -> str:
    """The key of the file, which is made where there is none; of two that make it at once, both get the same."""
    try:
        file = key_file()
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_new(file, secrets.token_hex(32) + "\n")
        return _read_key(file)
    except (OSError, RuntimeError) as error:
        raise _NoKey(f"your key can't be kept: {error}") from error


def _write_new(file: Path, text: str) -> None:
    """Put a file for this user alone in its place, whole, unless there is one by now."""
    temporary = file.with_name(f".key.{os.getpid()}.{secrets.token_hex(3)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
        os.link(temporary, file)
        sync_directory(file.parent)
    except FileExistsError:
        return
    finally:
        os.close(descriptor)
        temporary.unlink()


def _read_key(file: Path) -> str:
    with file.open(encoding="ascii", errors="replace") as stream:
        status = os.fstat(stream.fileno())
        text = stream.read(1024)
    if not stat.S_ISREG(status.st_mode) or not _KEY.fullmatch(text):
        raise _NoKey(f"{file} does not hold a key; remove it, and the next `litlab train` makes a new one")
    if status.st_mode & 0o077:
        raise _NoKey(f"others can read your key: chmod 600 {file}")
    return text.strip()


Config = dict[str, Any]
ALLOW = "LITLAB_ALLOW"
# The names that are imported at all. What they stand for has to be of a kind in litlab.training.allowlist, defined in a place there.
NAMES = (
    "torch.nn", "torch.optim", "torchvision.models", "torchvision.ops", "torchvision.transforms", "torchmetrics",
    "lightning.pytorch.callbacks", "lightning.pytorch.loggers", "lightning.pytorch.strategies",
    "lightning.pytorch.demos.boring_classes",
)  # fmt: skip
TRAINER = "lightning.pytorch.Trainer"
_OPEN_TO_ALL = sys.stdlib_module_names | {"hydra", "omegaconf"}  # they run, or import, whatever they are told to
_PACKAGE = re.compile(r"[A-Za-z]\w*(\.\w+)*", re.ASCII)
_WRITTEN_TO = ("dirpath", "save_dir", "root_dir", "default_root_dir", "log_dir", "exclude_batches_path")
_LEADS_AWAY = re.compile(r"^[/~]|\\|://|\$|(^|/)\.\.(/|$)")


@dataclass(frozen=True)
class Trust:
    """How far a run is trusted.

    Attributes:
        run: its directory.
        doubt: why it is not known as the user's own; None if it is.
        allowed: packages that the user allows to runs of others.
    """

    run: RunDirectory
    doubt: str | None
    allowed: tuple[str, ...]

    @classmethod
    def of(cls, run: RunDirectory, config: bytes, allow: Iterable[str] = ()) -> "Trust":
        """
        Args:
            run: its directory.
            config: what was read from its config.yaml.
            allow: packages, besides those in the environment's LITLAB_ALLOW.

        Raises:
            UserError: if one of these is no package, or if the directory holds a link that would be written through.
        """
        trust = cls(run, doubt(run, config), allowed_packages(allow))
        trust.refuse_links()
        return trust

    @property
    def own(self) -> bool:
        return self.doubt is None

    def refuse_links(self) -> None:
        """A link could have litlab append to a file elsewhere. In one's own run, one for checkpoints is all right.

        Raises:
            UserError: naming the link.
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
        """The project of one's own run; for a run of others only the packages allowed, from the current folder."""
        if self.own:
            add_project_to_path(self.run.project())
        elif self.allowed:
            names = frozenset(name.partition(".")[0] for name in self.allowed)
            finder = _OnlyAllowed(names, (str(Path.cwd()), str(Path.cwd() / "src")))
            if finder not in sys.meta_path:
                sys.meta_path.append(finder)

    def check_names(self, config: Config, parts: Collection[str] | None = None) -> None:
        """Judge what the parts of a config (None: all) name, without importing any of it.

        Raises:
            UserError: with a line for each name that a run of others may not hold.
        """
        if self.own:
            return
        chosen = {key: value for key, value in config.items() if parts is None or key in parts}
        problems = [problem for path, value in _leaves(chosen) if (problem := _interpolated(path, value))]
        for path, node in targets(chosen):
            target = node["_target_"]
            if objection := _objection(path, target, self.allowed):
                problems.append(f"{path}._target_: {target!r} {objection}")
            elif path.partition(".")[0] in ("callbacks", "logger") and not within(target, self.allowed):
                problems += _written_elsewhere(path, node)
        self.refuse(problems)

    def refuse(self, problems: Sequence[str]) -> None:
        """
        Raises:
            UserError: if there are problems.
        """
        if problems:
            first = f"{self.run.path} may not be a run of yours ({self.doubt}), so it was not opened:"
            raise UserError("\n".join([first, *map(_printable, problems)]))

    def settled(self, config: Config) -> Config:
        """The config with litlab's caches where this user has them, not where somebody else's run says."""
        data = config.get("data")
        if self.own or not data or data["_target_"] not in SECTIONS or "cache" not in data:
            return config
        ours = {"cache": str(cache_root())}
        if "url" in data and not Path(data["root"]).is_dir():  # else it would be made there, and filled
            ours["root"] = str(cache_root() / "cifar10")
        return config | {"data": data | ours}


def allowed_packages(allow: Iterable[str]) -> tuple[str, ...]:
    """The packages that are allowed to runs of others: these, and those in the environment.

    Raises:
        UserError: if one is not the name of a package, or is Python's own.
    """
    given = [allow] if isinstance(allow, str) else list(allow)
    names = [*given, *filter(None, os.environ.get(ALLOW, "").replace(" ", "").split(","))]
    for name in names:
        if not _PACKAGE.fullmatch(name):
            raise UserError(f"--allow {name}: expected the name of a package, as in mypackage or mypackage.networks")
        if name.partition(".")[0] in _OPEN_TO_ALL:
            raise UserError(
                f"--allow {name}: it runs whatever it is told to, so it can't be allowed to a run of others"
            )
    return tuple(dict.fromkeys(names))


def within(name: str, packages: Iterable[str]) -> bool:
    """Whether a dotted name is, or lies in, one of the packages."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def targets(config: Any, path: str = "") -> Iterator[tuple[str, Config]]:
    """Every node of a config that has a `_target_`, at any depth: (dotted path, node)."""
    if isinstance(config, dict) and "_target_" in config:
        yield path, config
    for key, value in _items(config):
        yield from targets(value, f"{path}.{key}" if path else str(key))


def _items(node: Any) -> Iterable[tuple[Any, Any]]:
    return node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value, with its dotted path."""
    if not isinstance(node, dict | list):
        yield path, node
    for key, value in _items(node):
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _printable(text: str) -> str:
    """Without what a terminal would take for a command."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _interpolated(path: str, value: Any) -> str | None:
    if "${" in path or (isinstance(value, str) and "${" in value):
        return f"{path}: {value!r} would be filled in from your environment; put a plain value there, or null"
    return None


def _objection(path: str, target: Any, allowed: Collection[str]) -> str | None:
    """Why a name is not even imported."""
    if not isinstance(target, str) or not _PACKAGE.fullmatch(target):
        return "is not a name as in package.module.Class"
    package = target.partition(".")[0]
    if package in _OPEN_TO_ALL:
        return f"is never a part of a run: {package} runs whatever it is told to"
    if path == "trainer":
        return None if target == TRAINER else f"is not the trainer of a run; expected {TRAINER}"
    if within(target, allowed) or (target in SECTIONS and target != TRAINER):
        return None
    if any(part.startswith("_") for part in target.split(".")):
        return "is private to its package; name the public class"
    if within(target, NAMES):
        return None
    return f"is not among the packages that such a run may name (docs/SECURITY.md); {hint(target)}"


def hint(target: str) -> str:
    """What to do about a name that is refused."""
    package = target.partition(".")[0]
    if package in {name.partition(".")[0] for name in NAMES}:
        package = target.rpartition(".")[0]  # torch is much more than one would want to allow
    return f"if you have read the code of {package} and trust it with your machine: --allow {package}"


def _written_elsewhere(path: str, node: Config) -> Iterator[str]:
    """Arguments that would have a class of Lightning's write outside of the run directory."""
    if "_args_" in node:
        yield f"{path}._args_: names no arguments, so it can't be seen what they are; give each its name"
    for key, value in _leaves(node, path):
        if key.rpartition(".")[2] in _WRITTEN_TO and value is not None:
            yield f"{key}: {value!r} is a place to write to, but a run of others writes into its own directory: null"
        elif isinstance(value, str) and _LEADS_AWAY.search(value):
            yield f"{key}: {value!r} may lead out of the run directory; put a plain name there"


@dataclass(frozen=True)
class _OnlyAllowed(importlib.abc.MetaPathFinder):
    """Finds some packages in the user's project, and nothing else: a file there can't pose as an optional package."""

    packages: frozenset[str]
    folders: tuple[str, ...]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in self.packages:
            return None
        return PathFinder.find_spec(fullname, self.folders, target)
