"""Make a project folder of the user's own, or update it to the template of this litlab."""

import shlex
from argparse import ArgumentParser
from pathlib import Path

from litlab.cli.arguments import new_parser
from litlab.errors import UserError
from litlab.project import Answers, create, installed_litlab, is_local, package_name, parse_requirement, update
from litlab.runs.terminal import printable

NOTES = """\
The project has a network, a data set and a task of its own with their configs, an experiment, a study, tests, and a
Makefile: `make train` and `make test` install into .venv what they need. Its package is named after the folder.

litlab is on no package index, so pyproject.toml names a source of it: by default the one that this litlab was installed
from. Another machine needs a source that it can read, such as a git URL.

--update merges the changes of the template into the project, with conflict markers where both changed. Commit before.

examples:
  litlab new myproject
  litlab new myproject --litlab git+https://git.example.org/litlab.git@v0.2.0
  litlab new myproject --litlab ~/Downloads/litlab-0.2.0-py3-none-any.whl
  litlab new --update
"""


def main(arguments: list[str]) -> None:
    """Make or update a project, and print what comes next.

    Raises:
        UserError: If the name, the folder or the source of litlab can't be used.
    """
    options = make_parser().parse_args(arguments)
    if options.update:
        _update(Path(options.path or "."), options.litlab)
        return
    if not options.path:
        raise UserError("name the folder of the new project: litlab new myproject")
    _create(Path(options.path), options.litlab)


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("new", "Make a project folder of your own, or update it.", NOTES)
    parser.add_argument("path", metavar="PATH", nargs="?", help="the new folder; with --update, default: this one")
    parser.add_argument("--litlab", metavar="SPEC", help="a wheel, a folder of sources, a URL or a requirement")
    parser.add_argument("--update", action="store_true", help="merge changes of the template into a project")
    return parser


def _create(path: Path, source: str | None) -> None:
    folder = path.expanduser().absolute()
    name = folder.resolve().name if path.name in ("", "..") else folder.name
    package = package_name(name)
    requirement = installed_litlab() if source is None else parse_requirement(source)
    create(folder, Answers(name=package.replace("_", "-"), package=package, litlab=requirement))
    steps = ["make train", "make test"]
    if folder.resolve() != Path.cwd():
        steps.insert(0, f"cd {shlex.quote(str(path))}")
    print(printable(f"Made {path}, with the package {package}. Next:"))
    print("".join(f"\n    {printable(step)}" for step in steps), end="\n\n")
    if is_local(requirement):
        print(
            "pyproject.toml names a litlab on this machine; other machines and CI need one at a URL:\n"
            "litlab new --update --litlab git+https://..."
        )


def _update(folder: Path, source: str | None) -> None:
    merges = update(folder, None if source is None else parse_requirement(source))
    for merge in merges:
        conflicts = f"  {merge.num_conflicts} conflict{'s' * (merge.num_conflicts > 1)}" if merge.num_conflicts else ""
        print(printable(f"{'removed' if merge.text is None else 'updated'}  {merge.path}{conflicts}"))
    num_conflicts = sum(merge.num_conflicts for merge in merges)
    if num_conflicts:
        print("Search for <<<<<<< and choose between the two sides, then run make test.")
    elif not merges:
        print("The project has the template of this litlab already.")
