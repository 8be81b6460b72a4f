"""`litlab train --help`."""

from litlab.cli.train import help_text


def test_help_names_what_can_be_chosen() -> None:
    lines = help_text(["--help", "model=resnet18"]).splitlines()
    groups = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] != " ")
    assert groups["data"] == "cifar10, image_folder, shapes"
    assert groups["model"].split(", ") == ["cnn", "resnet18", "torchvision", "whitened"]
    assert "sprint" in groups["experiment"]
    assert "data/base" not in groups
    assert "  _target_: litlab.models.resnet.ResNet18" in lines
