"""Projects of one's own: a folder made from the template of `litlab new`, and its update to a newer template.

The folder keeps the text of each file as the template gave it, in `RECORD`. So an update is a three-way merge of the
old text, the user's file and the new text, and needs neither an old release nor a history in git. (`copier update`
can't be used: it reads both versions of a template from the git repository of the template, and a wheel has none.)
"""

import json
import keyword
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from litlab.errors import UserError

RECORD = ".litlab-template.json"  # in a project: the answers and the files of the template that it was made from
TEMPLATE = Path(__file__).with_name("project_template")
_FORMAT = 1
_FOLDERS = {"conf", "outputs", "src", "tests"}  # of a project, importable in it under these names
_MAX_NAME = 100  # characters
_PACKAGE = re.compile(r"[a-z][a-z0-9_]*")
_REQUIREMENT = re.compile(r"litlab(\[[\w,-]+\])?\s*([@=<>~!].*)?")
_SAFE = re.compile(r"[^\"\\\x00-\x1f\x7f]+")  # stands between quotes in pyproject.toml as it is
_URL = re.compile(r"(git\+)?(https?|ssh|file)://.+")
_HINT = "name a wheel, a folder with litlab's sources, or a git URL: --litlab git+https://HOST/litlab.git@TAG"


@dataclass(frozen=True)
class Answers:
    """Values that the template is filled in with.

    Attributes:
        name: Name of the project as a distribution, `my-project`.
        package: Name of its package, `my_project`.
        litlab: Requirement of litlab, as in `pyproject.toml`.
    """

    name: str
    package: str
    litlab: str


def package_name(name: str) -> str:
    """Derive the name of a Python package from that of a folder: `My Project` gives `my_project`.

    Raises:
        UserError: If there is none, or it would hide another module.
    """
    letters = [letter for letter in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(letter)]
    package = re.sub(r"[\W_]+", "_", "".join(letters)).strip("_")
    if not _PACKAGE.fullmatch(package):
        raise UserError(
            f"{name!r} gives no name of a Python package: expected a name of the letters a to z, digits, spaces and "
            "dashes that begins with a letter, such as my-project"
        )
    if len(package) > _MAX_NAME:
        raise UserError(f"{name[:_MAX_NAME]}...: the name has {len(package)} characters; expected at most {_MAX_NAME}")
    if reason := _taken(package):
        raise UserError(f"{name}: the package would be {package}, which is {reason}; choose another name")
    return package


def _taken(package: str) -> str | None:
    """Return why a package of this name could not be imported or would hide another one; None if it is free."""
    if keyword.iskeyword(package):
        return "a keyword of Python"
    if package in sys.stdlib_module_names:
        return "a module of Python's standard library"
    if package in _FOLDERS:
        return "a folder of the project"
    try:
        distribution(package.replace("_", "-"))
    except PackageNotFoundError:
        return "an installed package" if find_spec(package) else None
    return "an installed package"


def installed_litlab() -> str:
    """Return a requirement of the litlab that runs: the wheel, folder or git commit that it was installed from.

    Raises:
        UserError: If that is not recorded, or is not there anymore.
    """
    record = distribution("litlab").read_text("direct_url.json")  # PEP 610
    if record is None:
        raise UserError(f"the source that this litlab was installed from is not known; {_HINT}")
    origin = json.loads(record)
    if vcs := origin.get("vcs_info"):
        return f"litlab @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}"
    url = urlsplit(origin["url"])
    if url.scheme == "file" and not Path(unquote(url.path)).exists():
        raise UserError(f"{unquote(url.path)}, which this litlab was installed from, is not there anymore; {_HINT}")
    return f"litlab @ {origin['url']}"


def parse_requirement(source: str) -> str:
    """Return a source of litlab as a requirement: a path, a URL, or a requirement as it is.

    Raises:
        UserError: If it is none of these.
    """
    path = Path(source).expanduser()
    if source and path.exists():
        is_source = path.is_dir() and (path / "pyproject.toml").is_file()
        if not is_source and not (path.is_file() and path.name.endswith((".whl", ".tar.gz"))):
            raise UserError(f"--litlab {source}: expected a wheel (.whl), or a folder with a pyproject.toml")
        return f"litlab @ {path.resolve().as_uri()}"
    is_url, is_requirement = bool(_URL.fullmatch(source)), bool(_REQUIREMENT.fullmatch(source))
    if not _SAFE.fullmatch(source) or not (is_url or is_requirement):
        raise UserError(f"--litlab {source}: there is no such file, and it is neither a URL nor a requirement; {_HINT}")
    return f"litlab @ {source}" if is_url else source


def is_local(requirement: str) -> bool:
    """Return whether a requirement can be installed on this machine alone."""
    return "file:" in requirement


