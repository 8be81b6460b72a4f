"""Sphinx extension that writes the reference from the code: commands, config keys, the Python API.

The pages go to docs/reference/, which git ignores. A command comes from its parser, a config key from `config_keys`, a
class from its docstring: what is new there appears here without a change.
"""

import importlib
import re
from argparse import Action, HelpFormatter
from collections.abc import Iterable
from functools import partial
from inspect import getdoc
from pathlib import Path

from config_keys import SHARED, ConfigFile, Key, config_files, config_groups
from sphinx.application import Sphinx

from litlab.cli import main as command_line
from litlab.config.schema import GROUP_SECTIONS, SECTIONS, TRAINER_DECIDED
from litlab.config.validate import MISSING

FOLDER = "reference"
PLACE = "<!-- generated pages -->"  # in reference.md, for the list of the pages
LIST = f"""\
- [Commands]({FOLDER}/commands.md): arguments, notes and exit codes.
- [Config keys]({FOLDER}/config.md): type, range, default and meaning of each, by config group.
- [Python]({FOLDER}/python.md): functions, results, trained networks, classes to subclass."""
USAGE_WIDTH = 80  # columns
_USAGE_LINE = re.compile(r"^  litlab (\w+) .*?\s{3,}(.+)$", re.MULTILINE)  # of litlab --help
# Page of the Python API -> what projects use besides the classes that litlab's configs name.
PYTHON = {
    "litlab": (
        *(f"litlab.{name}" for name in ("train", "results", "load", "UserError", "RunFailed")),
        "litlab.api.Results",
        "litlab.api.RunResult",
        "litlab.inference.predictor.Predictor",
    ),
    "data": (
        "litlab.data.module.ImageDataModule",
        "litlab.data.module.ImageSettings",
        "litlab.data.file_module.FileDataModule",
        "litlab.data.file_module.FileSettings",
        "litlab.data.arrays.ImageArrays",
        "litlab.data.dataset_info.DatasetInfo",
        "litlab.data.loader.Batch",
    ),
    "model": (),
    "task": (),
    "optimizer": (),
    "schedule": (),
    "callbacks": ("litlab.callbacks.predictions.PredictionPicture", "litlab.callbacks.images.CaptionedImages"),
    "logger": (),
    "testing": ("litlab.testing",),
}
MODULES = ("litlab.testing",)  # that are documented as a whole


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources, and list them in reference.md."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", list_pages, priority=400)  # before the list becomes a toctree
    return {"parallel_read_safe": True}


def write_pages(app: Sphinx) -> None:
    """Write the pages that have changed, and remove those that are no more."""
    folder = Path(app.srcdir, FOLDER)
    pages = {folder / f"{name}.md": text for name, text in make_pages().items()}
    for path in set(folder.rglob("*.md")) - pages.keys():
        path.unlink()
    for path, text in pages.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def list_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """List the pages in reference.md."""
    if docname == "reference":
        source[0] = source[0].replace(PLACE, LIST)


def make_pages() -> dict[str, str]:
    """Return the Markdown of each page by its name."""
    return {
        "commands": commands_page(),
        **{f"commands/{name}": command_page(name) for name in command_line.COMMANDS},
        "config": config_page(),
        **{f"config/{page_name(group)}": group_page(group) for group in config_groups()},
        "python": python_page(),
        **{f"python/{name}": python_group_page(name) for name in PYTHON},
    }


# Commands


def commands_page() -> str:
    """List the commands, each with its line of `litlab --help`."""
    summaries = dict(reversed(_USAGE_LINE.findall(command_line.USAGE)))  # of several lines, the first
    lines = [f"- [litlab {name}](commands/{name}.md): {summaries[name]}" for name in command_line.COMMANDS]
    exit_codes = re.search("Exit codes: .+", getdoc(command_line.main) or "", re.DOTALL)
    assert exit_codes is not None, "of litlab.cli.main.main"
    entries = [f"litlab {name} <commands/{name}>" for name in command_line.COMMANDS]
    return page("Commands", "\n".join(lines), exit_codes[0], toctree(entries))


def command_page(name: str) -> str:
    """Describe a command by its parser; `litlab train`, a Hydra app, has a help of its own."""
    module = importlib.import_module(f"litlab.cli.{name}")
    if not hasattr(module, "make_parser"):
        return page(f"litlab {name}", code(module.help_text([])))
    parser = module.make_parser()
    parser.formatter_class = partial(HelpFormatter, width=USAGE_WIDTH)
    arguments = [action for action in parser._actions if action.dest != "help"]
    return page(
        f"litlab {name}",
        markdown(parser.description),
        code(parser.format_usage().removeprefix("usage: ").replace("\n       ", "\n")),
        "## Arguments",
        *(definition(f"`{argument_name(action)}`", markdown(action.help)) for action in arguments),
        "## Notes",
        *paragraphs(parser.epilog.splitlines()),
    )


