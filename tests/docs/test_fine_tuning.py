"""docs/fine_tuning.md, as a reader would follow it."""

from pathlib import Path

import pytest
import torch
from support.images import write_folder
from support.runs import Command
from support.snippets import read_snippets

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

COMMANDS = read_snippets("fine_tuning.md").commands
SMALL = (
    "model.width=2", "data.batch_size=16", "data.val_size=0.2", "trainer=cpu", "trainer.max_epochs=3", "threads=1",
)  # fmt: skip
TINY_WHITENED = (
    "data=shapes", "data.num_train=200", "data.num_test=50", "data.batch_size=50", "model.widths=[4,4,4]",
    "model.whitened=8", "trainer.max_epochs=2", "threads=1",
)  # fmt: skip


@pytest.mark.timeout(600)
def test_the_commands_of_the_section(tmp_path: Path, litlab: Command) -> None:
    project = tmp_path / "project"
    write_folder(project / "animals")
    pretrain, tune, study, compare, fix_bias, thaw = COMMANDS

    def call(command: list[str], *more: str) -> str:
        done = litlab(*command, *more)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    call(pretrain, *SMALL, "data.num_train=200", "data.num_test=50")
    output = call(tune, *SMALL, "hydra.run.dir=outputs/tuned")
    assert "of them trainable\ninit_from    outputs/pretrained/checkpoints/best.ckpt: 120 of 122 tensors, " in output
    assert (
        "new, since of another shape: network.head.weight (10x16, here 3x16), network.head.bias (10, here 3)" in output
    )
    assert read_result(RunDirectory(project / "outputs" / "tuned"))["trainable_parameters"] == 16 * 3 + 3
    call(study, *SMALL, "seed=0,1")
    table = call(compare)
    assert "outputs/pretrained" in table
    assert "null" in table
    call(fix_bias, *TINY_WHITENED, "hydra.run.dir=outputs/fixed")
    fixed = torch.load(RunDirectory(project / "outputs" / "fixed").last, weights_only=True)["state_dict"]
    assert fixed["network.whitening.bias"].any(), "trained in the first epoch"
    call(thaw, *SMALL, "hydra.run.dir=outputs/thawed")
    thawed = read_result(RunDirectory(project / "outputs" / "thawed"))
    assert thawed["trainable_parameters"] == thawed["parameters"]
