"""What is written down of a job is read as it was written, by OmegaConf, too."""

from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict
from support.runs import TINY

from litlab.config.compose import register_resolvers
from litlab.config.config_file import to_yaml
from litlab.config.freeze import hydra_record
from litlab.config.paths import ROOT, VERSION_BASE, packaged_conf


def test_the_record_is_read_as_it_was_written() -> None:
    """OmegaConf takes more texts for numbers than YAML does, so these stand in quotes."""
    texts = ["1e-3", "on", "Y", "0x1f", "1_000", "null", "${seed}", "'", "a: b", "nan", ".5", "é", "", "~", "12:30"]
    register_resolvers()
    with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
    composed = loader.load_configuration(ROOT, [*TINY], RunMode.RUN)
    HydraConfig.instance().set_config(composed)
    with open_dict(composed):
        composed.mine = {"texts": texts, "others": [1e-3, 0.1, None, True, 3]}
        del composed["hydra"]
    again = OmegaConf.create(hydra_record(composed)["config.yaml"])
    assert OmegaConf.to_container(again) == OmegaConf.to_container(composed)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=150),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(alphabet="abc_.", max_size=8), VALUES, min_size=1, max_size=4))
def test_libyaml_writes_the_same_bytes(values: dict[str, Any]) -> None:
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if not any(each in text for each in "\x85\u2028\u2029"):
        assert to_yaml(values) == text
