"""Classes of the config that can't be built are refused in a sentence."""

from pathlib import Path
from typing import Any

import pytest
from support.runs import TINY, compose_config

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.training.build import build_trainer, instantiate


def trainer(folder: Path, **arguments: Any) -> Any:
    config = compose_config(*TINY)
    config["trainer"] |= arguments
    return build_trainer(config, RunDirectory(folder), None, devices=1, callbacks=[], loggers=[])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"strategy": "ddpp"}, "trainer: You selected an invalid strategy name: `strategy='ddpp'`"),
        ({"accelerator": "cpuu"}, "trainer: You selected an invalid accelerator name: `accelerator='cpuu'`"),
        ({"accelerator": "tpu"}, "trainer: "),  # no machine of these tests has one
    ],
)
def test_arguments_that_the_trainer_refuses(arguments: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        trainer(tmp_path, **arguments)
    assert str(refused.value).startswith(expected)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("max_steps", "expected"), [(None, -1), (-1, -1), (7, 7)])
def test_no_limit_of_steps(max_steps: int | None, expected: int, tmp_path: Path) -> None:
    assert trainer(tmp_path, max_steps=max_steps).max_steps == expected


class NeedsPackage:
    def __init__(self) -> None:
        import nowhere_at_all  # noqa: F401


def test_a_class_whose_package_is_not_installed_is_refused() -> None:
    target = f"{__name__}.NeedsPackage"
    with pytest.raises(UserError, match=rf"logger\.x: {target} needs a package that is not installed here: No module"):
        instantiate("logger.x", {"_target_": target})
