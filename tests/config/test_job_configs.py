"""Job configs: composed as Hydra composes them, all problems reported at once, numbers kept."""

import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from support.runs import TINY, compose_master

from litlab.config.config_file import to_yaml
from litlab.config.job_configs import ComposedJob, Point, compose_jobs, match_existing_jobs
from litlab.errors import UserError
from litlab.testing import compose_config as compose_single_run


def jobs_of(loader: ConfigLoader, swept: list[str], *overrides: list[str], **options: Any) -> list[ComposedJob]:
    """Compose the jobs of TINY runs."""
    master = compose_master(loader, *TINY, *(f"++{key}=1,2" for key in swept))
    points = [Point.of([*TINY, *line], swept) for line in overrides]
    return compose_jobs(loader, master, points, **{"existing": {}, "next_number": 0, "progress": False, **options})


def test_a_job_is_what_a_single_run_would_be(loader: ConfigLoader, tmp_path: Path) -> None:
    first, second = jobs_of(loader, ["seed", "optimizer"], ["seed=0", "optimizer=sgd"], ["seed=3", "optimizer=adamw"])
    assert second.config["study"] == {
        "name": None, "snapshot": True, "seeds": None, "swept": ["seed", "optimizer"],
        "ablate": None, "ablate_pairs": False, "ablation": None,
    }  # fmt: skip
    alone = compose_single_run(*TINY, "seed=3", "optimizer=adamw")
    assert second.config | {"study": None} == alone | {"study": None}
    assert [first.number, second.number] == [0, 1]
    assert [first.directory, second.directory] == ["0000_optimizer-sgd_seed-0", "0001_optimizer-adamw_seed-3"]
    assert second.point == {"seed": "3", "optimizer": "adamw"}
    assert second.overrides == (*TINY, "seed=3", "optimizer=adamw")
    assert first.identity != second.identity


def test_threads_of_jobs_stay_open(loader: ConfigLoader) -> None:
    jobs = jobs_of(loader, ["threads"], ["threads=null"], ["threads=2"])
    assert [job.config["threads"] for job in jobs] == [None, 2]
    assert jobs[0].identity != jobs[1].identity, "a volatile key that is swept counts"


def test_known_jobs_keep_their_numbers_and_points_of_one_experiment_share_a_job(loader: ConfigLoader) -> None:
    (existing,) = jobs_of(loader, ["seed"], ["seed=1"])
    points = [["seed=0"], ["seed=1"], ["seed=0"], ["seed=2"]]
    jobs = jobs_of(loader, ["seed"], *points, existing={existing.identity: (4, "0004_mine")}, next_number=7)
    assert [(job.number, job.directory) for job in jobs] == [
        (7, "0007_seed-0"), (4, "0004_mine"), (7, "0007_seed-0"), (8, "0008_seed-2"),
    ]  # fmt: skip
    assert jobs[0] is jobs[2]


