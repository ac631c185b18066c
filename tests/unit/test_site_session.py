"""site_session: what it signs, and what it says when it can't."""

import json
import time

import jwt
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.modules import site_session

KEY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL"


@pytest.fixture
def run(tmp_path, capsys):
    """Run the module with the key file tmp_path/key; return what it says."""

    def call(**arguments):
        arguments = {"key_file": str(tmp_path / "key"), **arguments}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            site_session.main()
        said = json.loads(capsys.readouterr().out)
        assert not said.get("failed")
        assert not said["changed"]
        return said

    return call


def test_signs_a_session_of_two_minutes_for_probes(run, tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\nan older key\n")
    said = run()
    assert said["problem"] == ""
    assert KEY not in json.dumps(said)
    name, _, token = said["cookie"].partition("=")
    assert name == "__Host-screen-flow"
    claims = jwt.decode(token, KEY, algorithms=["HS256"], options={"require": ["sub", "iat", "exp"]})
    assert claims["sub"] == "site-check"
    assert claims["exp"] - claims["iat"] == 120
    assert claims["iat"] == pytest.approx(time.time(), abs=5)


def test_another_subject_and_lifetime(run, tmp_path):
    (tmp_path / "key").write_text(KEY)
    token = run(subject="site-check-7", lifetime=5)["cookie"].partition("=")[2]
    claims = jwt.decode(token, KEY, algorithms=["HS256"])
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("site-check-7", 5)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"\n", "is empty"), (b"\xff\xfe", "is not text")],
    ids=["missing", "empty", "binary"],
)
def test_a_key_that_can_not_be_used_is_told_not_failed(run, tmp_path, content, says):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    said = run()
    assert said["cookie"] == ""
    assert str(tmp_path / "key") in said["problem"]
    assert says in said["problem"]


def test_a_missing_library_is_told_not_failed(run, tmp_path, monkeypatch):
    (tmp_path / "key").write_text(KEY)
    monkeypatch.setattr(site_session, "jwt", None)
    said = run()
    assert said["cookie"] == ""
    assert "PyJWT" in said["problem"]
