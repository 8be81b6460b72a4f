"""Modules that use other libraries: gymnasium and lightly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.foreign_tasks import PPO, Contrastive, overrides
from torch import Tensor, nn

from litlab.runs.result import read_result

HERE = "training.test_modules_of_libraries"
pytestmark = [
    pytest.mark.integrations,
    pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class CartPole:
    """CartPole of gymnasium with the state that a checkpoint needs."""

    num_observations = 4

    def __init__(self) -> None:
        import gymnasium

        self.environment = gymnasium.make("CartPole-v1", max_episode_steps=60)
        observation, _ = self.environment.reset(seed=0)
        self.observation = torch.from_numpy(observation)

    def reset(self) -> None:
        observation, _ = self.environment.reset()
        self.observation = torch.from_numpy(observation)

    def step(self, action: int) -> tuple[float, bool]:
        observation, reward, terminated, truncated, _ = self.environment.step(action)
        self.observation = torch.from_numpy(observation)
        return float(reward), terminated or truncated

    def state_dict(self) -> dict[str, Any]:
        pole = self.environment.unwrapped
        return {
            "observation": self.observation,
            "state": [float(value) for value in pole.state],
            "elapsed": self.environment.get_wrapper_attr("_elapsed_steps"),
            "random": pole.np_random.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pole = self.environment.unwrapped
        self.observation, pole.state = state["observation"], tuple(state["state"])
        self.environment.set_wrapper_attr("_elapsed_steps", state["elapsed"])
        pole.np_random.bit_generator.state = state["random"]


class Balancing(PPO):
    environment_class = CartPole


class SimCLR(Contrastive):
    """The loss and the projection head of lightly."""

    def __init__(self) -> None:
        super().__init__()
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        self.projector: nn.Module = SimCLRProjectionHead(4, 8, 4)
        self.criterion = NTXentLoss(temperature=0.5)

    def shared_step(self, batch: list[Tensor]) -> Tensor:
        views = [batch[0] + 0.3 * torch.randn_like(batch[0]) for _ in range(2)]
        loss = self.criterion(*(self.projector(self(view)) for view in views))
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss


@pytest.mark.parametrize(
    ("package", "kind", "task"), [("gymnasium", "ppo", "Balancing"), ("lightly", "contrastive", "SimCLR")]
)
def test_a_module_of_a_library_resumes_exactly(package: str, kind: str, task: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    arguments = tuple(overrides(kind, f"{HERE}.{task}"))
    run, config = new_run(tmp_path / "whole", *arguments)
    num_looks = train_until(run, config, None)
    assert num_looks
    assert read_result(run)["objective"] is not None
    for number in (4, num_looks // 2 + 2):
        assert not differences(outcome(run), outcome(stop_and_resume(tmp_path / f"at {number}", number, *arguments)))
