"""`litlab rerun`: real runs, run again."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from support.runs import Command, is_own

from litlab.cli import rerun
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.runs.diff import diff_runs
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.result import read_result
from litlab.runs.signature import sign


@pytest.fixture(autouse=True)
def _in_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def original(tiny_run: RunDirectory, tmp_path: Path) -> RunDirectory:
    """Train a run of the user's own in an empty folder."""
    run = RunDirectory(Path(shutil.copytree(tiny_run.path, tmp_path / "runs" / "original")))
    provenance = run.read_json(run.provenance)
    write_json(run.provenance, provenance | {"project": str(tmp_path), "code": None})
    sign(run)
    return run


def rerun_of(original: RunDirectory) -> RunDirectory:
    (path,) = set(original.path.parent.iterdir()) - {original.path}
    return RunDirectory(path)


def test_an_identical_rerun(original: RunDirectory, litlab: Command) -> None:
    (original.path / ".hydra" / "overrides.yaml").write_text("- seed=0\n")
    before = {path: path.stat().st_mtime_ns for path in original.path.rglob("*")}
    done = litlab("rerun", str(original.path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "IDENTICAL to the last bit: the weights, 36 metric rows and the results" in done.stdout
    assert re.search(r"^config +the same$", done.stdout, re.MULTILINE)
    assert "\nmetrics   the same" in done.stdout

    new = rerun_of(original)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{6}", new.path.name)
    assert new.config.read_text() == original.config.read_text()
    assert (new.path / ".hydra" / "overrides.yaml").read_text() == "- seed=0\n"
    provenance = new.read_json(new.provenance)
    assert provenance["rerun_of"] == str(original.path)
    assert provenance["command"] == ["litlab", "rerun", str(original.path)]
    assert provenance["project"] == original.read_json(original.provenance)["project"]
    assert read_result(new)["weights"] == read_result(original)["weights"]
    assert is_own(new)
    assert {path: path.stat().st_mtime_ns for path in original.path.rglob("*")} == before


def test_a_rerun_that_is_not_identical_says_what_differs(original: RunDirectory, litlab: Command) -> None:
    """As if the original had been trained with another seed by another torch, and resumed on other devices."""
    config = yaml.safe_load(original.config.read_text())
    original.config.write_text(yaml.safe_dump(config | {"seed": 1}, sort_keys=False))
    provenance = original.read_json(original.provenance)
    provenance["machine"]["packages"]["torch"] = "2.10.0"
    resumed = [{"when": "2026-01-31T12:00:00+00:00", "changed": {"trainer.devices": [1, 2]}}, "?"]
    write_json(original.provenance, provenance | {"resumed": resumed})
    sign(original)
    done = litlab("rerun", str(original.path))
    assert done.returncode == 1
    output = done.stdout
    assert re.search(r"^NOT IDENTICAL: \d+ values of result\.json and \d+ metrics differ$", output, re.MULTILINE)
    assert re.search(r"^config +the same$", output, re.MULTILINE)
    assert re.search(r"^result +weights +[0-9a-f]{12} -> [0-9a-f]{12}$", output, re.MULTILINE)
    assert re.search(r"^packages +torch +2\.10\.0 -> ", output, re.MULTILINE)
    assert re.search(
        r"^metrics +train/loss +\S+ -> \S+ +8 of 8 rows, the first at step \d, by at most ", output, re.MULTILINE
    )
    assert "was resumed on 2026-01-31T12:00:00+00:00 with trainer.devices 1 -> 2; the rerun had" in output
    assert "All recorded inputs are the same" not in output
    assert read_result(rerun_of(original))["weights"] != read_result(original)["weights"]


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (None, "it has no result.json: it is running, or was killed"),
        ({"status": "interrupted", "error": "stopped by SIGTERM"}, "status interrupted: stopped by SIGTERM"),
    ],
)
def test_only_a_complete_run_is_repeated(original: RunDirectory, ending: dict[str, str] | None, words: str) -> None:
    original.result.unlink()
    if ending:
        original.result.write_text(json.dumps(ending))
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        rerun.main([str(original.path)])
    assert str(refused.value).endswith(f"litlab resume {original.path}")
    assert list(original.path.parent.iterdir()) == [original.path]


def test_an_untrusted_run_is_refused_or_stays_untrusted(original: RunDirectory, tmp_path: Path) -> None:
    config = yaml.safe_load(original.config.read_text())
    config["callbacks"]["foreign"] = {"_target_": "os.system", "command": f"touch {tmp_path / 'mark'}"}
    safe = original.config.read_text()
    original.config.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"callbacks\.foreign"):
        rerun.main([str(original.path)])
    assert not (tmp_path / "mark").exists()
    assert list(original.path.parent.iterdir()) == [original.path]

    original.config.write_text(safe)
    (original.path / ".signature").unlink()
    write_json(original.provenance, {"project": "/"})
    new = rerun._create_run(FinishedRun.open(original.path), ["litlab", "rerun"])
    assert not is_own(new)
    assert new.read_json(new.provenance)["project"] == str(tmp_path)


def test_a_link_in_the_record_of_hydra_is_not_followed(original: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("mine")
    (original.path / ".hydra" / "hydra.yaml").symlink_to(tmp_path / "private")
    new = rerun._create_run(FinishedRun.open(original.path), [])
    assert list((new.path / ".hydra").iterdir()) == []


def test_a_parent_that_is_not_writable_is_reported(original: RunDirectory) -> None:
    finished = FinishedRun.open(original.path)
    for file in sorted(original.path.parent.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    original.path.parent.rmdir()
    original.path.parent.write_text("a file")
    with pytest.raises(UserError, match="is repeated in a directory beside it"):
        rerun._create_run(finished, [])


def test_without_a_hash_of_the_weights_nothing_is_called_identical(original: RunDirectory) -> None:
    write_json(original.result, read_result(original) | {"weights": None})
    (verdict,) = filter(None, rerun._verdict(diff_runs(original, original)))
    assert verdict.startswith("NOT KNOWN to be identical: 36 metric rows and the results are, the weights: ")
