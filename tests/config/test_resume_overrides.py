"""Overrides of a resumed run: what may change, and the messages for what may not."""

import inspect
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from support.runs import TINY, compose_config

from litlab.config.identity import identity
from litlab.config.resume_overrides import (
    LENGTH_KEYS,
    LOCATION_KEYS,
    AnotherExperiment,
    ConfigChange,
    change_config,
    changeable_keys,
)
from litlab.config.schema import SCHEDULE_KEYS, SECTIONS
from litlab.config.targets import import_target
from litlab.config.tree import ABSENT, flatten
from litlab.errors import UserError
from litlab.runs.processor import num_cores

CONFIG = compose_config("data=cifar10", "schedule=constant", "trainer=cpu", "threads=3")
FOLDER = compose_config("data=image_folder", "data.root=/x", "schedule=constant", "trainer=cpu", "threads=3")
HUB = compose_config("data=huggingface", "data.path=x/y", "schedule=constant", "trainer=cpu", "threads=3")
OTHERS = {"data.storage": FOLDER, "data.path": HUB}  # configs that have these keys
ACCEPTED = {
    "data.path": "data.path=/elsewhere",
    "threads": "threads=1",
    "logger": "+logger.csv={_target_: lightning.pytorch.loggers.CSVLogger}",
    "checkpoint": "checkpoint.every_steps=7",
    "data.root": "data.root=/elsewhere",
    "data.cache": "data.cache=/elsewhere",
    "data.url": "data.url=https://example.org/cifar10",
    "data.storage": "data.storage=stream",
    "data.num_workers": "data.num_workers=7",
    "trainer.accelerator": "trainer.accelerator=gpu",
    "trainer.devices": "trainer.devices=2",
    "trainer.num_nodes": "trainer.num_nodes=2",
    "trainer.strategy": "trainer.strategy=ddp",
    "trainer.log_every_n_steps": "trainer.log_every_n_steps=9",
    "trainer.profiler": "+trainer.profiler=simple",
}
FOREIGN = """
def endless(optimizer, gamma): ...
def ending(optimizer, total_steps): ...
"""


def changed(*overrides: str, config: dict[str, Any] = CONFIG, epochs: int = 0) -> ConfigChange:
    return change_config(config, list(overrides), lambda: epochs)


def another(value: Any) -> str:
    """Return the text of another value."""
    if isinstance(value, bool):
        return str(not value).lower()
    return str(value + 1) if isinstance(value, int | float) else "[9]"


def with_schedule(node: dict[str, Any] | None) -> dict[str, Any]:
    return CONFIG | {"schedule": node}


def test_each_accepted_key_keeps_the_identity_and_the_given_config() -> None:
    assert set(ACCEPTED) == set(changeable_keys(CONFIG))
    before = deepcopy(CONFIG)
    for key, override in ACCEPTED.items():
        config = OTHERS.get(key, CONFIG)
        change = changed(override, config=config)
        assert list(change.changed) != [], key
        assert all(name.startswith(key) for name in change.changed)
        assert identity(change.config) == identity(config)
        assert not change.extends_training
    assert before == CONFIG


def test_every_other_key_is_refused() -> None:
    fixed = {
        key: value
        for key, value in flatten(CONFIG).items()
        if not key.startswith((*changeable_keys(CONFIG), *LENGTH_KEYS)) and value is not None
    }
    assert len(fixed) > 25
    for key, value in fixed.items():
        with pytest.raises(AnotherExperiment) as refused:
            changed(f"{key}={another(value)}")
        assert str(refused.value).startswith(f"{key}: "), key
    for key in LOCATION_KEYS:
        with pytest.raises(AnotherExperiment, match="is part of the run's location"):
            changed("name=x" if key == "name" else "study.name=x")


def test_the_location_of_data_without_a_fingerprint_is_part_of_the_experiment() -> None:
    config = CONFIG | {"data": {"_target_": "my.Csv", "root": "/a", "path": "a.csv", "num_workers": 1}}
    for key in ("root", "path"):
        with pytest.raises(AnotherExperiment, match=rf"^data\.{key}: .* would make it another experiment$"):
            changed(f"data.{key}=b.csv", config=config)
    assert list(changed("data.num_workers=0", config=config).changed) == ["data.num_workers"]


def test_refusals_name_each_key() -> None:
    with pytest.raises(AnotherExperiment) as refused:
        changed("optimizer.lr=0.1", "~model", "threads=1", "+trainer.min_epochs=2")
    assert str(refused.value).splitlines() == [
        f"model: {CONFIG['model']} -> null would make it another experiment",
        "optimizer.lr: 0.05 -> 0.1 would make it another experiment",
        f"trainer.min_epochs: {ABSENT} -> 2 would make it another experiment",
    ]


