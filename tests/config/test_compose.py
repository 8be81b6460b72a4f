"""Composition: names of directories, resolvers, and a composer that returns what Hydra returns."""

import re
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from support.runs import compose_master

from litlab.config.compose import (
    Composer,
    RunLoader,
    job_name,
    record_swept_overrides,
    register_resolvers,
    swept_overrides,
)


@pytest.mark.parametrize(
    ("number", "overrides", "expected"),
    [
        (0, "seed=0", "0000_seed-0"),
        (7, "optimizer.lr=0.1,seed=3", "0007_lr-0.1_seed-3"),
        (12345, "", "12345"),
        (3, "model=resnet18", "0003_model-resnet18"),
        (3, "model.widths=[3,16],seed=1", "0003_widths-3-16_seed-1"),
        (3, "+data.classes=[a,b=c]", "0003_classes-a_b-c"),
        (3, "~model", "0003_model"),
        (3, "++optimizer.lr=1e-3", "0003_lr-1e-3"),
        (3, "name='a b/c'", "0003_name-a-b-c"),
        (4, "optimizer.lr=0.011419903234645812,x=1.52e-05", "0004_lr-0.01142_x-1.52e-05"),
        (3, "data.root=/some/path/x", "0003_root-some-path-x"),
    ],
)
def test_job_names(number: int, overrides: str, expected: str) -> None:
    assert job_name(number, overrides, []) == expected


@pytest.mark.parametrize(
    "overrides", ["a=${b:c},d={e: [1,2]}", "x=" + "y" * 500, "k=ä ö/ü", 'k="q\'q"', "k=a=b", "k=*?!;$(x)"]
)
def test_job_names_are_safe_for_file_systems_and_overrides(overrides: str) -> None:
    assert re.fullmatch(r"0001(_[A-Za-z0-9_.+-]*)?", job_name(1, overrides, []))
    assert len(job_name(1, overrides, [])) <= 120
    assert not job_name(1, overrides, []).endswith((".", "-", "_"))


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"data": "cifar10", "model": "cnn"}, "cifar10_cnn"),
        ({"data": "mine/few", "model": "cnn"}, "mine_few_cnn"),
        ({"data": "few", "model": None}, "few"),
    ],
)
def test_experiment_name_holds_the_chosen_configs(choices: dict[str, str | None], expected: str) -> None:
    register_resolvers()
    config = OmegaConf.create({"name": "${litlab.name:}", "hydra": {"runtime": {"choices": choices}}})
    assert config.name == expected


def test_named_studies_keep_their_directory_others_get_a_new_one() -> None:
    register_resolvers()
    config = OmegaConf.create({"name": "abc", "study": None, "dir": "${litlab.study:${study},now}"})
    unnamed = config.dir
    assert re.fullmatch(r"abc/multirun_now_[0-9a-f]{6}", unnamed)
    config.name = "def"
    assert config.dir == unnamed, "jobs of other names stay together"
    again = OmegaConf.create({"name": "abc", "study": None, "dir": "${litlab.study:${study},now}"})
    assert again.dir != unnamed, "two of one second"
    hydra = {"runtime": {"choices": {"data": "cifar10", "model": "cnn"}}, "overrides": {"task": []}}
    own = OmegaConf.create({"name": "${nowhere}", "dir": "${litlab.study:null,now}", "hydra": hydra})
    assert own.dir.startswith("cifar10_cnn/multirun_now"), "each job has a name of its own"
    config.study = "mine"
    assert config.dir == "mine"


def test_a_run_has_one_id() -> None:
    register_resolvers()
    config = OmegaConf.create({"a": "${litlab.id:}"})
    assert re.fullmatch(r"[0-9a-f]{6}", config.a)
    assert config.a == config.a


def test_job_names_hold_swept_keys_only() -> None:
    overrides = "+optimizer.eps=1,model=cnn,seed=3,trainer=cpu"
    assert job_name(2, overrides, ["seed", "+optimizer.eps"]) == "0002_eps-1_seed-3"


def test_swept_keys_are_found_in_the_multirun() -> None:
    register_resolvers()
    task = ["seed=0,1", "model=cnn", "model@net1=cnn,resnet18", "optimizer.lr=choice(1,2)"]
    job = {"override_dirname": "model=cnn,model@net1=cnn,optimizer.lr=1,seed=2"}
    hydra = {"overrides": {"task": task}, "sweeper": {"params": None}, "job": job}
    config = OmegaConf.create({"name": "n", "dir": "${litlab.study:null,now}", "hydra": hydra})
    config.job = "${litlab.job:3}"
    assert config.dir.startswith("n/multirun_now")
    assert config.job == "0003_model-net1-cnn_lr-1_seed-2"


