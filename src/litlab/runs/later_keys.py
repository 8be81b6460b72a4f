"""Keys that came later than format 1 of the frozen config: a config from before there was a key is read as with it off.

So the constructors find every key they take, and an old run and a new one with the same settings are the same
experiment: an identity leaves out what is off.
"""

from typing import Any

_IMAGES: dict[str, Any] = {
    "cutout": 0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "color_jitter": None,
    "rand_augment": None,
    "progressive_sizes": None,
}

# Target -> key -> the value that does what litlab did before there was the key.
LATER_KEYS: dict[str, dict[str, Any]] = {
    "litlab.data.cifar10.CIFAR10": _IMAGES,
    "litlab.data.image_folder.ImageFolder": _IMAGES | {"storage": "memory", "num_workers": 2},
    "litlab.data.shapes.Shapes": _IMAGES,
    "litlab.tasks.image_classifier.ImageClassifier": {
        "channels_last": False,
        "compile": False,
        "test_time_flip": False,
        "test_time_shift": 0,
    },
}


def with_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A config with the keys that it is older than; whatever else is in it stays as it is."""
    return {name: _with(node, _later_keys(node)) for name, node in config.items()}


def without_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A config without those of these keys that are off."""
    return {name: _without(node, _later_keys(node)) for name, node in config.items()}


def _later_keys(node: Any) -> dict[str, Any]:
    """Of a part of the config; empty for one that names no class with such keys."""
    target = node.get("_target_") if isinstance(node, dict) else None
    return LATER_KEYS.get(target, {}) if isinstance(target, str) else {}


def _with(node: Any, off: dict[str, Any]) -> Any:
    return node | {key: value for key, value in off.items() if key not in node} if off else node


def _without(node: Any, off: dict[str, Any]) -> Any:
    return {key: value for key, value in node.items() if key not in off or value != off[key]} if off else node
