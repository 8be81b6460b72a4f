"""Files of configs: a file that can't be read is named, with the line and what to do about it."""

from pathlib import Path

import pytest
from hydra.core.config_search_path import ConfigSearchPath
from omegaconf import OmegaConf

from hydra_plugins.litlab_searchpath import ConfFolder
from litlab.errors import UserError


def load(folder: Path, content: bytes) -> dict[str, object]:
    (folder / "mine.yaml").write_bytes(content)
    result = ConfFolder("project", f"conf://{folder}").load_config("mine")
    content_read = OmegaConf.to_container(result.config)
    assert isinstance(content_read, dict)
    return {"header": result.header["package"], **{str(key): value for key, value in content_read.items()}}


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["as it is", "with a byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_a_header_is_read_whatever_the_editor_writes_around_it(start: bytes, end: bytes, tmp_path: Path) -> None:
    content = start + end.join([b"# @package _global_", b"name: x", b"title: Gr\xc3\xb6\xc3\x9fe", b""])
    assert load(tmp_path, content) == {"header": "_global_", "name": "x", "title": "Größe"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: x\nmodel:\n\twidth: 3\n", "mine.yaml, line 3: cannot be read as YAML: found character '\\t'"),
        (b"model:\n  width: 3\n depth: 4\n", "mine.yaml, line 3: cannot be read as YAML: expected <block end>"),
        (b"model: width: 3\n", "mine.yaml, line 1: cannot be read as YAML: mapping values are not allowed here"),
        (b"seed: 1\nseed: 2\n", "mine.yaml, line 2: cannot be read as YAML: found duplicate key seed"),
        (b"name: [a, b\nseed: 3\n", "mine.yaml, line 2: cannot be read as YAML"),
        (b"name: \x01\n", "mine.yaml: cannot be read as YAML: unacceptable character"),
        (b"name: Gr\xf6\xdfe\n", "mine.yaml: byte 8 is not UTF-8; save the file as UTF-8"),
        ("name: x\n".encode("utf-16"), "mine.yaml: byte 0 is not UTF-8; save the file as UTF-8"),
        (b"- a\n- b\n", "mine.yaml: expected keys with values, `key: value`, found a list"),
        (b"3\n", "mine.yaml: Invalid loaded object type: int"),
        (b'name: "${oc.env:"\n', "mine.yaml: "),
        (b"# @package _global_ # mine\nname: x\n", "mine.yaml: Too many components in '@package _global_ # mine'"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load(tmp_path, content)
    assert str(refused.value).startswith(f"{tmp_path}/{expected}"), str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_tabs_and_indentation_have_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="indent by spaces, not by tabs"):
        load(tmp_path, b"model:\n\twidth: 3\n")
    with pytest.raises(UserError, match="keys of one mapping begin in the same column"):
        load(tmp_path, b"model:\n  width: 3\n depth: 4\n")


def test_other_apps_of_hydra_keep_their_sources() -> None:
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    from hydra_plugins.litlab_searchpath import ProjectSearchPath

    search_path: ConfigSearchPath = ConfigSearchPathImpl()
    search_path.append("main", "file:///somewhere/else")
    ProjectSearchPath().manipulate_search_path(search_path)
    assert [item.path for item in search_path.get_path()] == ["file:///somewhere/else"]
