"""The comparison with the public scripts: their files, their images and output, turns, and arithmetic of the rows.

The scripts themselves need a GPU and are not part of litlab. `SCRIPT` is what litlab relies on of them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.runs import NO_PICTURES, compose_config, train_here

from benchmarks import data_path, public_scripts, settings, speedrun, warm_litlab, warm_script
from benchmarks.harness import Row
from benchmarks.public_scripts import SCRIPTS
from benchmarks.recipes import Outcome
from benchmarks.report import table
from benchmarks.warm_process import WarmProcess
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.training.checkpoint_io import read_network_weights

QUICK = settings.quick()
MUON, HIVERGE = SCRIPTS
SCRIPT = """
import sys
from torch import nn

with open(sys.argv[0]) as file:
    code = file.read()
logging_columns_list = ["run   ", "epoch", "train_acc", "val_acc", "tta_val_acc", "time_seconds"]

class CifarNet(nn.Linear):
    pass

def print_columns(columns, is_head=False):
    print("-" * 80)
    print("".join("|  %s  " % column for column in columns) + "|")

def main(run, model):
    print_columns([str(run).rjust(6), "    7", "   0.9800", " 0.9350", "           ", "      1.5000"])
    print_columns(["      ", " eval", "   0.9875", " 0.9331", "     0.9401", "      2.0133"])
    print("Mean accuracy after 1 runs: 0.940100", end="\\r")

if __name__ == "__main__":
    raise SystemExit("200 runs")
