"""Paths inside a folder that a stranger may have made."""

import os
from pathlib import Path

import pytest

from cae_cli.errors import UserError
from cae_cli.system import guarded
from cae_cli.system.guarded import DEEPEST, GuardedPath


@pytest.fixture
def root(tmp_path):
    (tmp_path / "run" / "inner").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    return GuardedPath(tmp_path / "run")


def test_a_file_is_written_read_renamed_and_removed(root):
    file = root / "new/file.txt"
    with file.atomic() as temporary:
        temporary.write_text("a")
    with file.append() as end:
        end.write(b"b")
    assert file.read_text() == "ab" and [c.name for c in file.parent.children()] == ["file.txt"]
    assert file.rename("other").read_text() == "ab" and not file.exists()
    (root / "new/other").unlink()
    (root / "new").remove()
    assert [c.name for c in root.walk()] == ["inner"] and (root / "new").children() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "a/../b", "/etc/passwd", "a//b", "a\0b"])
def test_a_name_leads_nowhere_else(root, name):
    with pytest.raises(ValueError, match="not the name of a file"):
        root / name


OPERATIONS = {
    "open": lambda path: path.open(),
    "read_text": lambda path: path.read_text(),
    "append": lambda path: path.append(),
}
WITHIN = {
    **OPERATIONS,
    "stat": lambda path: path.stat(),
    "exists": lambda path: path.exists(),
    "children": lambda path: path.parent.children(),
    "atomic": lambda path: path.atomic().__enter__(),
    "make": lambda path: path.make(),
    "rename": lambda path: path.rename("other"),
    "unlink": lambda path: path.unlink(),
    "remove": lambda path: path.remove(),
    "opened": lambda path: path.opened().__enter__(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("target", ["../outside/file", "nowhere", "/dev/zero", "link"])
def test_no_operation_follows_a_link(root, operation, target):
    (root.shown / "link").symlink_to(target)
    with pytest.raises(UserError, match="link is a link"):
        OPERATIONS[operation](root / "link")
    assert (root.shown.parent / "outside" / "file").read_text() == "outside"
    assert not (root.shown / "nowhere").exists()


@pytest.mark.parametrize("operation", WITHIN)
def test_no_operation_goes_through_a_linked_folder(root, operation):
    (root.shown / "link").symlink_to("../outside")
    with pytest.raises(UserError, match="link is a link"):
        WITHIN[operation](root / "link/file")
    assert [p.name for p in (root.shown.parent / "outside").iterdir()] == ["file"]


def test_a_link_is_replaced_and_removed_itself(root):
    for name in ("one", "two"):
        (root.shown / name).symlink_to("../outside/file")
    with (root / "one").atomic() as temporary:
        temporary.write_text("inside")
    (root / "two").unlink()
    assert (root / "one").read_text() == "inside" and not (root / "two").exists()
    assert (root.shown.parent / "outside" / "file").read_text() == "outside"


def test_a_pipe_is_not_waited_for(root):
    os.mkfifo(root.shown / "pipe")
    for operation in OPERATIONS.values():
        with pytest.raises(UserError, match="pipe is a pipe, where a file belongs"):
            operation(root / "pipe")
    with pytest.raises(UserError, match="where a folder belongs"):
        (root / "pipe").children()
    with pytest.raises(UserError, match="pipe is a pipe"):
        root.check()


def test_a_hard_link_is_read_and_gets_its_own_content_before_it_is_written(root):
    outside = root.shown.parent / "outside" / "file"
    for name in ("log", "other", "inner/deep"):
        (root.shown / name).hardlink_to(outside)
    assert (root / "log").read_text() == "outside"
    with (root / "log").append() as file:
        file.write(b" and more")
    assert (root / "log").read_text() == "outside and more" and outside.read_text() == "outside"
    root.check()  # what is directly in the folder
    assert outside.stat().st_nlink == 2 and (root / "other").read_text() == "outside"
    (root / "inner").check()
    assert outside.stat().st_nlink == 1


def test_a_large_hard_link_is_not_appended_to(root, monkeypatch):
    monkeypatch.setattr(guarded, "MOST_TEXT", 3)
    (root.shown / "log").hardlink_to(root.shown.parent / "outside" / "file")
    with pytest.raises(UserError, match="log is a hard link"):
        (root / "log").append()


def test_a_folder_may_be_checked_without_those_in_it(root):
    os.mkfifo(root.shown / "inner" / "pipe")
    root.check(deep=False)
    with pytest.raises(UserError, match="pipe is a pipe"):
        root.check()


def test_a_folder_is_not_removed_as_a_file(root):
    with pytest.raises(UserError, match="inner is a folder, where a file belongs"):
        (root / "inner").unlink()


def test_a_file_does_not_replace_a_folder(root):
    path = root / "inner"
    with pytest.raises(UserError, match="is a folder, where a file") as caught, path.atomic() as new:
        new.write_text("new")
    assert caught.value.where == str(root / "inner") and caught.value.hint.startswith("remove it: rm -r")
    assert [path.name for path in root.walk()] == ["inner"]


def test_folders_without_end_are_refused(root):
    (root.shown / "/".join("d" * (DEEPEST + 3))).mkdir(parents=True)
    with pytest.raises(UserError, match="nested deeper"):
        list(root.walk())


def test_a_folder_that_may_not_be_listed_is_left_out_only_if_asked_for(root, monkeypatch):
    children = GuardedPath.children

    def listed(self, pattern="*"):
        if self.name == "inner":
            raise PermissionError
        return children(self, pattern)

    monkeypatch.setattr(GuardedPath, "children", listed)
    assert [path.name for path in root.walk(readable=True)] == ["inner"]
    with pytest.raises(PermissionError):
        list(root.walk())


def test_an_error_names_the_whole_path(root):
    for operation in ("rename", "remove"):
        with pytest.raises(OSError, match="No such file") as refused:
            WITHIN[operation](root / "inner/missing")
        assert refused.value.filename == str(root.shown / "inner" / "missing")


def test_a_name_that_no_file_can_have_is_refused(root):
    with pytest.raises(ValueError, match="not the name of a file"):
        root / "\ud800a"
    assert (root / "\udcff").name == "\udcff"  # a byte that is not UTF-8


def test_the_root_may_be_a_link(root):
    (root.shown.parent / "link").symlink_to("run")
    linked = GuardedPath(root.shown.parent / "link")
    with (linked / "file").atomic() as temporary:
        temporary.write_text("x")
    assert (root / "file").read_text() == "x"


def test_no_descriptor_is_left_open(root):
    (root.shown / "link").symlink_to("../outside")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for operation in WITHIN.values():
        with pytest.raises(UserError):
            operation(root / "link/file")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_it_cannot_be_opened_in_another_way(root):
    with pytest.raises(TypeError):
        open(root / "file")  # noqa: PTH123, SIM115


def test_systems_without_descriptors_of_folders_refuse_links_too(root, monkeypatch):
    monkeypatch.setattr("cae_cli.system.guarded._BY_DESCRIPTOR", False)
    (root.shown / "link").symlink_to("../outside")
    (root.shown / "file").symlink_to("../outside/file")
    for operation in OPERATIONS.values():
        for name in ("link/file", "file"):
            with pytest.raises(UserError, match="is a link"):
                operation(root / name)
    with (root / "inner/new").atomic() as temporary:
        temporary.write_text("x")
    assert (root / "inner/new").read_text() == "x"
