"""LightningModules of several kinds, as people write them: none of them imports litlab."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy


def blobs(num: int, seed: int) -> TensorDataset:
    """Draw points with four coordinates around three centers."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 3
    points = torch.randn(num, 4, generator=generator) + 2 * F.one_hot(labels, 4)
    return TensorDataset(points, labels)


class Blobs(LightningDataModule):
    """Six batches of training, two of validation, two of test; on two ranks half of them."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(blobs(24, 0), batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(blobs(8, 1), batch_size=4)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(blobs(8, 2), batch_size=4)


class Tutorial(LightningModule):
    """The first module of a tutorial, with loaders of its own; names with underscores, all values by step and epoch."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, points: Tensor) -> Tensor:
        return self.layers(points)

    def shared_step(self, batch: list[Tensor], split: str) -> Tensor:
        points, labels = batch
        logits = self(points)
        loss = F.cross_entropy(logits, labels)
        self.log(f"{split}_loss", loss, on_step=True, on_epoch=True, sync_dist=split != "train")
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log(f"{split}_acc", accuracy, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.shared_step(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.shared_step(batch, "val")

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.shared_step(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(blobs(24, 0), batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(blobs(8, 1), batch_size=4)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(blobs(8, 2), batch_size=4)


class GAN(LightningModule):
    """Two networks with an optimizer each, optimized by hand; shows its samples by the logger's own interface."""

    def __init__(self, lr: float = 0.02) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4))
        self.discriminator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        real = batch[0]
        optimizer_g, optimizer_d = self.optimizers()
        noise = torch.randn(len(real), 2)
        self.toggle_optimizer(optimizer_d)
        d_loss = F.softplus(-self.discriminator(real)).mean() + F.softplus(self.discriminator(self(noise))).mean()
        optimizer_d.zero_grad()
        self.manual_backward(d_loss)
        optimizer_d.step()
        self.untoggle_optimizer(optimizer_d)
        self.toggle_optimizer(optimizer_g)
        g_loss = F.softplus(-self.discriminator(self(noise))).mean()
        optimizer_g.zero_grad()
        self.manual_backward(g_loss)
        optimizer_g.step()
        self.untoggle_optimizer(optimizer_g)
        self.log_dict({"d_loss": d_loss, "g_loss": g_loss}, prog_bar=True)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        samples = self(torch.linspace(-1, 1, 16).view(8, 2))
        self.log("distance", (samples.mean(dim=0) - batch[0].mean(dim=0)).norm(), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        samples = self(torch.linspace(-1, 1, 16).view(8, 2)).sigmoid()
        self.logger.experiment.add_image("samples", samples[None], self.current_epoch)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        networks = (self.generator, self.discriminator)
        return [torch.optim.Adam(network.parameters(), lr=self.hparams.lr) for network in networks]


class Template(LightningModule):
    """A module as in the templates for Hydra: network, optimizer and scheduler from its own config, metric objects."""

    def __init__(
        self, net: nn.Module, optimizer: Callable[..., Any], scheduler: Callable[..., Any], compile: bool
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["net"])
        self.net = net
        self.train_acc, self.val_acc, self.test_acc = (MulticlassAccuracy(num_classes=3) for _ in range(3))
        self.train_loss, self.val_loss, self.test_loss = (MeanMetric() for _ in range(3))
        self.val_acc_best = MaxMetric()

    def forward(self, points: Tensor) -> Tensor:
        return self.net(points)

    def on_train_start(self) -> None:
        for metric in (self.val_loss, self.val_acc, self.val_acc_best):
            metric.reset()

    def model_step(self, batch: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        points, labels = batch
        logits = self(points)
        return F.cross_entropy(logits, labels), logits.argmax(dim=1), labels

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss, predicted, labels = self.model_step(batch)
        self.train_loss(loss)
        self.train_acc(predicted, labels)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        loss, predicted, labels = self.model_step(batch)
        self.val_loss(loss)
        self.val_acc(predicted, labels)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        loss, predicted, labels = self.model_step(batch)
        self.test_loss(loss)
        self.test_acc(predicted, labels)
        self.log("test/loss", self.test_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("test/acc", self.test_acc, on_step=False, on_epoch=True, prog_bar=True)

    def setup(self, stage: str) -> None:
        if self.hparams.compile and stage == "fit":
            self.net = torch.compile(self.net)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.hparams.optimizer(params=self.trainer.model.parameters())
        scheduler = self.hparams.scheduler(optimizer=optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss", "interval": "epoch", "frequency": 1},
        }


class Layers(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3))


class LSTM(LightningModule):
    """Keeps the state of its LSTM from batch to batch, as for long texts."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 6, batch_first=True), nn.Linear(6, 3)
        self.state: tuple[Tensor, Tensor] | None = None

    def forward(self, points: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, state = self.lstm(points[:, :, None], state)
        return self.head(outputs[:, -1]), state

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        points, labels = batch
        logits, state = self(points, self.state)
        self.state = (state[0].detach(), state[1].detach())
        loss = F.cross_entropy(logits, labels)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        logits, _ = self(batch[0], None)
        self.log("val_loss", F.cross_entropy(logits, batch[1]), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


class Balance:
    """A pole to keep upright: observation is angle and speed, action 0 or 1 pushes it, an episode has 25 steps."""

    num_observations = 2

    def __init__(self) -> None:
        self.reset()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "observation": self.observation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.observation = state["steps"], state["observation"]

    def reset(self) -> None:
        self.steps, self.observation = 0, 0.1 * torch.rand(2) - 0.05

    def step(self, action: int) -> tuple[float, bool]:
        angle, speed = self.observation.tolist()
        speed += 0.15 * angle + 0.03 * (2 * action - 1) + 0.005 * torch.randn(()).item()
        self.steps, self.observation = self.steps + 1, torch.tensor([angle + speed, speed])
        fallen = abs(angle + speed) > 0.5
        return float(not fallen), fallen or self.steps == 25


class PPO(LightningModule):
    """Proximal policy optimization: each batch is a number; the step plays on, then trains on what it has seen.

    The episode goes on in the next batch, so the environment is part of the state.
    """

    environment_class: type[Any] = Balance

    def __init__(self, num_steps: int = 24) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.environment = self.environment_class()
        size = self.environment.num_observations
        self.actor = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, 2))
        self.critic = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, 1))

    def play(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return observations, actions, their log-probabilities and returns."""
        observations, actions, log_probs, rewards, ends = [], [], [], [], []
        for _ in range(self.hparams.num_steps):
            policy = torch.distributions.Categorical(logits=self.actor(self.environment.observation))
            action = policy.sample()
            observations.append(self.environment.observation)
            reward, end = self.environment.step(int(action))
            actions.append(action)
            log_probs.append(policy.log_prob(action))
            rewards.append(reward)
            ends.append(end)
            if end:
                self.environment.reset()
        total, returns = float(self.critic(self.environment.observation)), []
        for reward, end in zip(reversed(rewards), reversed(ends), strict=True):
            total = reward + 0.9 * total * (not end)
            returns.insert(0, total)
        return torch.stack(observations), torch.stack(actions), torch.stack(log_probs), torch.tensor(returns)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        with torch.no_grad():
            observations, actions, old_log_probs, returns = self.play()
            advantages = returns - self.critic(observations)[:, 0]
        optimizer = self.optimizers()
        for _ in range(2):
            policy = torch.distributions.Categorical(logits=self.actor(observations))
            ratio = (policy.log_prob(actions) - old_log_probs).exp()
            surrogate = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
            values = self.critic(observations)[:, 0]
            loss = F.mse_loss(values, returns) - surrogate.mean() - 0.01 * policy.entropy().mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log("loss", loss)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        environment, length, end = self.environment_class(), 0, False
        while not end:
            _, end = environment.step(int(self.actor(environment.observation).argmax()))
            length += 1
        self.log("return", float(length), sync_dist=True, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.arange(6), batch_size=1)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.arange(2), batch_size=1)

    def get_extra_state(self) -> Any:
        return self.environment.state_dict()

    def set_extra_state(self, state: Any) -> None:
        self.environment.load_state_dict(state)


class Contrastive(LightningModule):
    """Self-supervised: two noisy views of a point are to be alike. Training and validation log the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        self.projector = nn.Linear(4, 4)

    def forward(self, points: Tensor) -> Tensor:
        return self.encoder(points)

    def shared_step(self, batch: list[Tensor]) -> Tensor:
        points = batch[0]
        views = torch.cat([points + 0.3 * torch.randn_like(points), points + 0.3 * torch.randn_like(points)])
        features = F.normalize(self.projector(self(views)), dim=1)
        similarity = (features @ features.T / 0.5).masked_fill(torch.eye(len(views), dtype=torch.bool), -1e9)
        targets = torch.arange(len(views)).roll(len(points))
        loss = F.cross_entropy(similarity, targets)
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.shared_step(batch)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.shared_step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)

    train_dataloader = Tutorial.train_dataloader
    val_dataloader = Tutorial.val_dataloader


class KillOnce(Callback):
    """Ends this process by SIGKILL after a step, unless a file exists already."""

    def __init__(self, marker: str, step: int) -> None:
        self.marker, self.step = Path(marker), step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step >= self.step and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def layers(width: int) -> str:
    """Return the node of a network for a command line."""
    return f"{{_target_: support.foreign_tasks.Layers, width: {width}}}"


def overrides(kind: str, task: str | None = None) -> Iterator[str]:
    """Yield the overrides that train a kind of module, or another class in its place, for two epochs."""
    name, data, objective, more = KINDS[kind]
    task = task or f"support.foreign_tasks.{name}"
    yield from ("~model", "~optimizer", "~schedule", "~task", f"+task._target_={task}")
    yield from ("~data", f"+data._target_=support.foreign_tasks.{data}") if data else ("~data",)
    metric, mode = objective
    yield f"objective={{metric: {metric}, mode: {mode}}}"
    yield from (
        *more,
        "trainer=cpu",
        "trainer.max_epochs=2",
        "trainer.log_every_n_steps=2",
        "threads=1",
        f"name={kind}",
    )


# Name -> task, data module or None, objective, further overrides.
KINDS: dict[str, tuple[str, str | None, tuple[str, str], tuple[str, ...]]] = {
    "tutorial": ("Tutorial", None, ("val_loss", "min"), ()),
    "gan": ("GAN", "Blobs", ("distance", "min"), ()),
    "template": (
        "Template",
        "Blobs",
        ("val/acc", "max"),
        (
            f"+task.net={layers(8)}",
            "+task.optimizer={_target_: torch.optim.Adam, _partial_: true, lr: 0.01, weight_decay: 0.0}",
            "+task.scheduler={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, patience: 0}",
            "+task.compile=false",
        ),
    ),
    "lstm": ("LSTM", "Blobs", ("val_loss", "min"), ()),
    "ppo": ("PPO", None, ("return", "max"), ()),
    "contrastive": ("Contrastive", None, ("loss", "min"), ()),
}
