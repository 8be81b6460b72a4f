"""litlab as its users have it: installed from its wheel, in a folder with a package and configs of their own."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from support.composed_jobs import contents

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations
CHECKOUT = Path(__file__).parents[2]
FILES = {
    "mypkg/__init__.py": "",
    "mypkg/net.py": """\
from torch import Tensor, nn


class MyNet(nn.Module):
    def __init__(self, *, image_shape, num_classes, width):
        super().__init__()
        c, h, w = image_shape
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
""",
    "conf/model/mynet.yaml": "_target_: mypkg.net.MyNet\nwidth: 12\n",
    "conf/data/few.yaml": "defaults: [shapes]\nnum_train: 100\nnum_test: 30\nval_size: 20\nbatch_size: 16\n",
    "conf/schedule/constant.yaml": """\
_target_: litlab.optim.schedules.cosine
interval: step
warmup: 0.5
final: 0.125
""",
    "conf/experiment/mine.yaml": """\
# @package _global_
defaults:
  - override /data: few
  - override /model: mynet
  - override /schedule: constant
  - override /trainer: cpu
name: mine
trainer:
  max_epochs: 1
  devices: 2
""",
}
# Uses of a finished run, in a process that gets nothing but its directory.
USING = """
import sys, torch, litlab
from litlab.cli.main import main
predictor = litlab.load(sys.argv[1])
print(type(predictor.network).__module__, predictor(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape[1])
sys.argv = ["litlab", "evaluate", sys.argv[1], "--json"]
main()
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install litlab's wheel into a virtual environment that takes its dependencies from this one by a path file."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    uv = shutil.which("uv", path=search)
    assert uv, "`make install` installs it"
    install = [uv, "pip", "install", "-q", "--offline", "--no-deps", "--python", str(venv / "bin" / "python")]
    subprocess.run([*install, str(wheel)], check=True)
    (_site_packages(venv) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def trained(environment: Path, project: Path) -> RunDirectory:
    """`litlab train experiment=mine`, on two ranks; Hydra's changing of the folder changes nothing."""
    done = _call(project, environment / "bin" / "litlab", "train", "experiment=mine", "hydra.job.chdir=true")
    assert done.returncode == 0, done.stderr
    (path,) = (project / "outputs" / "mine").iterdir()
    return RunDirectory(path)


def test_the_wheel_brings_the_configs_of_the_checkout(environment: Path) -> None:
    configs = contents(CHECKOUT / "conf")
    assert contents(_site_packages(environment) / "litlab" / "conf") == configs
    assert len(configs) > 20


def test_a_project_trains_its_own_network_on_its_own_settings(trained: RunDirectory) -> None:
    config = trained.read_config()
    assert read_result(trained)["status"] == "completed"
    assert trained.read_json(trained.provenance)["project"] == str(trained.path.parents[2])
    assert read_result(trained)["parameters"] == (3072 + 1) * 12 + (12 + 1) * 10
    assert config["model"] == {"_target_": "mypkg.net.MyNet", "width": 12}
    assert (config["data"]["num_train"], config["data"]["flip"]) == (100, True)  # of the project's YAML, of litlab's
    shadowing = {"_target_": "litlab.optim.schedules.cosine", "interval": "step", "warmup": 0.5, "final": 0.125}
    assert config["schedule"] == shadowing, "a config of the project shadows one of litlab"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the project", "from another folder"])
def test_the_run_can_be_used(
    elsewhere: bool, environment: Path, project: Path, trained: RunDirectory, tmp_path: Path
) -> None:
    folder, path = (tmp_path, trained.path) if elsewhere else (project, trained.path.relative_to(project))
    done = _call(folder, environment / "bin" / "python", "-c", USING, str(path))
    assert done.returncode == 0, done.stderr
    loaded, _, evaluated = done.stdout.partition("\n")
    assert loaded == "mypkg.net 10"
    test = read_result(trained)["test"]
    assert yaml.safe_load(evaluated)["metrics"]["test/accuracy"] == test["test/accuracy"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(1200)
def test_a_new_project_trains_and_passes_its_tests(environment: Path, tmp_path: Path) -> None:
    """`litlab new` of the wheel, then `make train` and `make test`, which install everything anew."""
    project = tmp_path / "My Project"
    done = _call(tmp_path, environment / "bin" / "litlab", "new", project.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r'^    "litlab @ file:///.+\.whl",$', (project / "pyproject.toml").read_text(), re.MULTILINE)
    trained, tested = (_call(project, "make", target, timeout=1000) for target in ("train", "test"))
    assert trained.returncode == 0, trained.stdout + trained.stderr
    (path,) = (project / "outputs" / "gratings").iterdir()
    assert read_result(RunDirectory(path))["best"]["val/accuracy"] > 0.5  # of eight classes
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert re.search(r"^\d+ passed", tested.stdout, re.MULTILINE)
    with RunDirectory(path).config.open() as config:
        assert yaml.safe_load(config)["model"]["_target_"] == "my_project.model.ConvNet"


def _site_packages(venv: Path) -> Path:
    (packages,) = venv.glob("lib/python3*/site-packages")
    return packages


def _call(folder: Path, *command: object, timeout: float = 250) -> "subprocess.CompletedProcess[str]":
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*map(str, command)], cwd=folder, env=own, capture_output=True, text=True, timeout=timeout)