def test_a_job_whose_config_refers_to_its_number_is_found_again(
    loader: ConfigLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    master = compose_master(loader, *TINY, "optimizer.lr=1,2,3")
    records: dict[int, tuple[str, ...]] = {}
    existing: dict[str, tuple[int, str]] = {}

    def numbers(*overrides: list[str]) -> list[int]:
        swept = ["optimizer.lr"] if not existing else ["optimizer.lr", "model.hidden"]
        points = [Point.of([*TINY, "seed=${hydra:job.num}", *line], swept) for line in overrides]
        points = match_existing_jobs(points, records, ["optimizer.lr"])
        jobs = compose_jobs(loader, master, points, existing, len(existing), progress=False)
        assert [job.config["seed"] for job in jobs] == [job.number for job in jobs]
        if not existing:
            records.update({job.number: job.overrides for job in jobs})
            existing.update({job.identity: (job.number, job.directory) for job in jobs})
        return [job.number for job in jobs]

    def line(lr: int, hidden: int) -> list[str]:
        return [f"optimizer.lr={lr}", f"model.hidden=[{hidden}]"]

    assert numbers(line(1, 3), line(2, 3)) == [0, 1]
    assert numbers(line(3, 3), line(2, 3), line(1, 4), line(1, 3)) == [2, 1, 3, 0]
    assert numbers([*line(2, 3), "data.batch_size=8"]) == [2], "another experiment gets a number of its own"


def test_all_problems_are_reported_once(loader: ConfigLoader) -> None:
    points = [[f"seed={seed}", f"optimizer.lr={lr}"] for seed in (-1, 0, 1) for lr in (0.1, -2)]
    with pytest.raises(UserError) as refused:
        jobs_of(loader, ["seed", "optimizer.lr"], *points)
    lines = str(refused.value).splitlines()
    assert "seed=-1: expected greater than or equal to 0 (in 2 of 6 jobs: seed=-1 optimizer.lr=0.1 and 1 more)" in lines
    assert "optimizer.lr=-2: expected greater than 0 (in 3 of 6 jobs: seed=-1 optimizer.lr=-2 and 2 more)" in lines
    assert len(lines) == 3, "the third is data.seed, which follows seed"


def test_hydras_errors_are_reported_with_the_others(loader: ConfigLoader) -> None:
    points = [["seed=-1"], ["+modle.width=3", "~modle"], ["model=nope"], ["seed=0"]]
    with pytest.raises(UserError) as refused:
        jobs_of(loader, ["seed", "model"], *points)
    text = str(refused.value)
    known = "cnn, resnet18, timm, torchvision, whitened"
    assert f"model=nope: no such config; known: {known} (in 1 of 4 jobs: model=nope)" in text
    assert "seed=-1: expected greater" in text


def test_of_many_problems_the_first_are_reported(loader: ConfigLoader) -> None:
    with pytest.raises(UserError) as refused:
        jobs_of(loader, ["seed"], *([f"seed={-seed}"] for seed in range(1, 16)))
    lines = str(refused.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 10 more problems"


def test_one_process_checks_the_foreign_classes_of_all_jobs(
    loader: ConfigLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count imports in the module itself."""
    (tmp_path / "mine.py").write_text(
        f"open({str(tmp_path / 'seen')!r}, 'a').write('x')\nclass Model:\n    def __init__(self, width): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    points = [
        ["+callbacks.mine._target_=mine.Model", f"+callbacks.mine.{name}=1", f"seed={s}"]
        for name in ("width", "wide")
        for s in (0, 1)
    ]
    with pytest.raises(UserError) as refused:
        jobs_of(loader, ["seed", "callbacks.mine.width", "callbacks.mine.wide"], *points)
    assert (tmp_path / "seen").read_text() == "x"
    lines = str(refused.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("callbacks.mine.wide: mine.Model takes no argument 'wide'")
    assert lines[0].endswith("(in 2 of 4 jobs: callbacks.mine.wide=1 seed=0 and 1 more)")


@pytest.mark.parametrize(
    ("subdir", "message"),
    [("same", "two jobs would share the folder same"), ("../up_${hydra:job.num}", "a folder inside the study's")],
)
def test_each_job_has_its_own_folder_inside_the_study(subdir: str, message: str, loader: ConfigLoader) -> None:
    master = compose_master(loader, *TINY, f"hydra.sweep.subdir={subdir}", "seed=0,1")
    with pytest.raises(UserError, match=message):
        compose_jobs(loader, master, [Point.of([*TINY, f"seed={s}"], ["seed"]) for s in (0, 1)], {}, 0, progress=False)


def test_hydras_own_keys_are_as_in_a_job(loader: ConfigLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = HydraConfig.instance().cfg
    job = jobs_of(loader, ["seed"], ["name=${hydra:job.num}_x", "seed=0"], next_number=3)[0]
    assert job.config["name"] == "3_x"
    assert HydraConfig.instance().cfg is before
    record = {name: OmegaConf.create(text) for name, text in job.hydra.items()}
    assert set(record) == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert OmegaConf.to_container(record["overrides.yaml"]) == [*TINY, "name=${hydra:job.num}_x", "seed=0"]
    assert record["hydra.yaml"].hydra.job.num == 3
    output = OmegaConf.to_container(record["hydra.yaml"])["hydra"]["runtime"]["output_dir"]
    assert Path(output).parent.parent.parent == tmp_path / "outputs"
    assert Path(output).name == job.directory
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integrations
def test_composing_jobs_is_fast(loader: ConfigLoader) -> None:
    """Compose and freeze jobs in at most 1.2 x the time that Hydra takes to compose them (measured: 0.2)."""
    points = [[f"seed={seed}"] for seed in range(6)]
    master = compose_master(loader, *TINY, "seed=0,1")
    jobs_of(loader, ["seed"], points[0])
    of_hydra, of_litlab = [], []
    for _ in range(3):
        started = time.process_time()
        for point in points:
            loader.load_sweep_config(master, [*TINY, *point])
        composed = time.process_time()
        for job in jobs_of(loader, ["seed"], *points):
            to_yaml(job.config)
        of_hydra.append(composed - started)
        of_litlab.append(time.process_time() - composed)
    assert min(of_litlab) <= 1.2 * min(of_hydra)
