"""Tests of the estimated time."""

import pytest

from litlab.sweep.display import job_eta, multirun_eta


def test_multirun_eta() -> None:
    assert multirun_eta([], [(10.0, None)], 3, 2) is None
    assert multirun_eta([100.0], [(40.0, None), (90.0, None)], 0, 2) == 60.0  # the longest of those that run
    assert multirun_eta([100.0], [(50.0, None), (50.0, None)], 4, 2) == 250.0
    assert multirun_eta([], [(50.0, 50.0), (50.0, 150.0)], 2, 2) == (200 + 2 * 150) / 2
    assert multirun_eta([100.0], [(900.0, None)], 0, 1) == 0.0


def test_job_eta() -> None:
    assert job_eta(10.0, 0.0, 0.5) == 10.0
    assert job_eta(10.0, 0.8, 0.9) == pytest.approx(10.0)
    assert job_eta(10.0, 0.8, 0.81) is None
    assert job_eta(10.0, None, None) is None