def test_a_value_written_in_another_way_is_no_change() -> None:
    change = changed("optimizer.lr=5e-2", "data.batch_size=128.0", "trainer={devices: 1}", "model.widths=[6.0,16]")
    assert (change.changed, change.config) == ({}, CONFIG)
    with pytest.raises(AnotherExperiment, match=r"seed: 0 -> false"):
        changed("seed=false")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["schedule=cosine"],
         "litlab.optim.schedules.cosine follows the total number of steps, so the learning rate of every step so far "
         "would have been another (a run with schedule=constant can be extended)"),
        (["schedule=constant", "data.progressive_sizes=[24,32]"],
         "data.progressive_sizes has equal shares of all epochs, so the images of the epochs so far would have been "
         "others"),
    ],
)  # fmt: skip
def test_training_that_depends_on_its_length_is_not_extended(overrides: list[str], reason: str) -> None:
    with pytest.raises(AnotherExperiment) as refused:
        changed("trainer.max_epochs=4", config=compose_config(*TINY, *overrides))
    assert str(refused.value) == f"trainer.max_epochs: 2 -> 4 would make it another experiment: {reason}"


def test_a_training_that_creates_its_loaders_again_is_not_extended() -> None:
    trainer = CONFIG["trainer"] | {"reload_dataloaders_every_n_epochs": 1}
    with pytest.raises(AnotherExperiment, match=r"trainer\.reload_dataloaders_every_n_epochs creates loaders"):
        changed("trainer.max_epochs=11", config=CONFIG | {"trainer": trainer})


def test_a_training_that_ends_with_averaged_weights_is_not_extended() -> None:
    node = {"_target_": "lightning.pytorch.callbacks.EMAWeightAveraging", "decay": 0.9}
    with pytest.raises(AnotherExperiment, match=r"callbacks\.mean replaces the trained weights .*callbacks=ema can be"):
        changed("trainer.max_epochs=11", config=CONFIG | {"callbacks": {"mean": node}})
    assert changed("threads=2", config=CONFIG | {"callbacks": {"mean": node}}).changed == {"threads": [3, 2]}


def test_litlabs_schedules_that_need_the_total_number_of_steps() -> None:
    schedules = [target for target in SECTIONS if "optimizer" in inspect.signature(import_target(target)).parameters]
    schedules = [target for target in schedules if target.startswith("litlab.optim.schedules.")]
    assert len(schedules) == 4
    for target in schedules:
        values = {name: "epoch" if name in SCHEDULE_KEYS else 0.5 for name in SECTIONS[target].model_fields}
        config = with_schedule({"_target_": target} | values)
        if "total_steps" in inspect.signature(import_target(target)).parameters:
            with pytest.raises(AnotherExperiment):
                changed("trainer.max_epochs=20", config=config)
        else:
            assert changed("trainer.max_epochs=20", config=config).extends_training


def test_foreign_schedules_are_inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "change_schedules.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "change_schedules.ending"}
    plateau = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}
    for allowed in (None, node | {"total_steps": 90}, {"_target_": "change_schedules.endless", "gamma": 1}, plateau):
        assert changed("trainer.max_epochs=11", config=with_schedule(allowed)).changed == {
            "trainer.max_epochs": [10, 11]
        }
    with pytest.raises(AnotherExperiment, match=r"change_schedules\.ending follows the total number of steps"):
        changed("trainer.max_epochs=11", config=with_schedule(node))
    chained = {"_target_": "change_schedules.endless", "gamma": [{"_target_": "litlab.optim.schedules.cosine"}]}
    with pytest.raises(AnotherExperiment, match=r"change_schedules\.endless follows the total number of steps"):
        changed("trainer.max_epochs=11", config=with_schedule(chained))
    with pytest.raises(UserError, match=r"schedule\._target_: nowhere\.Schedule can't be inspected: .*no module"):
        changed("trainer.max_epochs=11", config=with_schedule({"_target_": "nowhere.Schedule"}))


def test_the_length_changes_by_epochs_that_have_not_begun() -> None:
    for accepted in ("trainer.max_epochs=3", "trainer.max_epochs=-1"):
        assert changed(accepted, epochs=3).extends_training
    with pytest.raises(AnotherExperiment, match="10 -> 2 is less than the 3 epochs that the run has begun already"):
        changed("trainer.max_epochs=2", epochs=3)
    with pytest.raises(AnotherExperiment, match=r"trainer.max_steps: null -> 69 would make it another experiment"):
        changed("trainer.max_steps=69")


