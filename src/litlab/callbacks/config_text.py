"""The config of a run, to be read in TensorBoard."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only


class ConfigText(Callback):
    """Writes the config to every logger that takes text."""

    def __init__(self, text: str) -> None:
        self._text = text

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        indented = "".join(f"    {line}\n" for line in self._text.splitlines())  # Markdown: shown as it stands
        for logger in trainer.loggers:
            if add_text := getattr(getattr(logger, "experiment", None), "add_text", None):
                add_text("config", indented, 0)