"""
TINY = (
    "data=shapes", "data.num_train=80", "data.num_test=40", "data.val_size=0", "data.batch_size=16", "model=whitened",
    "model.widths=[4,4,4]", "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=3", "threads=1",
    "objective=null", "task.freeze=[whitening.bias]", "task.freeze_after_epochs=1", *NO_PICTURES,
)  # fmt: skip
_REGION = "+callbacks.counted_region._target_=benchmarks.counted_region.CountedRegion"


# ---- files of the scripts


def test_scripts_are_found_in_clones_and_a_known_version_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cifar10-airbench" / MUON.file
    path.parent.mkdir()
    path.write_text(SCRIPT)
    known = replace(MUON, versions={hashlib.sha256(SCRIPT.encode()).hexdigest(): "abc123"})
    monkeypatch.setattr(public_scripts, "SCRIPTS", (known, HIVERGE))

    found, missing = public_scripts.find_scripts(tmp_path)

    assert [(entry.script, entry.path, entry.version) for entry in found] == [(known, path, "abc123")]
    source = "https://github.com/hiverge/cifar10-speedrun"
    assert missing == [f"cifar10_speedrun: left out. Put cifar10_speedrun.py from {source} into the folder"]


def test_the_regions_of_all_contenders_are_stated(tmp_path: Path) -> None:
    (tmp_path / MUON.file).write_text(SCRIPT)
    (tmp_path / HIVERGE.file).write_text(SCRIPT)

    notes = speedrun.notes(replace(QUICK, scripts=str(tmp_path)))

    assert [note.split(" ")[0] for note in notes] == ["litlab", "airbench94_muon", "cifar10_speedrun"]
    assert all("ounts: whitening" in note and "Not counted: compilation" in note for note in notes)
    digest = hashlib.sha256(SCRIPT.encode()).hexdigest()
    assert f"(another version, SHA-256 {digest[:12]}; what it counts was not checked)" in notes[1]
    assert speedrun.notes(QUICK)[1:] == [speedrun.NO_SCRIPTS]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "none of the scripts is there. Put airbench94_muon.py from https://github.com/KellerJordan/cifar10-air"),
        ("def main():", r"is not the script of .* expected 'class CifarNet', 'def main\(run, model\)'"),
    ],
)
def test_a_folder_without_the_scripts_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / MUON.file).write_text(text)
    with pytest.raises(UserError, match=message):
        public_scripts.find_scripts(tmp_path)


# ---- what the scripts read and print


def test_the_scripts_get_the_images_of_litlab_in_their_format(tmp_path: Path) -> None:
    data = data_path.prepared("data=shapes", "data.num_train=60", "data.num_test=20", "data.val_size=20")

    public_scripts.save_images(data, tmp_path)

    arrays = data.arrays
    for name, images, labels in (
        ("train", arrays.train_images, arrays.train_labels),
        ("test", arrays.test_images, arrays.test_labels),
    ):
        saved = torch.load(tmp_path / "cifar10" / f"{name}.pt", weights_only=True)
        assert (saved["images"].dtype, saved["images"].shape) == (torch.uint8, (len(images), 32, 32, 3))
        assert saved["images"].is_contiguous()
        assert torch.equal(saved["images"].permute(0, 3, 1, 2), images)
        assert saved["labels"].dtype == torch.int64
        assert torch.equal(saved["labels"], labels)
        assert saved["classes"] == list(data.info.class_names)


def test_a_script_is_run_by_its_functions_and_its_table_is_read(tmp_path: Path) -> None:
    (tmp_path / MUON.file).write_text(SCRIPT)
    script = warm_script.load(tmp_path / MUON.file)
    assert warm_script.run(script, script.CifarNet(1, 1), 3) == {"accuracy": 0.9401, "seconds": 2.0133}


def test_rows_of_a_table_follow_line_feeds_and_carriage_returns() -> None:
    printed = "----\n|  run   |  time_seconds  |\n|  1  |  2.0  |\n----\nMean time: 2.0s\r|  2  |  3.0  |\n"
    assert public_scripts.parse_table(printed) == [
        {"run": "1", "time_seconds": "2.0"},
        {"run": "2", "time_seconds": "3.0"},
    ]


def test_output_without_a_final_test_is_an_error() -> None:
    with pytest.raises(ValueError, match="no row of its final test, but:\nnan"):
        public_scripts.read_outcome("nan")


# ---- litlab in the same region


def test_a_warm_run_of_litlab_is_a_run_as_any_other_with_the_seed_of_the_request(tmp_path: Path) -> None:
    outcome = warm_litlab.run(tmp_path, TINY, 3)
    plain = train_here(tmp_path / "plain", *TINY, "seed=3")

    assert outcome["seconds"] == outcome["whitening"] + outcome["training"] + outcome["test"]
    assert min(outcome[part] for part in ("whitening", "training", "test", "compilation")) > 0
    assert outcome["accuracy"] == read_result(plain)["test"]["test/accuracy"]
    weights, expected = (read_network_weights(run.last) for run in (RunDirectory(tmp_path / "seed_3"), plain))
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())


# ---- turns


def test_a_warm_process_answers_until_it_is_closed(tmp_path: Path) -> None:
    code = "from benchmarks.warm_process import serve; serve(lambda number: (print('noise'), {'half': number / 2})[1])"
    with WarmProcess(tmp_path, tmp_path / "log", "-c", code) as process:
        assert [process.run(number) for number in (3, 4)] == [{"half": 1.5}, {"half": 2.0}]
    assert (tmp_path / "log").read_text().split() == ["noise", "noise"]


def test_a_warm_process_that_ends_is_an_error_with_its_output(tmp_path: Path) -> None:
    with WarmProcess(tmp_path, tmp_path / "log", "-c", "raise SystemExit('no GPU')") as process:
        for number in (0, 1):
            with pytest.raises(RuntimeError, match="ended with exit code 1:\nno GPU"):
                process.run(number)


def test_contenders_take_turns_after_a_warm_up_and_one_that_fails_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[str] = []

    def contender(name: str, fails_at: int | None = None) -> speedrun.Contender:
        def run(number: int) -> Mapping[str, float]:
            calls.append(f"{name}{number}")
            if number == fails_at:
                raise RuntimeError("out of memory")
            return {"accuracy": 0.94, "seconds": number + 0.5}

        return run

    contenders = {speedrun.LITLAB: contender("a"), "script": contender("b", fails_at=2)}
    outcomes = speedrun.in_turn(contenders, 3)

    assert calls == ["a0", "b0", "b1", "a1", "a2", "b2", "a3"]
    assert {name: [outcome["seconds"] for outcome in theirs] for name, theirs in outcomes.items()} == {
        speedrun.LITLAB: [1.5, 2.5, 3.5],
        "script": [1.5],
    }
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warm-up: litlab 94.00 %, 0.500 s"
    assert "script failed: out of memory" in lines
    with pytest.raises(RuntimeError, match="out of memory"):
        speedrun.in_turn({speedrun.LITLAB: contender("a", fails_at=1)}, 3)


def test_every_contender_gets_the_images_and_the_recipe_composes(tmp_path: Path) -> None:
    (tmp_path / MUON.file).write_text(SCRIPT)
    found, _ = public_scripts.find_scripts(tmp_path)

    commands = speedrun.commands(QUICK, found, tmp_path)

    assert commands["airbench94_muon"] == ("-m", "benchmarks.warm_script", str(tmp_path / MUON.file))
    module, _, *overrides = commands[speedrun.LITLAB][1:]
    assert module == "benchmarks.warm_litlab"
    assert compose_config(*overrides, _REGION)["data"]["num_train"] == 4000
    full = settings.full("images.tar", "scripts")
    assert (full.num_speedruns, full.scripts) == (20, "scripts")
    assert compose_config("experiment=speedrun", *full.speedrun_data)["data"]["val_size"] == 0


# ---- rows


def test_seconds_have_ratios_and_accuracies_have_means_and_a_difference() -> None:
    parts = {"whitening": 0.25, "training": 1.5, "test": 0.25, "compilation": 9.0}
    ours = [{"accuracy": value, "seconds": 2.0, **parts} for value in (0.94, 0.95, 0.96)]
    theirs = [{"accuracy": value, "seconds": 4.0} for value in (0.94, 0.94)]

    rows = speedrun.comparison({speedrun.LITLAB: ours, "fast": theirs, "broken": []})

    by_name = {row.name.removeprefix("GPU: speedrun"): row for row in rows}
    assert by_name[", counted region"] == Row("GPU: speedrun, counted region", "s", (2.0, 2.0), "fast", (4.0, 4.0))
    mean, difference = by_name[", test accuracy, mean of 2"], by_name[", difference of the means"]
    assert (mean.ours, mean.theirs) == ((94.0, 95.0), (94.0, 94.0))
    assert difference.ours == (0.0, 1.0)
    assert mean.is_mean
    assert difference.is_mean
    assert " beside broken: it failed, see the messages above" in by_name
    assert by_name[", compilation"].ours == (9.0, 9.0, 9.0)
    alone = speedrun.comparison({speedrun.LITLAB: ours})
    assert [row.name for row in alone[:2]] == [
        "GPU: speedrun, counted region",
        "GPU: speedrun, test accuracy, mean of 3",
    ]


def test_the_table_shows_a_mean_with_its_interval_and_no_ratio() -> None:
    row = Row("accuracy", "%", (94.0, 95.0, 96.0), "fast", (94.0, 94.0, 94.0), is_mean=True)
    cells = [cell.strip() for cell in table([row], markdown=True).splitlines()[2][1:-1].split("|")]
    # 2 degrees of freedom: t = 4.303, error 1 / sqrt(3)
    assert cells == ["accuracy", "%", "95.00 (92.52 to 97.48)", "fast", "94.00 (94.00 to 94.00)", ""]


def test_the_part_starts_litlab_and_the_scripts_as_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything but the training: the processes are real, and check that they are where the images are."""
    (tmp_path / MUON.file).write_text(SCRIPT)
    trained = "{'accuracy': 0.9 + number / 100, 'seconds': 1.0, 'whitening': 0.1, 'training': 0.8, 'test': 0.1, "
    code = (
        "import os; from benchmarks.warm_process import serve; assert os.path.exists('cifar10/train.pt');"
        f"serve(lambda number: {trained}'compilation': 5.0}})"
    )
    commands = {speedrun.LITLAB: ("-c", code), MUON.name: ("-c", code)}
    monkeypatch.setattr(speedrun, "commands", lambda *_: commands)
    tiny = ("data=shapes", "data.num_train=40", "data.num_test=20", "data.val_size=0")
    chosen = replace(QUICK, scripts=str(tmp_path), speedrun_data=tiny)

    rows = speedrun.rows(chosen, whole=lambda *overrides: Outcome(0.9, float(len(overrides)), 1.0))

    by_name = {row.name.removeprefix("GPU: speedrun, "): row for row in rows}
    assert by_name["counted region"].ratios == (1.0, 1.0)
    assert by_name["test accuracy, mean of 2"].theirs == pytest.approx((91.0, 92.0))
    assert by_name["whole process"].ours == (5.0, 5.0)
    assert "run 2: airbench94_muon 92.00 %, 1.000 s" in capsys.readouterr().err
