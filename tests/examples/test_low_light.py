"""Front ends, gate and stages of docs/examples/low_light."""

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.exact_resume import differences, new_run, outcome, train_until
from support.runs import NO_PICTURES, compose_config
from torch import Tensor, nn

from litlab.data.dataset_info import DatasetInfo
from litlab.errors import UserError
from litlab.optim.schedules import one_cycle_factor
from litlab.runs.directory import RunDirectory
from litlab.training.build import Facts, build_callbacks, build_network
from litlab.training.checkpoint_io import read_checkpoint

PROJECT = Path(__file__).parents[2] / "docs" / "examples" / "low_light"
sys.path.insert(0, str(PROJECT / "src"))
MODULES = ("front_ends", "dgam", "gate_stages", "gate_changes")
front_ends, dgam, gate_stages, gate_changes = map(importlib.import_module, MODULES)

MEAN, STD = (0.1, 0.2, 0.3), (0.05, 0.1, 0.2)
NAMES = tuple(f"class {number}" for number in range(10))
INFO = DatasetInfo("none", NAMES, (3, 32, 32), MEAN, STD, "", "", 80, 20, 20)
GAMMAS = (1, 1.5, 2, 2.5, 3)
WRAPPED = [(path.stem, "cnn") for path in sorted((PROJECT / "conf" / "model").glob("*.yaml"))]
WRAPPED += [("dgam", "resnet18"), ("dgam", "whitened"), ("stretched", "whitened")]


def dark_pixels(num_images: int = 6, seed: int = 0) -> Tensor:
    """Draw images of gray levels of which each is darker than the one before."""
    levels = torch.randint(0, 256, (num_images, 3, 8, 8), generator=torch.Generator().manual_seed(seed))
    stops = torch.arange(num_images)[:, None, None, None] % 8
    return (levels // 2**stops) / 255


def normalized(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels - mean) / std


def make_dgam(gate: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 10))
    arguments = {"front_end": nn.Identity(), "gammas": GAMMAS, "temperature": 1e-6, "num_classes": 10} | settings
    return dgam.DGAM(network=network, gate=gate, mean=MEAN, std=STD, **arguments)


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(PROJECT)
    return PROJECT


@pytest.mark.parametrize(("model", "network"), WRAPPED)
def test_each_model_wraps_any_network(model: str, network: str, project: Path) -> None:
    narrow = {"cnn": "hidden=[8]", "resnet18": "width=2", "whitened": "widths=[4,4,4]"}[network]
    config = compose_config(f"model={model}", f"model@model.network={network}", f"model.network.{narrow}")
    built = build_network(config["model"], Facts(INFO))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    built.initialize_from(images)
    assert built(images).shape == (4, 10)


@pytest.mark.parametrize("choice", ["experiment=dark", "callbacks=gate_stages"])
def test_other_configs_compose(choice: str, project: Path) -> None:
    config = compose_config("model=dgam_hard", choice)
    assert build_callbacks(config, Facts(INFO))


def test_the_network_gets_pixels_normalized_by_their_own_statistics() -> None:
    pixels, seen = dark_pixels(), []
    network = front_ends.FrontEndNetwork(front_end=nn.Identity(), network=nn.Identity(), mean=MEAN, std=STD)
    network.front_end.register_forward_pre_hook(lambda module, arguments: seen.append(*arguments))
    network.initialize_from(normalized(pixels))
    output = network(normalized(pixels))
    assert torch.allclose(seen[-1], pixels, atol=1e-6)
    assert seen[-1].min() >= 0
    assert seen[-1].max() <= 1
    assert torch.allclose(output.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(output.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5)
    assert {*network.state_dict()} == {"normalize.mean", "normalize.std"}


def slow_stretch(image: list[float]) -> list[float]:
    return [(value - min(image)) / (max(image) - min(image) + 1e-5) for value in image]


def slow_standardize(image: list[float]) -> list[float]:
    mean = math.fsum(image) / len(image)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in image) / (len(image) - 1))
    return [(value - mean) / (std + 1e-5) for value in image]


