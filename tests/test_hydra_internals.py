"""The private parts of Hydra that cae uses. A test that fails here names the part that has changed."""

import importlib
import inspect
import subprocess
import sys

import pytest

from cae_cli.config import hydra_internals
from cae_cli.config.compose import composed
from tests.conftest import ROOT, environment

# Each part with the names of its parameters, as the code calls or overrides it.
PARTS = {
    "hydra._internal.callbacks:Callbacks": "config",
    "hydra._internal.config_loader_impl:ConfigLoaderImpl": "config_search_path",
    "hydra._internal.config_loader_impl:ConfigLoaderImpl.load_configuration": (
        "self config_name overrides run_mode from_shell validate_sweep_overrides"
    ),
    "hydra._internal.config_loader_impl:ConfigLoaderImpl.load_sweep_config": (
        "self master_config sweep_overrides"
    ),
    "hydra._internal.config_loader_impl:ConfigLoaderImpl._load_single_config": "self default repo",
    "hydra._internal.config_loader_impl:ConfigLoaderImpl._parse_overrides_and_create_caching_repo": (
        "self config_name overrides"
    ),
    "hydra._internal.config_loader_impl:ConfigLoaderImpl._process_config_searchpath": (
        "self config_name parsed_overrides repo"
    ),
    "hydra._internal.config_repository:CachingConfigRepository": "delegate",
    "hydra._internal.config_repository:CachingConfigRepository.initialize_sources": (
        "self config_search_path"
    ),
    "hydra._internal.config_repository:CachingConfigRepository.load_config": "self config_path",
    "hydra._internal.config_repository:ConfigRepository._find_object_source": (
        "self config_path object_type"
    ),
    "hydra._internal.core_plugins.basic_sweeper:BasicSweeper": "max_batch_size params",
    "hydra._internal.core_plugins.basic_sweeper:BasicSweeper.split_arguments": (
        "overrides max_batch_size"
    ),
    "hydra._internal.core_plugins.basic_sweeper:BasicSweeper.split_overrides_to_chunks": "lst n",
    "hydra._internal.utils:create_config_search_path": "search_path_dir",
    "hydra._internal.utils:get_args_parser": "",
    "hydra.core.override_parser.types:Override._get_value_element_as_str": "value space_after_sep",
    "hydra.plugins.config_source:ConfigSource._normalize_file_name": "filename",
    "hydra.version:setbase": "ver",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_private_part_of_hydra_is_as_expected(part):
    module, _, path = part.partition(":")
    found = importlib.import_module(module)
    for name in path.split("."):
        assert hasattr(found, name), f"{part} does not exist any more"
        found = getattr(found, name)
    assert list(inspect.signature(found).parameters) == PARTS[part].split(), part


def test_hydras_main_builds_its_loader_where_it_is_replaced():
    with hydra_internals.guarding(hydra_internals.Trust()):
        source = inspect.getsource(importlib.import_module("hydra._internal.hydra"))
    assert "config_loader: ConfigLoader = ConfigLoaderImpl(" in source


def test_an_override_keeps_the_text_that_was_typed():
    node = composed(["rules.CAE401.threshold=0.5", "seed=1"])
    assert node.hydra.overrides.task == ["rules.CAE401.threshold=0.5", "seed=1"]


@pytest.mark.parametrize("version", ["1.2.0", "1.4.0", "2.0.0"])
def test_another_version_of_hydra_is_refused_in_one_line(version):
    code = (
        f"import hydra, sys; hydra.__version__ = {version!r}\n"
        "from cae_cli import cli; sys.exit(cli.run(['check']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"Hydra {version} is installed" in done.stderr and "pip install" in done.stderr


def test_nothing_else_uses_private_parts_of_hydra():
    files = [*(ROOT / "cae_cli").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    assert [f.name for f in files if "hydra._internal" in f.read_text()] == ["hydra_internals.py"]
