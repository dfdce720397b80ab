"""What a database or a message names stays within the study."""

from pathlib import Path

import pytest

from engine.base.confine import inside, remove
from engine.base.errors import StoreError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "study"
    (made / "a").mkdir(parents=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    return made


@pytest.mark.parametrize("name", ["", ".", "/", "..", "../precious", "a/../../precious", "a/..", "x\0y"])
@pytest.mark.parametrize("use", [inside, remove])
def test_a_name_that_leads_out_is_refused(root, use, name):
    with pytest.raises(StoreError) as caught:
        use(root, name)
    assert "\n" not in str(caught.value)
    assert (root / "a").is_dir()


@pytest.mark.parametrize("use", [inside, remove])
def test_an_absolute_name_is_refused(root, tmp_path, use):
    with pytest.raises(StoreError):
        use(root, str(tmp_path / "precious"))
    with pytest.raises(StoreError):
        use(root, str(root / "a"))
    assert (tmp_path / "precious" / "file").read_text() == "mine"


@pytest.mark.parametrize("use", [inside, remove])
def test_a_link_on_the_way_that_leads_out_is_refused(root, tmp_path, use):
    (root / "away").symlink_to(tmp_path / "precious")
    (root / "self").symlink_to(root)
    for name in ("away/file", "away/new", "self/../../precious/file"):
        with pytest.raises(StoreError):
            use(root, name)
    with pytest.raises(StoreError, match="link"):
        inside(root, "away")
    with pytest.raises(StoreError, match="link"):
        inside(root, "self")
    assert (tmp_path / "precious" / "file").read_text() == "mine"


def test_of_a_link_only_the_link_is_removed(root, tmp_path):
    (root / "away").symlink_to(tmp_path / "precious")
    (root / "a" / "deep").symlink_to(tmp_path / "precious")
    remove(root, "away")
    remove(root, "a")
    assert not list(root.iterdir())
    assert (tmp_path / "precious" / "file").read_text() == "mine"


def test_a_link_in_a_circle_is_refused(root):
    (root / "circle").symlink_to("circle")
    with pytest.raises(StoreError):
        inside(root, "circle/x")


def test_what_lies_within_is_given_and_removed(root, tmp_path):
    (root / "a" / "b").mkdir()
    (root / "a" / "b" / "c").write_text("")
    (root / "near").symlink_to(root / "a")
    (tmp_path / "other").symlink_to(root)  # the root itself may be reached by a link
    assert inside(root, "a/b/c") == root / "a" / "b" / "c"
    assert inside(root, Path("near/b/new")) == root / "near" / "b" / "new"
    assert inside(tmp_path / "other", "a").exists()
    remove(root, "a/b/c")
    remove(root, "a/b/c")
    remove(root, "nothing/here")
    remove(tmp_path / "other", "a")
    assert not (root / "a").exists()
    assert root.is_dir()


def test_what_cannot_be_removed_is_told(root, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", full)
    with pytest.raises(PermissionError):
        remove(root, "a")
