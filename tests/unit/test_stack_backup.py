"""stack_backup: data are restored as saved, damaged archives are refused, interrupted runs do no harm."""

import io
import tarfile

import pytest
from ansible_collections.screen_flow.live.plugins.modules import stack_backup

from tests.kit.ansible_module import run_module

MANIFEST = "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"


@pytest.fixture
def paths(tmp_path):
    """Return the data folders of a project with two uploads, and the path of its archive."""
    aof, uploads = tmp_path / "redis/appendonlydir", tmp_path / "uploads"
    aof.mkdir(parents=True)
    uploads.mkdir()
    (aof / "appendonly.aof.manifest").write_text(MANIFEST)
    (aof / "appendonly.aof.1.base.rdb").write_bytes(b"REDIS0012")
    (aof / "appendonly.aof.1.incr.aof").write_bytes(b"*1")
    (aof / "appendonly.aof.0.incr.aof").write_bytes(b"left over, in no manifest")
    for name in ("one", "two"):
        (uploads / name).write_text(name)
    return {
        "archive": tmp_path / "backup.tar.gz",
        "redis_dir": tmp_path / "redis",
        "uploads_dir": uploads,
    }


def run(capsys, paths, state, check=False):
    arguments = {name: str(path) for name, path in paths.items()} | {"state": state}
    return run_module(stack_backup, capsys, arguments, check)


def data(paths):
    files = [*paths["redis_dir"].rglob("*"), *paths["uploads_dir"].rglob("*")]
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def test_data_are_restored_as_saved(paths, capsys):
    before = data(paths)
    saved = run(capsys, paths, "saved")
    assert (saved["files"], "failed" in saved) == (5, False)
    assert paths["archive"].stat().st_mode & 0o777 == 0o600
    (paths["redis_dir"] / "appendonlydir/appendonly.aof.1.incr.aof").write_bytes(b"*1*2")
    (paths["uploads_dir"] / "one").unlink()
    (paths["uploads_dir"] / "three").write_text("later")
    restored = run(capsys, paths, "restored")
    assert restored["time"] == saved["time"]
    del before["appendonly.aof.0.incr.aof"]  # not in Redis's manifest
    assert data(paths) == before
    assert [path.name for path in paths["redis_dir"].iterdir()] == ["appendonlydir"]


def test_a_restore_in_check_mode_validates_the_archive_and_replaces_nothing(paths, capsys):
    run(capsys, paths, "saved")
    (paths["uploads_dir"] / "three").write_text("later")
    before = data(paths)
    assert run(capsys, paths, "restored", check=True)["files"] == 5
    assert data(paths) == before


def test_a_save_in_check_mode_writes_nothing(paths, capsys):
    run(capsys, paths, "saved", check=True)
    assert not paths["archive"].exists()


def test_an_upload_that_arrives_while_redis_is_copied_is_saved(paths, capsys, monkeypatch):
    copy = stack_backup.copy_redis

    def slowly(source, target):
        (paths["uploads_dir"] / "three").write_text("meanwhile")
        copy(source, target)

    monkeypatch.setattr(stack_backup, "copy_redis", slowly)
    run(capsys, paths, "saved")
    with tarfile.open(paths["archive"]) as tar:
        assert "uploads/three" in tar.getnames()


def test_files_that_redis_rewrites_during_the_copy_are_copied_again(paths, capsys, monkeypatch):
    aof = paths["redis_dir"] / "appendonlydir"
    copy = stack_backup.shutil.copy2

    def rewritten(source, target):
        copied = copy(source, target)
        if source.name == "appendonly.aof.1.base.rdb":
            source.rename(aof / "appendonly.aof.2.base.rdb")
            (aof / "appendonly.aof.manifest").write_text(MANIFEST.replace("1.base", "2.base"))
        return copied

    monkeypatch.setattr(stack_backup.shutil, "copy2", rewritten)
    run(capsys, paths, "saved")
    with tarfile.open(paths["archive"]) as tar:
        names = tar.getnames()
    assert "redis/appendonly.aof.2.base.rdb" in names
    assert "redis/appendonly.aof.1.base.rdb" not in names


def rewrite(archive, change):
    """Rewrite the archive with `change` applied to each member's name and bytes."""
    with tarfile.open(archive) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar.getmembers()]
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in (change(*member) for member in members):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, content: (name, b"other" if name == "uploads/one" else content), "uploads/one differs"),
        (lambda name, content: (name.replace("uploads/", "../"), content), "is not a backup"),
        (lambda name, content: (name, content.replace(b'"format": 1', b'"format": 9')), "format 9"),
        (lambda name, content: (name.replace("backup.json", "x.json"), content), "does not exist"),
    ],
)
def test_a_damaged_or_foreign_archive_replaces_nothing(paths, capsys, change, message):
    run(capsys, paths, "saved")
    rewrite(paths["archive"], change)
    before = data(paths)
    result = run(capsys, paths, "restored")
    assert message in result["msg"]
    assert data(paths) == before


def test_a_file_that_is_not_an_archive_is_named(paths, capsys):
    paths["archive"].write_text("no archive")
    assert "can't be read as a backup" in run(capsys, paths, "restored")["msg"]


def test_an_interrupted_restore_is_completed_by_the_next(paths, capsys, monkeypatch):
    run(capsys, paths, "saved")
    before = data(paths)
    del before["appendonly.aof.0.incr.aof"]
    rename, calls = stack_backup.Path.rename, []

    def cut(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "interrupted", str(self))
        return rename(self, target)

    monkeypatch.setattr(stack_backup.Path, "rename", cut)
    assert run(capsys, paths, "restored")["failed"]
    monkeypatch.undo()
    assert "failed" not in run(capsys, paths, "restored")
    assert data(paths) == before


def test_missing_directories_are_named(paths, capsys, tmp_path):
    paths["redis_dir"] = tmp_path / "nowhere"
    assert f"redis_dir is '{tmp_path}/nowhere'" in run(capsys, paths, "saved")["msg"]