def test_finding_swept_keys_resolves_no_interpolations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values may be secrets, known in a job only, or look like another override."""
    monkeypatch.setenv("CANARY", "hunter22,seed=5(")
    register_resolvers()
    task = ["name=${oc.env:CANARY}", "+callbacks.x.token='${oc.env:CANARY}','${oc.env:OTHER}'", "data.root=${.x}"]
    job = {"override_dirname": "callbacks.x.token=${oc.env:CANARY},data.root=${.x}"}
    hydra = {"overrides": {"task": task}, "sweeper": {"params": {"model.width": "${nowhere}"}}, "job": job}
    config = OmegaConf.create({"name": "n", "hydra": hydra, "job": "${litlab.job:3}"})
    record_swept_overrides(config)
    assert swept_overrides(config) == ["callbacks.x.token", "model.width"]
    assert config.job == "0003_token-oc.env-CANARY"


@pytest.mark.integrations
@pytest.mark.parametrize(
    "overrides",
    [
        ["data=shapes", "seed=3"],
        ["seed=0x10", "data=shapes", "+data.extra={a: [1,2]}", "model.widths=[1,2]", "name='a b'"],
        ["data=shapes", "trainer=ddp", "trainer.devices=2", "~schedule", "~callbacks.training_log"],
        ["experiment=tutorial", "seed=1"],
        ["+model@other=cnn", "other.hidden=[3]"],
        ["data=shapes", "hydra.job.name=mine", "hydra/launcher=pool"],
        ["data={batch_size: 3}", "++optimizer.lr=1e-3", "model.hidden=${model.widths}"],
        [],
    ],
)
def test_composer_returns_what_hydra_composes(overrides: list[str], loader: ConfigLoader) -> None:
    master = compose_master(loader, "hydra.launcher.jobs=2", "data=shapes")
    composer = Composer(loader, master)
    for _ in range(2):  # the second from a copy alone
        expected, composed = loader.load_sweep_config(master, overrides), composer.compose(overrides)
        assert OmegaConf.to_container(composed) == OmegaConf.to_container(expected)
        assert OmegaConf.get_type(composed, "hydra") is OmegaConf.get_type(expected, "hydra")
        assert OmegaConf.is_struct(composed)
        assert OmegaConf.get_cache(composed) == OmegaConf.get_cache(expected)
        composed.seed = 77  # must not change the copy that the next job is made from


@pytest.mark.integrations
@pytest.mark.parametrize(
    "wrong", ["optimiser.lr=1", "model=nope", "optimizer.lr.x=1", "+seed=1", "~nothing", "seed=(0"]
)
def test_composer_raises_what_hydra_raises(wrong: str, loader: ConfigLoader) -> None:
    master = compose_master(loader)
    with pytest.raises(Exception) as expected:  # noqa: PT011 -- whichever it is
        loader.load_sweep_config(master, [wrong])
    with pytest.raises(type(expected.value)) as raised:
        Composer(loader, master).compose([wrong])
    assert str(raised.value) == str(expected.value)


RUN = ["data=shapes", "seed=3"]


def run_by(loader: ConfigLoaderImpl, overrides: list[str]) -> DictConfig:
    """Compose as Hydra does for a command without a flag: it looks up the mode, and composes the run."""
    hydra, overrides = Hydra("litlab", loader), [*overrides]
    if hydra.get_mode("config", overrides) is None:
        overrides.append("hydra.mode=RUN")
    return hydra.compose_config("config", overrides, RunMode.RUN)


@pytest.fixture
def run_loader(loader: ConfigLoaderImpl, monkeypatch: pytest.MonkeyPatch) -> RunLoader:
    monkeypatch.setattr(sys, "argv", ["litlab train"])
    return RunLoader(loader.config_search_path)


@pytest.mark.parametrize("overrides", [RUN, [*RUN, "hydra.mode=RUN"], ["experiment=quickstart", "hydra/launcher=pool"]])
def test_a_run_is_composed_once_as_hydra_composes_it(
    overrides: list[str], loader: ConfigLoaderImpl, run_loader: RunLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_by(loader, overrides)
    composing = Mock(wraps=run_loader._load_configuration_impl)
    monkeypatch.setattr(run_loader, "_load_configuration_impl", composing)
    composed = run_by(run_loader, overrides)
    assert OmegaConf.to_container(composed) == OmegaConf.to_container(expected)
    assert OmegaConf.is_struct(composed)
    assert composing.call_count == 1


@pytest.mark.parametrize("wrong", ["optimiser.lr=1", "model=nope", "seed=0,1", "seed=(0"])
def test_a_wrong_run_raises_what_hydra_raises(wrong: str, loader: ConfigLoaderImpl, run_loader: RunLoader) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 -- whichever it is
        run_by(loader, [wrong])
    with pytest.raises(type(expected.value)) as raised:
        run_by(run_loader, [wrong])
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize(
    ("flags", "overrides"),
    [(["-m"], ["seed=0,1"]), ([], ["seed=0,1", "hydra.mode=MULTIRUN"]), ([], ["study=search_lr"])],
)
def test_a_multirun_is_composed_as_by_hydra(
    flags: list[str],
    overrides: list[str],
    loader: ConfigLoaderImpl,
    run_loader: RunLoader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["litlab train", *flags])
    modes = [Hydra("litlab", by).get_mode("config", overrides) for by in (loader, run_loader)]
    assert modes == [None if flags else RunMode.MULTIRUN] * 2
    expected, composed = (by.load_configuration("config", overrides, RunMode.MULTIRUN) for by in (loader, run_loader))
    assert OmegaConf.to_container(composed) == OmegaConf.to_container(expected)


def test_composer_reads_other_search_paths(loader: ConfigLoader, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "one.yaml").write_text("value: 1")
    master = compose_master(loader, f"hydra.searchpath=[file://{tmp_path}]")
    assert Composer(loader, master).compose(["+more=one"]).more == {"value": 1}
