"""Private parts of Hydra and Keras are used in two files only, each with a test that names them."""

import ast

import pytest

from tests.conftest import ROOT

ALLOWED = {"cae_cli/config/hydra_internals.py", "cae_cli/introspection/keras_internals.py"}
FILES = [path for package in ("cae_cli", "hydra_plugins") for path in (ROOT / package).rglob("*.py")]
LIBRARIES = ("hydra", "omegaconf", "keras", "tensorflow")
PRIVATE = ("hydra._internal", "keras.src", "tensorflow.python")
# Private names of the standard library; all others that nobody here defines are a library's.
STANDARD = {"_exit", "_forkserver", "_forkserver_pid", "_stop", "_fields", "_name"}


def trees():
    for path in FILES:
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree):
    """Private names that a file gives to something of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def used(tree):
    """Private modules and names of the libraries that a file imports or reads."""
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            modules = [ast.unparse(node)]
            if is_private(node.attr) and ast.unparse(node.value) not in ("self", "cls"):
                yield node.attr
        for module in modules:
            library, _, rest = module.partition(".")
            if module.startswith(PRIVATE) or (
                library in LIBRARIES and is_private(rest.rpartition(".")[2])
            ):
                yield module


OWN = {name for _, tree in trees() for name in defined(tree) if is_private(name)} | STANDARD


@pytest.mark.parametrize("file", sorted(ALLOWED))
def test_the_files_that_may_use_private_parts_do(file):
    assert set(used(ast.parse((ROOT / file).read_text()))) - OWN


def test_no_other_file_uses_private_parts_of_a_library():
    found = {file: sorted(set(used(tree)) - OWN) for file, tree in trees() if file not in ALLOWED}
    assert not {file: names for file, names in found.items() if names}
