"""stack_backup: what is saved comes back, what is damaged or foreign does not, a cut run does no harm."""

import io
import json
import tarfile

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.modules import stack_backup

MANIFEST = "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"


@pytest.fixture
def places(tmp_path):
    """Return the data folders of a project with two uploads, and where its backup goes."""
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


def run(capsys, places, state, check=False):
    given = {name: str(place) for name, place in places.items()} | {"state": state}
    with patch_module_args(given | {"_ansible_check_mode": check}), pytest.raises(SystemExit):
        stack_backup.main()
    return json.loads(capsys.readouterr().out)


def data(places):
    files = [*places["redis_dir"].rglob("*"), *places["uploads_dir"].rglob("*")]
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def test_what_was_saved_comes_back(places, capsys):
    before = data(places)
    saved = run(capsys, places, "saved")
    assert (saved["files"], "failed" in saved) == (5, False)
    assert places["archive"].stat().st_mode & 0o777 == 0o600
    (places["redis_dir"] / "appendonlydir/appendonly.aof.1.incr.aof").write_bytes(b"*1*2")
    (places["uploads_dir"] / "one").unlink()
    (places["uploads_dir"] / "three").write_text("later")
    restored = run(capsys, places, "restored")
    assert restored["time"] == saved["time"]
    del before["appendonly.aof.0.incr.aof"]  # Redis does not know it either
    assert data(places) == before
    assert [path.name for path in places["redis_dir"].iterdir()] == ["appendonlydir"]


def test_a_restore_in_a_dry_run_checks_the_file_and_replaces_nothing(places, capsys):
    run(capsys, places, "saved")
    (places["uploads_dir"] / "three").write_text("later")
    before = data(places)
    assert run(capsys, places, "restored", check=True)["files"] == 5
    assert data(places) == before


def test_a_save_in_a_dry_run_writes_nothing(places, capsys):
    run(capsys, places, "saved", check=True)
    assert not places["archive"].exists()


def test_an_upload_that_comes_while_redis_is_copied_is_saved(places, capsys, monkeypatch):
    copy = stack_backup.copy_redis

    def slowly(source, target):
        (places["uploads_dir"] / "three").write_text("meanwhile")
        copy(source, target)

    monkeypatch.setattr(stack_backup, "copy_redis", slowly)
    run(capsys, places, "saved")
    with tarfile.open(places["archive"]) as tar:
        assert "uploads/three" in tar.getnames()


def test_files_that_redis_rewrites_meanwhile_are_copied_again(places, capsys, monkeypatch):
    aof = places["redis_dir"] / "appendonlydir"
    copy = stack_backup.shutil.copy2

    def rewritten(source, target):
        copied = copy(source, target)
        if source.name == "appendonly.aof.1.base.rdb":
            source.rename(aof / "appendonly.aof.2.base.rdb")
            (aof / "appendonly.aof.manifest").write_text(MANIFEST.replace("1.base", "2.base"))
        return copied

    monkeypatch.setattr(stack_backup.shutil, "copy2", rewritten)
    run(capsys, places, "saved")
    with tarfile.open(places["archive"]) as tar:
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
    ("change", "says"),
    [
        (lambda name, content: (name, b"other" if name == "uploads/one" else content), "uploads/one is not"),
        (lambda name, content: (name.replace("uploads/", "../"), content), "no backup of ours"),
        (lambda name, content: (name, content.replace(b'"format": 1', b'"format": 9')), "format 9"),
        (lambda name, content: (name.replace("backup.json", "x.json"), content), "is not there"),
    ],
)
def test_a_damaged_or_foreign_file_replaces_nothing(places, capsys, change, says):
    run(capsys, places, "saved")
    rewrite(places["archive"], change)
    before = data(places)
    said = run(capsys, places, "restored")
    assert says in said["msg"]
    assert data(places) == before


def test_what_is_no_archive_is_named(places, capsys):
    places["archive"].write_text("no archive")
    assert "can't be read as a backup" in run(capsys, places, "restored")["msg"]


def test_a_restore_that_was_cut_short_is_finished_by_the_next(places, capsys, monkeypatch):
    run(capsys, places, "saved")
    before = data(places)
    del before["appendonly.aof.0.incr.aof"]
    rename, calls = stack_backup.Path.rename, []

    def cut(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "cut short", str(self))
        return rename(self, target)

    monkeypatch.setattr(stack_backup.Path, "rename", cut)
    assert run(capsys, places, "restored")["failed"]
    monkeypatch.undo()
    assert "failed" not in run(capsys, places, "restored")
    assert data(places) == before


def test_folders_that_are_not_there_are_named(places, capsys, tmp_path):
    places["redis_dir"] = tmp_path / "nowhere"
    assert f"redis_dir is '{tmp_path}/nowhere'" in run(capsys, places, "saved")["msg"]