def slow_equalize(channel: list[float]) -> list[float]:
    num_lowest = sum(value == min(channel) for value in channel)
    return [
        (sum(other <= value for other in channel) - num_lowest) / max(len(channel) - num_lowest, 1) for value in channel
    ]


@pytest.mark.parametrize(
    ("front_end", "slow", "axes"),
    [
        (front_ends.Gamma(gamma=2.5), lambda image: [value**0.4 for value in image], 1),
        (front_ends.Stretch(), slow_stretch, 1),
        (front_ends.Standardize(), slow_standardize, 1),
        (front_ends.Equalize(), slow_equalize, 2),
    ],
)
def test_a_front_end_equals_a_reference_in_scalars(front_end: nn.Module, slow, axes: int) -> None:
    pixels = dark_pixels()
    pixels[-1] = 0.25  # one gray level
    output = front_end(pixels)
    expected = [torch.tensor(slow(part.tolist())) for part in pixels.double().flatten(0, axes - 1).flatten(1)]
    assert torch.allclose(output.flatten(0, axes - 1).flatten(1), torch.stack(expected).float(), atol=2e-4)
    assert torch.isfinite(output).all()
    if not isinstance(front_end, front_ends.Standardize):
        assert output.min() >= 0
        assert output.max() <= 1


def correct(pixels: Tensor, number: int) -> Tensor:
    """Correct images by one gamma alone."""
    return dgam.mix_gammas(pixels, GAMMAS, torch.eye(len(GAMMAS))[[number] * len(pixels)])


