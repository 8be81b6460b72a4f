from collections.abc import Iterator
from pathlib import Path

import pytest
from support.slurm_cluster import SlurmCluster, missing, slurm_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    if reason := missing():
        pytest.skip(reason)
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as up:
        yield up


@pytest.fixture
def project(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project whose commands see the cluster."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    folder = tmp_path / "project"
    folder.mkdir()
    return folder