def argument_name(action: Action) -> str:
    """Return an argument as it is typed, `--format {table,csv}`."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    values = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    return " ".join([action.option_strings[-1], *([] if action.nargs == 0 else [str(action.metavar or values)])])


# Config keys


def page_name(group: str) -> str:
    """Return the name of the page of a group."""
    return group.replace("/", "_")


def config_page() -> str:
    """List the groups with their options, and the keys of conf/config.yaml."""
    rows = [
        f"| [{group}](config/{page_name(group)}.md) | "
        + ", ".join(f"`{file.name}`" for file in config_files(group) if not file.name.startswith(SHARED))
        + " |"
        for group in config_groups()
    ]
    root = ConfigFile()
    return page(
        "Config keys",
        "A key is set by `litlab train KEY=VALUE`, an option of a group is chosen by `litlab train GROUP=OPTION`. "
        "`litlab train --cfg job` prints the config that a command line composes.",
        "## Groups",
        "\n".join(["| group | options |", "|---|---|", *rows]),
        "## Keys outside of groups",
        *map(config_key, root.keys),
        details("conf/config.yaml", code(root.body, "yaml")),
        toctree(f"{group} <config/{page_name(group)}>" for group in config_groups()),
    )


def group_page(group: str) -> str:
    """Describe the options of a group, each with its keys and its YAML."""
    decided = [definition(f"`trainer.{name}`", markdown(text)) for name, text in TRAINER_DECIDED.items()]
    return page(
        f"Config group: {group}",
        f"An option is chosen by `litlab train {group}=OPTION`.",
        *(block for file in config_files(group) for block in option_blocks(file)),
        *(["## Arguments that litlab decides", *decided] if group == "trainer" else []),
    )


def option_blocks(file: ConfigFile) -> list[str]:
    """Describe an option."""
    is_shared = file.name.startswith(SHARED)
    title = f"`{file.group}/{file.name}`" if is_shared else f"`{file.group}={file.name}`"
    parents = ", ".join(f"[{parent.name}](#{anchor(parent)})" for parent in file.parents)
    yaml_block = code(file.body, "yaml")
    name = f"conf/{file.group}/{file.name}.yaml"
    classes = "Class: " + ", ".join(map(class_link, file.targets.values())) if file.targets else ""
    return [
        f"({anchor(file)})=\n## {title}",
        *paragraphs(file.header),
        *([classes] if classes else []),
        *map(config_key, file.keys),
        *([f"Also the keys of {parents}."] if parents else []),
        details(name, yaml_block) if file.keys else yaml_block,
    ]


def anchor(file: ConfigFile) -> str:
    """Return the anchor of an option."""
    return f"{file.group}={file.name}".replace("/", "-").replace("=", "-")


def config_key(key: Key) -> str:
    """Describe a key."""
    default = "required" if key.default == MISSING else f"default `{key.default}`" if key.default else ""
    facts = ", ".join(filter(None, [key.type, default]))
    description = key.description or f"part of `{key.name.rpartition('.')[0]}`"
    return definition(f"`{key.name}` {facts}", markdown(description))


def class_link(target: str) -> str:
    """Return a link to a class or function in the Python API, if it is there."""
    if target not in SECTIONS or not target.startswith("litlab."):
        return f"`{target}`"
    return f"{{py:obj}}`{target}`"


# Python


def python_page() -> str:
    """List the pages of the Python API."""
    return page(
        "Python",
        "`litlab` itself has the functions of scripts and notebooks, `testing` the suites for the tests of a project. "
        "The other pages are named after the config groups: the classes that litlab's configs name, and those that "
        "the classes of a project derive from or return.",
        "\n".join(f"- [{name}](python/{name}.md)" for name in PYTHON),
        toctree(f"{name} <python/{name}>" for name in PYTHON),
    )


def python_group_page(name: str) -> str:
    """Document what a project uses of a group."""
    targets = [*PYTHON[name], *GROUP_SECTIONS.get(name, ())]
    return page(
        f"Python: {name}", *(autodoc(target) for target in dict.fromkeys(targets) if target.startswith("litlab."))
    )


def autodoc(target: str) -> str:
    """Return the directive that documents a class, a function or a module."""
    if target in MODULES:
        return f"```{{eval-rst}}\n.. automodule:: {target}\n   :members:\n```"
    if not target.rpartition(".")[2][0].isupper():
        return f"```{{eval-rst}}\n.. autofunction:: {target}\n```"
    return f"```{{eval-rst}}\n.. autoclass:: {target}\n   :members:\n   :show-inheritance:\n```"


# Markdown


def page(title: str, *blocks: str) -> str:
    """Return a page."""
    return "\n\n".join([f"# {title}", *filter(None, blocks)]) + "\n"


def code(text: str, language: str = "text") -> str:
    """Return a block of code."""
    return f"```{language}\n{text.strip()}\n```"


def details(title: str, block: str) -> str:
    """Return a block that opens with a click."""
    return f"<details><summary><code>{title}</code></summary>\n\n{block}\n\n</details>"


def definition(term: str, text: str) -> str:
    """Return an entry of a definition list."""
    return f"{term}\n: {text}"


def toctree(entries: Iterable[str]) -> str:
    """Return a hidden table of contents."""
    return "\n".join(["```{toctree}", ":hidden:", "", *entries, "```"])


def paragraphs(lines: Iterable[str]) -> Iterable[str]:
    """Yield the paragraphs of plain text with indented blocks, which are code."""
    blocks: list[list[str]] = []
    for line in lines:
        if not line:
            blocks.append([])
        elif blocks and blocks[-1] and blocks[-1][-1].startswith("  ") == line.startswith("  "):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    for block in filter(None, blocks):
        yield code("\n".join(line[2:] for line in block)) if block[0].startswith("  ") else markdown(" ".join(block))


def markdown(text: str) -> str:
    """Escape plain text, but for code between backticks; flags become code, since two hyphens are a dash in text."""
    parts = re.split(r"(`[^`]*`|(?<![\w-])--[a-z][\w-]*)", text)
    escaped = [re.sub(r"([\\`*_<\[\]#{}|])", r"\\\1", part) for part in parts[::2]]
    flags = [f"`{part.strip('`')}`" for part in parts[1::2]]
    return "".join(plain + flag for plain, flag in zip(escaped, [*flags, ""], strict=True))