def test_a_mixture_of_corrections_is_their_weighted_sum() -> None:
    pixels, weights = dark_pixels(), torch.rand(6, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    expected = sum(weights[:, number, None, None, None] * correct(pixels, number) for number in range(5))
    assert torch.allclose(dgam.mix_gammas(pixels, GAMMAS, weights), expected, atol=1e-6)


def test_gamma_corrections_are_those_of_the_paper_and_keep_the_range() -> None:
    pixels = dark_pixels()
    corrected = torch.stack([correct(pixels, number) for number in range(len(GAMMAS))], dim=1)  # b k c h w
    for image, results in zip(pixels.double(), corrected, strict=True):
        low, high = image.min().item(), image.max().item()
        for gamma, result in zip(GAMMAS, results, strict=True):
            expected = [
                ((value - low) / (high - low + 1e-5)) ** (1 / gamma) * (high - low) + low
                for value in image.flatten().tolist()
            ]
            assert torch.allclose(result.flatten(), torch.tensor(expected), atol=1e-6)
            assert result.min() >= low - 1e-6
            assert result.max() <= high + 1e-6
    assert torch.allclose(corrected[:, 0], pixels, atol=1e-5)
    assert (corrected.diff(dim=1) >= -1e-6).all()  # a larger gamma makes nothing darker


def test_statistics_are_mean_deviation_and_entropy_without_gradient() -> None:
    pixels = dark_pixels().requires_grad_()
    statistics = dgam.image_statistics(pixels)
    assert not statistics.requires_grad
    for image, row in zip(pixels.detach().double().numpy(), statistics, strict=True):
        scaled = (image - image.min()) / (image.max() - image.min() + 1e-10)
        fractions = np.histogram(scaled, bins=256, range=(0, 1))[0] / image.size
        entropy = -sum(fraction * math.log(fraction) for fraction in fractions if fraction)
        expected = torch.tensor([image.mean(), image.std(ddof=1), entropy]).float()
        assert torch.allclose(row, expected, atol=1e-5)
    constant = dgam.image_statistics(torch.full((1, 3, 8, 8), 0.5))
    assert torch.allclose(constant, torch.tensor([[0.5, 0.0, 0.0]]), atol=1e-6)


@pytest.mark.parametrize("gate", ["soft", "hard"])
def test_weights_sum_to_one_and_are_one_hot_unless_the_gate_is_soft(gate: str) -> None:
    image_weights, head_weights = make_dgam(gate).weigh(dark_pixels(64))
    for weights in (image_weights, head_weights):
        assert torch.allclose(weights.sum(dim=1), torch.ones(64))
        assert (weights >= 0).all()
    assert torch.equal(image_weights.argmax(dim=1), head_weights.argmax(dim=1))
    is_one_hot = (image_weights.round() - image_weights).abs().max() < 1e-6
    assert is_one_hot == (gate != "soft")


def test_hard_logits_are_those_of_one_correction_and_its_head() -> None:
    model, pixels = make_dgam("hard"), dark_pixels(16)
    with torch.no_grad():
        for _ in range(50):  # the running statistics of its norms
            model.gate(dgam.image_statistics(pixels))
        model.eval()
        for number, head in enumerate(model.heads):  # copies at first
            head.weight += number
        logits = model(normalized(pixels))
        weights = model.gate(dgam.image_statistics(pixels)).softmax(dim=1)
        assert len(weights.argmax(dim=1).unique()) > 1
        for image, number, output in zip(pixels, weights.argmax(dim=1).tolist(), logits, strict=True):
            corrected = correct(image[None], number)
            expected = model.heads[number](model.network(model.normalize(corrected)))[0]
            assert torch.allclose(output, expected, rtol=1e-4, atol=1e-4)


def gradients(model: nn.Module, pixels: Tensor) -> dict[str, Tensor | None]:
    logits = model.train()(normalized(pixels))
    nn.functional.cross_entropy(logits, torch.arange(len(pixels)) % 10).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_all_of_a_soft_gate_learns() -> None:
    found = gradients(make_dgam("soft"), dark_pixels(32))
    assert all(found[f"gate.{layer}.weight"].any() for layer in (0, 4, 8))
    assert found["network.1.weight"].any()
    assert all(found[f"heads.{number}.weight"].any() for number in range(5))


def test_the_gradient_of_a_hard_gate_is_zero() -> None:
    found = gradients(make_dgam("hard"), dark_pixels(32))
    gate = {name: gradient for name, gradient in found.items() if name.startswith("gate.")}
    assert len(gate) == 10
    assert all(gradient is not None and not gradient.any() for gradient in gate.values())
    assert all(found[name].any() for name in found if name.startswith("network."))


def test_the_gradient_of_a_hard_gate_is_huge_where_two_weights_are_nearly_equal() -> None:
    weights = torch.tensor([[0.3 + 1e-6, 0.3, 0.2, 0.1, 0.1]], requires_grad=True)
    (weights / 1e-6).softmax(dim=1)[0, 0].backward()
    assert weights.grad.abs().max() > 1e5


def test_a_gate_that_is_frozen_in_training_is_replaced_by_draws() -> None:
    model = make_dgam("hard")
    model.gate.requires_grad_(False)
    drawn, heads = model.train().weigh(dark_pixels(1000))
    assert torch.equal(drawn, heads)
    counts = drawn.sum(dim=0)
    assert counts.sum() == 1000
    assert ((counts > 150) & (counts < 250)).all()
    model.eval()
    assert torch.equal(model.weigh(dark_pixels(9))[1], model.weigh(dark_pixels(9))[1])


def test_a_network_without_a_linear_layer_at_its_end_is_refused() -> None:
    for network in (nn.Conv2d(3, 10, 3), nn.Sequential(nn.Flatten(), nn.Linear(192, 7))):
        with pytest.raises(UserError, match=r"model\.network: .* does not end in a linear layer with 10 outputs"):
            make_dgam_of(network)


def make_dgam_of(network: nn.Module) -> nn.Module:
    return dgam.DGAM(
        network=network, front_end=nn.Identity(), gammas=GAMMAS, gate="soft", temperature=1.0, num_classes=10,
        mean=MEAN, std=STD,
    )  # fmt: skip


STAGED = (
    "data=shapes", "data.num_train=72", "data.num_test=8", "data.val_size=8", "data.batch_size=16",
    "model=dgam_hard", "model.network.widths=[2]", "model.network.hidden=[]", "objective=null", "schedule=stage_one",
    "callbacks=gate_stages", "callbacks.gate_stages.gate_epoch=1", "callbacks.gate_stages.rate_factor=10",
    *NO_PICTURES, "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "threads=1",
)  # fmt: skip
FIRST_STAGE = 4  # steps


def parts(run: RunDirectory) -> tuple[int, dict[str, Tensor], dict[str, Tensor]]:
    """Return the step of the last checkpoint, the parameters of the gate, and all others."""
    checkpoint = read_checkpoint(run.last)
    trained = checkpoint["litlab"]["modules"]["requires_grad"]
    weights = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
    gate = {name: value for name, value in weights.items() if name.startswith("network.gate.")}
    return checkpoint["global_step"], gate, {name: value for name, value in weights.items() if name not in gate}


@pytest.mark.parametrize("gate", ["hard", pytest.param("soft", marks=pytest.mark.integrations)])
def test_stages_train_one_part_each_and_resume_exactly(gate: str, project: Path, tmp_path: Path) -> None:
    settings = (*STAGED, f"model.gate={gate}")
    whole, config = new_run(tmp_path / "whole", *settings)
    looks = train_until(whole, config, None)
    _, last_gate, last_others = parts(whole)
    seen = {}
    for number in range(2, looks, 3):
        run, config = new_run(tmp_path / str(number), *settings)
        assert train_until(run, config, number) is None
        step, *weights = parts(run)
        seen[step] = weights
        train_until(run, config, None)
        assert differences(outcome(whole), outcome(run)) == []
    first, *_ = [seen[step] for step in sorted(seen)]
    assert {step < FIRST_STAGE for step in seen} == {True, False}
    for step, (own_gate, others) in seen.items():
        if step <= FIRST_STAGE:
            assert differences(own_gate, first[0]) == []
        if step >= FIRST_STAGE:
            assert differences(others, last_others) == []
    assert (differences(first[0], last_gate) == []) == (gate == "hard")
    assert differences(first[1], last_others)


def test_the_largest_change_of_a_gate_is_that_of_its_parameters(tmp_path: Path) -> None:
    names = ("network.gate.0.weight", "network.gate.8.bias", "network.heads.0.weight")
    (tmp_path / "checkpoints").mkdir()
    for file, values in (("previous.ckpt", (1.0, 2.0, 3.0)), ("last.ckpt", (1.5, 0.0, 3.25))):
        state = dict(
            zip((*names, "network.gate.1.running_mean"), map(torch.tensor, (*values, 9 * values[0])), strict=True)
        )
        modules = {"requires_grad": dict.fromkeys(names, True)}
        torch.save({"state_dict": state, "litlab": {"modules": modules}}, tmp_path / "checkpoints" / file)
    assert gate_changes.largest_change(tmp_path, of_gate=True) == 2.0
    assert gate_changes.largest_change(tmp_path, of_gate=False) == 0.25


def test_the_schedule_of_the_first_stage_ends_with_it() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    settings = {"warmup": 0.25, "initial": 0.04, "final": 0.0}
    scheduler = gate_stages.one_cycle(optimizer, total_steps=60, stage_epochs=5, max_epochs=6, **settings)
    rates = [scheduler.lr_lambdas[0](step) for step in range(60)]
    expected = [one_cycle_factor(step, 50, **settings) for step in range(50)]
    assert rates == [*expected, *([0.0] * 10)]


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_gives_equal_outputs() -> None:
    """Export all front ends in one network, and the hard gate."""
    onnxruntime = pytest.importorskip("onnxruntime")
    steps = (front_ends.Gamma(gamma=2.5), front_ends.Standardize(), front_ends.Stretch(), front_ends.Equalize())
    model, images = make_dgam("hard", front_end=nn.Sequential(*steps)).eval(), normalized(dark_pixels(16))
    batch = {0: torch.export.Dim("batch")}
    program = torch.onnx.export(model, (images[:2],), dynamo=True, verbose=False, dynamic_shapes=(batch,))
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), model(images), atol=1e-5)
