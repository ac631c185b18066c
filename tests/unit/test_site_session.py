"""site_session: the session that it signs, and the problem that it reports when it can't."""

import json
import time

import jwt
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.modules import site_session

KEY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL"


@pytest.fixture
def run(tmp_path, capsys):
    """Run the module with the key file tmp_path/key; return its result."""

    def call(**arguments):
        arguments = {"key_file": str(tmp_path / "key"), **arguments}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            site_session.main()
        result = json.loads(capsys.readouterr().out)
        assert not result.get("failed")
        assert not result["changed"]
        return result

    return call


def test_signs_a_session_of_two_minutes_for_probes(run, tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\nan older key\n")
    result = run()
    assert result["problem"] == ""
    assert KEY not in json.dumps(result)
    name, _, token = result["cookie"].partition("=")
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
    ("content", "problem"),
    [(None, "No such file"), (b"\n", "is empty"), (b"\xff\xfe", "is not text")],
    ids=["missing", "empty", "binary"],
)
def test_an_unusable_key_is_reported_without_failing(run, tmp_path, content, problem):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    result = run()
    assert result["cookie"] == ""
    assert str(tmp_path / "key") in result["problem"]
    assert problem in result["problem"]


def test_a_missing_library_is_reported_without_failing(run, tmp_path, monkeypatch):
    (tmp_path / "key").write_text(KEY)
    monkeypatch.setattr(site_session, "jwt", None)
    result = run()
    assert result["cookie"] == ""
    assert "PyJWT" in result["problem"]