def test_a_secret_stays_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANGE_TOKEN", "s3cret")
    monkeypatch.setenv("CHANGE_ROOT", "/from/the/environment")
    target = "+logger.mine={_target_: mine.Logger, token: '${oc.env:CHANGE_TOKEN}'}"
    change = changed(target, "data.root=${oc.env:CHANGE_ROOT}")
    assert change.config["logger"]["mine"]["token"] == "${oc.env:CHANGE_TOKEN}"
    assert change.config["data"]["root"] == "/from/the/environment"
    assert "s3cret" not in str(change)
    for literal in ("+logger.mine={_target_: mine.Logger, token: s3cret}", "data.url=https://me:s3cret@example.org"):
        with pytest.raises(UserError, match="looks like a secret") as refused:
            changed(literal)
        assert "s3cret" not in str(refused.value)
    monkeypatch.delenv("CHANGE_TOKEN")
    with pytest.raises(UserError, match=r"logger\.mine\.token: .*CHANGE_TOKEN"):
        changed(target)


def test_a_relative_root_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert changed("data.root=images").config["data"]["root"] == str(tmp_path / "images")


def test_threads_stay_frozen_unless_set_to_null() -> None:
    assert changed("trainer.devices=2").config["threads"] == 3
    assert changed("trainer.devices=2", "threads=null").config["threads"] == max(1, num_cores() // 2)
    assert changed("trainer.devices=2", "threads=5").config["threads"] == 5


def test_loggers_are_added_and_removed() -> None:
    assert changed("~logger").config["logger"] is None
    assert changed("logger=null").config["logger"] is None
    assert changed("logger.tensorboard=null").config["logger"] == {"tensorboard": None}
    change = changed("~logger.tensorboard", "+logger.csv._target_=lightning.pytorch.loggers.CSVLogger")
    assert change.config["logger"] == {"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger"}}
    assert change.changed["logger.tensorboard"] == [{"_target_": "litlab.loggers.TensorBoard"}, ABSENT]


def test_notes_name_possible_differences() -> None:
    assert changed("data.root=/elsewhere").notes == []
    expected = "on other devices or threads the stream of samples stays the same, but the last bits of the weights may"
    assert changed("threads=1", "trainer.devices=2").notes == [f"{expected} differ"]
    drawn = CONFIG | {"data": CONFIG["data"] | {"hard_fraction": 0.5}}
    assert changed("threads=1", config=drawn).notes == [
        "on other devices or threads the last bits of losses may differ, and then data.hard_fraction draws other images"
    ]
    foreign = deepcopy(CONFIG)
    foreign["callbacks"]["averaging"] = {"_target_": "mine.Averaging"}
    assert changed("trainer.max_epochs=20", config=foreign).notes == [
        "litlab can't tell whether mine.Averaging depended on the length of the training"
    ]


def test_progress_is_read_only_if_the_length_changes() -> None:
    def num_epochs_begun() -> int:
        raise AssertionError

    change_config(CONFIG, ["threads=1"], num_epochs_begun)
    with pytest.raises(AssertionError):
        change_config(CONFIG, ["trainer.max_epochs=3"], num_epochs_begun)
    assert changed() == ConfigChange(CONFIG, {}, False, [], [])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimzer.lr=1", "optimzer.lr: unknown key; did you mean optimizer.lr?"),
        ("trainer.devicess=2", "did you mean trainer.devices?"),
        ("~logger.wandb", "logger.wandb: unknown key; known here: logger.tensorboard"),
        ("seed.x=2", "seed.x: unknown key"),
        ("trainer.profiler=simple", "A new key takes a plus: +trainer.profiler=..."),
        ("+trainer.devices=2", "trainer.devices exists already; remove the +"),
        ("trainer=ddp", "configs are chosen when a run is made"),
        ("+logger@more=csv", "configs are chosen when a run is made"),
        ("threads=1,2", "threads=1,2: several values; a run is resumed with one"),
        ("hydra.run.dir=x", "Hydra's own settings count only when a run is made"),
        ("threads", "threads: cannot be read as an override"),
        ("threads=many", "threads=many: expected a valid integer"),
        ("trainer.devices=3", "3 devices must divide it; use 126 or 129"),
        ("trainer.devices=???", "trainer.devices: a value is missing"),
        ("data.root=5", "data.root=5: expected a text; quote it: \"data.root='5'\""),
        ("data.root=${seed}", "data.root: cannot be resolved"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many: expected a valid integer"),
        ("++data=null", "would make it another experiment"),
    ],
)
def test_overrides_that_cannot_be_applied(override: str, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        changed(override)
    assert expected in str(refused.value)
