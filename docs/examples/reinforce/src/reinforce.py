"""REINFORCE (Williams 1992): a policy for environments of Gymnasium with discrete actions."""

from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

EVALUATION_SEED = 10**6  # of the first episode of validation and test


class Policy(nn.Module):
    """Two linear layers, from observations to logits of the actions.

    Args:
        num_observations: Length of an observation.
        num_actions: Number of actions.
        hidden: Width of the hidden layer.
    """

    def __init__(self, *, num_observations: int, num_actions: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_observations, hidden), nn.Tanh(), nn.Linear(hidden, num_actions))

    def forward(self, observations: Tensor) -> Tensor:  # b num_observations -> b num_actions
        """Compute the logits of the actions."""
        return self.layers(observations)


class Episodes(LightningDataModule):
    """Numbers of episodes, which the task plays: a batch has the episodes of one step of the optimizer.

    Args:
        batch_size: Episodes of a step.
        num_train: Episodes of an epoch.
        num_evaluation: Episodes of a validation and of the test.
    """

    def __init__(self, *, batch_size: int, num_train: int, num_evaluation: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_train = num_train
        self.num_evaluation = num_evaluation

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the episodes to learn from."""
        return DataLoader(range(self.num_train), batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the episodes of validation."""
        return DataLoader(range(self.num_evaluation), batch_size=self.num_evaluation)

    test_dataloader = val_dataloader


class Reinforce(LightningModule):
    """Play episodes with the present policy and follow the gradient of their return.

    An episode is a function of (seed, epoch, number) and of the weights: the environment and the draws of the actions
    are seeded by them. So nothing has to be saved for an exact resume.

    Args:
        network: From observations to logits of the actions.
        optimizer: Makes an optimizer from parameters.
        environment: Name in Gymnasium's registry.
        discount: Factor of a reward for each step that it lies ahead.
        seed: Seed of the episodes of the training.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        environment: str,
        discount: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.make_optimizer = optimizer
        self.environment = environment
        self.discount = discount
        self.seed = seed

    def training_step(self, numbers: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of some episodes."""
        first = (1009 * self.seed + self.current_epoch) * 100_003  # of this epoch
        seeds = [(first + number) % 2**31 for number in numbers.tolist()]
        log_probabilities, rewards = self.play(seeds, greedy=False)
        returns = [discounted(episode, self.discount) for episode in rewards]
        advantages = torch.cat(returns)
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-6)
        self.log(
            "train/return", sum(float(episode.sum()) for episode in rewards) / len(rewards), batch_size=len(rewards)
        )
        return -(torch.cat(log_probabilities) * advantages.to(self.device)).mean()

    def validation_step(self, numbers: Tensor, batch_idx: int) -> None:
        """Play the most probable actions, in the same episodes each time."""
        self._evaluate("val/return", numbers)

    def test_step(self, numbers: Tensor, batch_idx: int) -> None:
        """Do the same for the test."""
        self._evaluate("test/return", numbers)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer of the config."""
        return self.make_optimizer(self.parameters())

    def _evaluate(self, name: str, numbers: Tensor) -> None:
        _, rewards = self.play([EVALUATION_SEED + number for number in numbers.tolist()], greedy=True)
        self.log(name, sum(float(episode.sum()) for episode in rewards) / len(rewards), batch_size=len(rewards))

    def play(self, seeds: list[int], *, greedy: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Play episodes side by side.

        Args:
            seeds: Seed of each episode.
            greedy: Take the most probable actions.

        Returns:
            Log-probabilities of the actions and rewards of each episode, one number a step.
        """
        environments = [gymnasium.make(self.environment) for _ in seeds]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        observations = [environment.reset(seed=seed)[0] for environment, seed in zip(environments, seeds, strict=True)]
        log_probabilities: list[list[Tensor]] = [[] for _ in seeds]
        rewards: list[list[float]] = [[] for _ in seeds]
        running = list(range(len(seeds)))
        while running:
            batch = torch.stack([torch.as_tensor(observations[n], dtype=torch.float32) for n in running])
            rows = self.network(batch.to(self.device)).log_softmax(dim=1)
            probabilities = rows.detach().exp().cpu()
            still_running = []
            for row, cumulated, n in zip(rows, probabilities.cumsum(1), running, strict=True):
                uniform = torch.rand(1, generator=generators[n])
                drawn = int(torch.searchsorted(cumulated, uniform).clamp(max=len(row) - 1))
                action = int(row.argmax()) if greedy else drawn
                observations[n], reward, terminated, truncated, _ = environments[n].step(action)
                log_probabilities[n].append(row[action])
                rewards[n].append(float(reward))
                if not (terminated or truncated):
                    still_running.append(n)
            running = still_running
        for environment in environments:
            environment.close()
        return [torch.stack(values) for values in log_probabilities], [torch.tensor(values) for values in rewards]


def discounted(rewards: Tensor, discount: float) -> Tensor:
    """Return the discounted sum of the rewards from each step on."""
    returns, total = torch.empty_like(rewards), 0.0
    for step in reversed(range(len(rewards))):
        total = float(rewards[step]) + discount * total
        returns[step] = total
    return returns
