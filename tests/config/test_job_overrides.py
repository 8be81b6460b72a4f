"""Overrides that a multirun leaves to its jobs."""

import pytest

from litlab.config.job_overrides import as_written, job_values, leave_to_jobs


@pytest.mark.parametrize(
    "axes",
    [["model=cnn,resnet18"], ["model=glob(*)"], ["experiment=a,b"], ["study=networks"], ["seed=0,1", "model=a,b"]],
)
@pytest.mark.parametrize("value", ["8", "[1,2]", "{a: 1}", "'a b'", "null", "tag(x)"])
def test_an_override_that_only_configs_on_an_axis_may_have_is_left_to_the_jobs(axes: list[str], value: str) -> None:
    arguments = ["-m", f"model.width={value}", *axes]
    left = leave_to_jobs("model.width", arguments)
    assert left == ["-m", f"model.width=tag(job,choice({value}))", *axes]
    assert [*map(as_written, left)] == arguments
    assert leave_to_jobs("model.width", left) is None, "once"


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "model.width=8", "seed=0,1"],
        ["-m", "model.width=8", "data=shapes,cifar10", "optimizer.lr=1,2"],
        ["model.width=8"],
        ["-m", "+model.width=8", "model=a,b"],
        ["-m", "model.widths=8", "model=a,b"],
    ],
)
def test_a_key_that_no_axis_can_bring_is_not(arguments: list[str]) -> None:
    assert leave_to_jobs("model.width", arguments) is None


def test_values_are_those_of_the_overrides() -> None:
    left = leave_to_jobs("model.width", ["model=a,b", "seed=3", "model.width={a: [1,x]}"])
    assert left is not None
    assert job_values(left) == {"model.width": {"a": [1, "x"]}}