def create(folder: Path, answers: Answers) -> None:
    """Make a project, whole or not at all.

    Args:
        folder: New folder, or an empty one.
        answers: Values of the template.

    Raises:
        UserError: If the folder is not empty, or can't be written.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{folder} is a link to nothing; remove it first, or choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another folder")
    if folder.is_dir() and (content := next(folder.iterdir(), None)):
        raise UserError(f"{folder} is not empty, it holds {content.name}; expected a new folder or an empty one")
    if not folder.parent.is_dir():
        raise UserError(f"{folder.parent}: no such folder; create it first")
    try:
        with _rendered(answers, folder if folder.is_dir() else folder.parent) as rendered:
            _write_record(rendered, answers, _read_files(rendered))
            if folder.is_dir():
                _move_content(rendered, folder)
            else:
                rendered.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error.strerror}") from error


def _move_content(source: Path, folder: Path) -> None:
    """Move all entries into an empty folder; after a failure it is as empty as before."""
    moved = []
    try:
        for entry in sorted(source.iterdir()):
            moved.append(folder / entry.name)
            entry.rename(moved[-1])
    except BaseException:
        for entry in moved:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        raise


@contextmanager
def _rendered(answers: Answers, parent: Path | None = None) -> Iterator[Path]:
    """Provide the filled-in template in a temporary folder, on the file system of `parent`."""
    import copier  # takes a second to import

    with TemporaryDirectory(prefix=".litlab-new-", dir=parent) as folder:
        project = Path(folder, "project")
        copier.run_copy(
            str(TEMPLATE), project, data=asdict(answers), settings=copier.Settings(), defaults=True, quiet=True
        )
        yield project


def _read_files(project: Path) -> dict[str, str]:
    """Read a filled-in template: path in the project -> text."""
    paths = sorted(path for path in project.rglob("*") if path.is_file())
    return {path.relative_to(project).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _write_record(project: Path, answers: Answers, files: dict[str, str]) -> None:
    record = {"format": _FORMAT, "litlab": version("litlab"), "answers": asdict(answers), "files": files}
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    unfinished = project / f"{RECORD}.part"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(project / RECORD)


@dataclass(frozen=True)
class Merge:
    """Change of a file by an update.

    Attributes:
        path: Path in the project.
        text: New content; None to remove the file.
        num_conflicts: Number of places that both sides changed, with conflict markers around them.
    """

    path: str
    text: str | None
    num_conflicts: int = 0


def update(folder: Path, requirement: str | None) -> list[Merge]:
    """Merge the changes of the template since the project was made, or updated, into its files.

    Args:
        folder: The project.
        requirement: New requirement of litlab; None for the one of the record.

    Returns:
        The files that have changed.

    Raises:
        UserError: If the folder has no valid record, or a file can't be merged or written; nothing has changed then.
    """
    answers, old = _read_record(folder)
    answers = answers if requirement is None else Answers(answers.name, answers.package, requirement)
    with _rendered(answers) as rendered:
        new = _read_files(rendered)
    merges = [
        merge for path in sorted(old | new) if (merge := _merge(folder, path, old.get(path), new.get(path))) is not None
    ]
    try:
        for merge in merges:
            file = folder / merge.path
            if merge.text is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(merge.text, encoding="utf-8")
        _write_record(folder, answers, new)
    except OSError as error:
        raise UserError(f"{error.filename} can't be written: {error.strerror}") from error
    return merges


def _read_record(folder: Path) -> tuple[Answers, dict[str, str]]:
    """Read the answers and the files that a project was made from; the record may be anybody's."""
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        answers, files = Answers(**record["answers"]), dict(record["files"])
        is_valid = (
            record["format"] == _FORMAT
            and _PACKAGE.fullmatch(answers.package)
            and answers.name == answers.package.replace("_", "-")
            and _SAFE.fullmatch(answers.litlab)
            and all(isinstance(text, str) and _is_inside(path) for path, text in files.items())
        )
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file; expected the folder of a project that litlab new made") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} can't be read: {error}; restore it from your version control") from error
    if not is_valid:
        raise UserError(f"{file} is damaged, or of another version of litlab; restore it from your version control")
    return answers, files


def _is_inside(path: str) -> bool:
    """Return whether a path of the record stays inside the project."""
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts


def _merge(folder: Path, path: str, old: str | None, new: str | None) -> Merge | None:
    """Merge the template's change of a file into the user's; None if it stays as it is."""
    file = folder / path
    try:
        own = file.read_text(encoding="utf-8") if file.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read: {error}") from error
    if new in (old, own):
        return None
    if own == old:
        return Merge(path, new)
    if own is None or new is None:  # a file that the user removed stays away; one that the user changed stays
        return None
    return _merge_texts(path, own, old or "", new)


def _merge_texts(path: str, own: str, old: str, new: str) -> Merge:
    """Merge by git, which puts markers around each place that both sides changed."""
    with TemporaryDirectory(prefix="litlab-update-") as folder:
        files = [Path(folder, side) for side in ("yours", "old", "new")]
        for file, text in zip(files, (own, old, new), strict=True):
            file.write_text(text, encoding="utf-8")
        labels = ["-L", "yours", "-L", "template before", "-L", f"template of litlab {version('litlab')}"]
        command = ["git", "merge-file", "--stdout", *labels, *map(os.fspath, files)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        except FileNotFoundError as error:
            raise UserError(f"{path} was changed here and in the template: install git, which merges them") from error
    if not 0 <= done.returncode < 128:  # the number of conflicts
        raise UserError(f"{path} can't be merged: {done.stderr.strip()}")
    return Merge(path, done.stdout, done.returncode)
