"""Locations of configs, caches and the user's own packages."""

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from litlab.config.paths import add_project_to_path, cache_root, packaged_conf, project_conf
from litlab.process.child_process import FAILED, Fork

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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a name")
def test_a_user_id_without_name_and_home_has_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is started with a user id."""
    folder = tempfile.mkdtemp()  # one that another user can reach
    try:
        Path(folder).chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        for name in ("HOME", "XDG_CACHE_HOME", "LITLAB_CACHE"):
            monkeypatch.delenv(name, raising=False)

        def use(home: str | None) -> None:
            os.setuid(54321)
            if home is not None:
                os.environ["HOME"] = home
            cache = cache_root()
            assert cache == Path(folder, "litlab-cache-54321")
            assert stat.S_IMODE(cache.stat().st_mode) == 0o700

        closed = Path(folder, "another")  # a home of another user, as docker run --user leaves it
        closed.mkdir(mode=0o700)
        for home in (None, "/", "/nowhere", str(closed)):
            assert Fork(lambda home=home: use(home) or 0).wait() == 0
        Path(folder, "litlab-cache-54321").chmod(0o777)
        assert Fork(lambda: use(None) or 0).wait() == FAILED, "others could put their images there"
    finally:
        shutil.rmtree(folder)


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
