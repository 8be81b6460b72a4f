"""Locations of configs, caches and the user's own packages."""

import sys
from pathlib import Path

import pytest

from litlab.config.paths import add_project_to_path, cache_root, packaged_conf, project_conf

CHECKOUT = Path(__file__).parents[2]


def test_in_a_checkout_the_configs_lie_beside_src() -> None:
    assert packaged_conf() == CHECKOUT / "conf"
    assert (packaged_conf() / "config.yaml").is_file()


def test_a_project_may_have_configs_of_its_own(tmp_path: Path) -> None:
    assert project_conf(CHECKOUT) is None
    assert project_conf(tmp_path) is None
    (tmp_path / "conf").symlink_to(CHECKOUT / "conf")
    assert project_conf(tmp_path) is None
    (tmp_path / "conf").unlink()
    (tmp_path / "conf").mkdir()
    assert project_conf(tmp_path) == (tmp_path / "conf").resolve()


def test_cache_by_environment_then_by_the_xdg_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LITLAB_CACHE", "here")
    assert cache_root() == tmp_path / "here", "absolute, so that a worker in another folder finds the same"
    monkeypatch.setenv("LITLAB_CACHE", "~/there")
    assert cache_root() == tmp_path / "home" / "there"
    monkeypatch.delenv("LITLAB_CACHE")
    assert cache_root() == tmp_path / "xdg" / "litlab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == tmp_path / "home" / ".cache" / "litlab"


def test_packages_of_a_project_follow_installed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the user's doesn't replace an installed package of the same name."""
    (tmp_path / "src").mkdir()
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    monkeypatch.chdir(tmp_path)
    add_project_to_path(tmp_path)
    add_project_to_path()
    assert sys.path == [*before, str(tmp_path), str(tmp_path / "src")]
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    add_project_to_path()
    assert sys.path[-1] == str(tmp_path / "inner")
