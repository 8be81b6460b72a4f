from collections.abc import Callable

import torch

from litlab.data.shapes import CLASS_NAMES, Shapes, draw_images


def test_image_is_a_function_of_seed_split_and_index() -> None:
    images = draw_images(230, 0, 0)
    assert torch.equal(draw_images(7, 0, 0), images[:7])
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    assert torch.equal(draw_images(123, 0, 0), images[:123])
    torch.set_num_threads(threads)
    for other in (draw_images(230, 1, 0), draw_images(230, 0, 1)):
        assert (other != images).flatten(1).double().mean(1).min() > 0.5
    assert len({image.numpy().tobytes() for image in images}) == 230


def test_larger_sets_begin_with_the_smaller_ones(shapes_module: Callable[..., Shapes]) -> None:
    small, large = (shapes_module(num_train=number, num_test=number - 30).load_images() for number in (60, 130))
    assert torch.equal(large.train_images[:60], small.train_images)
    assert torch.equal(large.test_images[:30], small.test_images)
    assert large.train_labels.tolist() == [row % 10 for row in range(130)]


def test_pixels_use_the_range_and_all_channels() -> None:
    pixels = draw_images(500, 0, 0).double() / 255
    assert (pixels.mean((0, 2, 3)) - 0.5).abs().max() < 0.05
    assert (pixels.std((0, 2, 3)) > 0.2).all()


def test_classes_can_be_told_apart_but_not_by_color() -> None:
    """Check that nearest class means of edges beat chance, and those of mean colors don't."""
    train, test = (draw_images(num, 0, split).double() / 255 for num, split in ((3000, 0), (1000, 1)))
    labels = torch.arange(3000) % len(CLASS_NAMES)

    def accuracy(features: Callable[[torch.Tensor], torch.Tensor]) -> float:
        train_features, test_features = features(train).flatten(1), features(test).flatten(1)
        means = torch.stack([train_features[labels == label].mean(0) for label in range(len(CLASS_NAMES))])
        nearest = torch.cdist(test_features, means).argmin(1)
        return float((nearest == torch.arange(1000) % len(CLASS_NAMES)).double().mean())

    assert accuracy(lambda images: images.mean((2, 3))) < 0.15
    assert accuracy(lambda images: images.diff(dim=3).abs().mean(1)) > 0.2
