"""What a resume says of changes that can't be made."""

import pytest
from support.runs import compose_config

from litlab.config.overrides import change_config
from litlab.errors import UserError

CONFIG = compose_config("data=cifar10", "schedule=constant", "trainer=cpu", "threads=3")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimzer.lr=1", "optimzer.lr: unknown key; did you mean optimizer.lr?"),
        ("trainer.devicess=2", "did you mean trainer.devices?"),
        ("~logger.wandb", "logger.wandb: unknown key; known here: logger.tensorboard"),
        ("seed.x=2", "seed.x: unknown key"),
        ("trainer.profiler=simple", "A new key takes a plus: +trainer.profiler=..."),
        ("+trainer.devices=2", "trainer.devices is there already; leave out the plus"),
        ("trainer=ddp", "configs are chosen when a run is made"),
        ("+logger@more=csv", "configs are chosen when a run is made"),
        ("threads=1,2", "threads=1,2: several values; a run is resumed with one"),
        ("hydra.run.dir=x", "Hydra's own settings count only when a run is made"),
        ("threads", "threads: cannot be read as an override"),
        ("threads=many", "threads=many: expected a valid integer"),
        ("trainer.devices=3", "3 devices must divide it; use 126 or 129"),
        ("trainer.devices=???", "trainer.devices: a value is missing"),
        ("data.root=5", "data.root=5: expected a valid string"),
        ("data.root=${seed}", "data.root: cannot be resolved"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many: expected a valid integer"),
        ("++data=null", "would make it another experiment"),
    ],
)
def test_what_cannot_be_done_is_said(override: str, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        change_config(CONFIG, [override], dict)
    assert expected in str(refused.value)
