"""Configs of a user's own project: mistakes in them are named with file, line and remedy; resolvers of one's own."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.runs import TINY

Call = Callable[..., tuple[int, str, str]]
HEADER = "# @package _global_\n"


def project(folder: Path, **files: str) -> Path:
    """Write `conf/<group>/mine.yaml` for each keyword, or `conf/<name>` for a name with a suffix."""
    for name, text in files.items():
        file = folder / "conf" / (name if "." in name else f"{name}/mine.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("defaults:\n  - override /model: resnet18\n", "its first line has to be `# @package _global_`; without it"),
        ("trainer:\n  max_epochs: 3\n", "its first line has to be `# @package _global_`; without it"),
        (
            f"{HEADER}defaults:\n  - override /modell: resnet18\n",
            "override /modell: there is no such group; did you mean",
        ),
        (f"{HEADER}defaults:\n  - override model: resnet18\n", "override model: groups begin with a slash; write `ov"),
        (f"{HEADER}name: x\nmodel:\n\twidth: 3\n", "cannot be read as YAML: found character '\\t'"),
        (f"{HEADER}data: [1, 2]\n", ""),
    ],
    ids=["no header, override", "no header, keys", "typo", "no slash", "tab", "a list for a mapping"],
)
def test_an_experiment_with_a_mistake_is_named(text: str, expected: str, tmp_path: Path, call_here: Call) -> None:
    project(tmp_path, experiment=text)
    code, output, errors = call_here(tmp_path, "train", *TINY, "experiment=mine", "--dry-run")
    assert (code, output) == (1, "")
    assert re.match(rf"litlab: conf/experiment/mine\.yaml(, line \d+)?: {re.escape(expected)}", errors), errors
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


def test_the_line_of_each_wrong_value_is_named(tmp_path: Path, call_here: Call) -> None:
    """Keys that are not indented, in YAML that is valid; a value in the config of a group; one of the command line."""
    project(
        tmp_path,
        experiment=f"{HEADER}checkpoint:\nevery_steps: 3\ndata:\n  flip: 3\n",
        optimizer="_target_: torch.optim.SGD\n\nlr: -1\n",
    )
    arguments = ("experiment=mine", "optimizer=mine", "data.flip=4", "--dry-run")
    code, _, errors = call_here(tmp_path, "train", *TINY, *arguments)
    lines = [line.removeprefix("litlab:").strip() for line in errors.splitlines()]
    assert code == 1
    for expected in (
        "conf/experiment/mine.yaml, line 2: checkpoint=null: expected",
        "conf/experiment/mine.yaml, line 3: every_steps: unknown key; ",
        "conf/optimizer/mine.yaml, line 3: optimizer.lr=-1: expected greater than 0",
        "data.flip=4: expected",
    ):
        assert any(line.startswith(expected) for line in lines), (expected, lines)


def test_the_root_config_of_another_program_is_named(tmp_path: Path, call_here: Call) -> None:
    project(tmp_path, **{"config.yaml": "defaults:\n  - _self_\n  - db: mysql\nlr: 0.1\n"})
    for arguments in (["--help"], [*TINY]):
        code, output, errors = call_here(tmp_path, "train", *arguments)
        assert (code, output) == (1, "")
        assert errors.startswith("litlab: conf/config.yaml replaces litlab's own config.yaml, but has no key `format`")
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.fixture
def _own_resolvers() -> object:
    """Forget resolvers of a project after the test: OmegaConf keeps them for the process."""
    yield
    for name in ("mul", "channels"):
        OmegaConf.clear_resolver(name)


@pytest.mark.usefixtures("_own_resolvers")
def test_functions_in_conf_resolvers_are_resolvers(tmp_path: Path, call_here: Call) -> None:
    resolvers = (
        "from functools import cache\nfrom pathlib import Path\nfrom ownfactor import FACTOR\n\n_BASE = 2\n\n"
        "def mul(a, b):\n    return a * b * FACTOR\n\n"
        "@cache\ndef channels(n):\n    return [_base() * i for i in range(1, n + 1)]\n\n"
        "def _base():\n    return _BASE\n"
    )
    (tmp_path / "ownfactor.py").write_text("FACTOR = 10\n")
    model = "_target_: litlab.models.cnn.CNN\nwidths: ${channels:2}\nhidden: ['${mul:4,${seed}}']\n"
    project(tmp_path, **{"resolvers.py": resolvers, "model": model})
    tiny = [override for override in TINY if not override.startswith("model")]
    code, output, errors = call_here(
        tmp_path, "train", *tiny, "model=mine", "seed=3", "hydra.run.dir=run", "--freeze-only"
    )
    assert (code, errors) == (0, ""), output
    config = OmegaConf.to_container(OmegaConf.load(tmp_path / "run" / "config.yaml"))
    assert config["model"] == {"_target_": "litlab.models.cnn.CNN", "widths": [2, 4], "hidden": [120]}
    assert "${mul:" in (tmp_path / "run" / ".hydra" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 / 0\n", "conf/resolvers.py: importing it raised ZeroDivisionError: division by zero"),
        ("def f(:\n", "conf/resolvers.py: importing it raised SyntaxError"),
        ("def now():\n    pass\n", "conf/resolvers.py: ${now:} is a resolver of Hydra; give the function another name"),
    ],
)
def test_resolvers_that_cannot_be_used(text: str, expected: str, tmp_path: Path, call_here: Call) -> None:
    project(tmp_path, **{"resolvers.py": text})
    code, output, errors = call_here(tmp_path, "train", *TINY, "--dry-run")
    assert (code, output, errors[: len(expected) + 8]) == (1, "", f"litlab: {expected}")
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]
