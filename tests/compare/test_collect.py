"""Runs below directories: their discovery, their files, and the report of damaged ones."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from support.studies import config_with, make_run, make_study

from litlab.compare.collect import collect
from litlab.compare.comparison import compare
from litlab.compare.data_model import Objective
from litlab.errors import UserError
from litlab.runs.files import write_json

LR = "optimizer.lr"


def constant(point: dict[str, object]) -> float:
    return 0.5


def test_fields_of_a_run(tmp_path: Path) -> None:
    (run, _) = make_study(tmp_path / "s", {LR: [0.1, 0.2], "seed": [3]}, constant, test_accuracy=0.25)
    (collected, _), skipped = collect([tmp_path / "s"])
    assert (collected.path, collected.name, collected.study) == (run.path, "0000_lr-0.1_seed-3", tmp_path / "s")
    assert (collected.status, collected.seed, collected.objective) == ("completed", 3, Objective("val/accuracy", "max"))
    assert collected.choices == {LR: "0.1", "seed": "3"}
    assert (collected.best["val/accuracy"], collected.test["test/accuracy"], collected.data) == (0.5, 0.25, "d" * 64)
    assert (collected.epochs, collected.steps, collected.parameters) == (2, 20, 1254)
    assert (collected.training_seconds, collected.images_per_second) == (5.0, 1000.0)
    assert collected.settings[LR] == 0.1
    assert collected.settings["model.widths"] == [2, 4]
    assert not collected.settings.keys() & {"seed", "data.seed", "name", "format", "study.name", "trainer.devices"}
    assert skipped == []


def test_studies_folders_and_runs_each_once(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {"seed": [0, 1]}, constant)
    shutil.copytree(tmp_path / "s" / "0000_seed-0", tmp_path / "s" / "2026-01-31_12-00-00_1a2b3c")  # run again: no job
    make_run(tmp_path / "outputs" / "net" / "first", {"seed": 7}, 0.5)
    (tmp_path / "link").symlink_to(tmp_path / "s")
    runs, skipped = collect([tmp_path / "s", tmp_path / "outputs", tmp_path / "s" / "0001_seed-1", tmp_path / "link"])
    assert [run.name for run in runs] == ["s/0000_seed-0", "s/0001_seed-1", "outputs/net/first"]
    assert [run.study for run in runs] == [tmp_path / "s", tmp_path / "s", None]
    assert skipped == []
    single, _ = collect([tmp_path / "outputs" / "net" / "first"])
    assert [run.name for run in single] == ["first"]


def test_status_of_runs(tmp_path: Path) -> None:
    for status in ("failed", "pruned", "interrupted", "refused"):
        make_run(tmp_path / status, {}, 0.5, status=status)
    begun = make_run(tmp_path / "begun", {}, 0.5)
    begun.result.unlink()
    runs, _ = collect([tmp_path])
    assert {run.name: run.status for run in runs} == {
        "begun": "interrupted", "failed": "failed", "interrupted": "interrupted", "pruned": "pruned",
        "refused": "refused",
    }  # fmt: skip
    assert next(run.message for run in runs if run.status == "failed") == "made to be failed"


ALIASES = b"a: &a [1, 2]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)
CONFIGS = {
    "no YAML": b"{{",
    "no mapping": b"- 1\n",
    "bytes": b"\xff\xfe\x00",
    "too deep for the parser": b"[" * 100_000,
    "deep": b"a: " + b"[" * 1000 + b"]" * 1000,
    "aliases": ALIASES,
    "itself": b"a: &a\n  b: *a\n",
    "keys": b"1: 2\n",
    "a date": b"a: 2026-01-31\n",
    "long": b"#" * (1 << 20) + b"\na: 1\n",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_damaged_configs_are_named_and_skipped(name: str, tmp_path: Path) -> None:
    make_run(tmp_path / "good", {}, 0.5)
    damaged = make_run(tmp_path / "bad", {}, 0.5)
    damaged.config.write_bytes(CONFIGS[name])
    runs, (skipped,) = collect([tmp_path])
    assert [run.name for run in runs] == ["good"]
    assert skipped.path == damaged.path
    assert skipped.reason


FOREIGN = "its config.yaml was not written by litlab: it has no key `format` with a number"


@pytest.mark.parametrize("config", ["site_name: x\n", "format: html\n", "format: true\nday: 2026-01-31\n"])
def test_a_config_of_another_program_is_no_run(config: str, tmp_path: Path) -> None:
    make_run(tmp_path / "good", {}, 0.5)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "config.yaml").write_text(config)
    runs, (skipped,) = collect([tmp_path])
    assert [run.name for run in runs] == ["good"]
    assert (skipped.path, skipped.reason) == (tmp_path / "site", FOREIGN)


def test_damaged_results_and_studies_are_named_and_skipped(tmp_path: Path) -> None:
    make_run(tmp_path / "good", {}, 0.5)
    for name, content in {"text": "{", "nested": "[" * 100_000, "long": " " * (1 << 20) + "{}"}.items():
        make_run(tmp_path / f"result_{name}", {}, 0.5).result.write_text(content)
    pipe = make_run(tmp_path / "result_pipe", {}, 0.5)
    pipe.result.unlink()
    os.mkfifo(pipe.result)
    make_study(tmp_path / "study_jobs", {"seed": [0]}, constant)
    (tmp_path / "study_jobs" / "jobs.jsonl").write_text("{}\n")
    make_study(tmp_path / "study_plan", {"seed": [0]}, constant)
    (tmp_path / "study_plan" / "study.yaml").write_text("[" * 100_000)
    make_study(tmp_path / "study_without_job", {"seed": [0]}, constant)
    shutil.rmtree(tmp_path / "study_without_job" / "0000_seed-0")
    make_study(tmp_path / "study_without_jobs", {"seed": [0]}, constant)
    (tmp_path / "study_without_jobs" / "jobs.jsonl").write_text("")
    (tmp_path / "notes" / "deeper" / "folder").mkdir(parents=True)
    (tmp_path / "file.txt").touch()
    runs, skipped = collect([tmp_path, tmp_path / "nowhere", tmp_path / "file.txt"])
    assert [run.name for run in runs] == [f"{tmp_path.name}/good"]
    reasons = {str(entry.path.relative_to(tmp_path)): entry.reason for entry in skipped}
    assert set(reasons) == {
        "nowhere", "file.txt", "notes", "result_text", "result_nested", "result_long", "result_pipe", "study_jobs",
        "study_plan", "study_without_job/0000_seed-0", "study_without_jobs",
    }  # fmt: skip
    assert (reasons["nowhere"], reasons["file.txt"]) == ("no such directory", "is a file; name a directory")
    assert reasons["notes"] == "holds no runs"
    assert reasons["study_without_jobs"] == "a study without jobs"
    assert reasons["result_text"].startswith("result.json is damaged")
    assert reasons["study_jobs"].startswith("jobs.jsonl is damaged in line 1")


def test_only_finite_numbers_are_metrics(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"seed": 1}, 0.5)
    result = run.read_json(run.result)
    result |= {
        "best": {"val/accuracy": 0.5, "text": "0.5", "true": True, "big": 10**400, "nested": [1], "\x1b[31m": 1, "": 2},
        "last": [1, 2], "test": None, "data": 5, "parameters": -1, "epochs": "many", "seconds": {"training": "long"},
    }  # fmt: skip
    write_json(run.result, result)
    run.config.write_text(yaml.dump(config_with({}) | {"seed": "one", "objective": {"metric": ["x"], "mode": 1}}))
    ((collected,), _) = collect([run.path])
    assert collected.best == {"val/accuracy": 0.5}
    assert (collected.last, collected.test, collected.data, collected.parameters, collected.epochs) == (
        {},
        {},
        None,
        None,
        0,
    )
    assert (collected.seed, collected.objective, collected.training_seconds) == (None, None, None)


def test_error_if_no_run_is_usable(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"there is nothing to compare\n.*empty: holds no runs\n.*x: no such directory"):
        compare([tmp_path / "empty", tmp_path / "x"])
    (tmp_path / "\x1b[31m").mkdir()
    (tmp_path / "\x1b[31m" / "config.yaml").write_text("{")
    with pytest.raises(UserError) as raised:
        compare([tmp_path / "\x1b[31m"])
    assert all(line.isprintable() for line in str(raised.value).split("\n"))
