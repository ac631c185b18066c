"""The emulator as a process: its options, and its state across restarts."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from emulator.__main__ import options
from emulator.zone import Zone, ZoneDefaults
from tests.kit import emulator as kit


def test_a_restart_keeps_zone_and_authorities(tmp_path: Path) -> None:
    with kit.process(tmp_path, "--settings", "ssl=full,http3=on") as first:
        before = httpx.get(f"{first.api}/_emulator/state").json()
        authority = httpx.get(f"{first.api}/_emulator/edge-ca.pem").text
        httpx.patch(f"{first.api}/_emulator/settings", json={"rocket_loader": "off"})
    assert before["settings"]["ssl"]["value"] == "full"
    with kit.process(tmp_path, "--settings", "ssl=off") as second:
        after = httpx.get(f"{second.api}/_emulator/state").json()
        assert httpx.get(f"{second.api}/_emulator/edge-ca.pem").text == authority
    assert after["zone"] == before["zone"]
    assert {name: after["settings"][name]["value"] for name in ("ssl", "http3", "rocket_loader")} == {
        "ssl": "full",
        "http3": "on",
        "rocket_loader": "off",
    }
    assert kit.TOKEN not in (tmp_path / "log").read_text()
    for key in (tmp_path / "state").glob("*.pem"):
        assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"name": "example.com"})])
def test_the_state_of_another_zone_or_of_none_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "zone.json").write_text(content)
    with pytest.raises(ValueError, match=r"is not a zone's state|holds the zone"):
        Zone(tmp_path / "zone.json", ZoneDefaults(kit.NAME))


INVALID_VALUES = {
    "zone": {"my site": "'my site' is not a domain name"},
    "api-port": {"99999": "'99999' is not a port"},
    "idle-seconds": {"never": "'never' is not a duration"},
    "token-file": {"/nowhere/token": "cannot be read"},
    "origin": {"10.0.0.300": "is neither an IP address nor a host name"},
    "settings": {
        "ssl=ful": "'ful' is not a valid value for the setting ssl",
        "brotli=on": "'brotli=on' is not a setting",
    },
    "plan": {"gold": "'gold' is not one of free, pro"},
    "ip-ranges": {"10.0.0.1/8": "10.0.0.1/8 has host bits set: use networks"},
}


@pytest.fixture
def valid(tmp_path: Path) -> dict[str, str]:
    """The required options."""
    (tmp_path / "token").write_text(kit.TOKEN)
    return {"zone": kit.NAME, "token-file": str(tmp_path / "token"), "state-dir": str(tmp_path)}


def rejection(given: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message with which the options are rejected."""
    with pytest.raises(SystemExit) as exit_:
        options([word for name, text in given.items() for word in (f"--{name}", text)])
    assert exit_.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [(option, *invalid) for option, values in INVALID_VALUES.items() for invalid in values.items()],
)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_an_invalid_option_is_reported(
    valid: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    message: str,
    by: str,
) -> None:
    valid.pop(option, None)
    if by == "option":
        valid[option] = value
    else:
        monkeypatch.setenv("EMULATOR_" + option.upper().replace("-", "_"), value)
    assert message in rejection(valid, capsys)


@pytest.mark.parametrize("option", ["zone", "token-file", "state-dir"])
def test_a_missing_option_is_reported(
    valid: dict[str, str], capsys: pytest.CaptureFixture[str], option: str
) -> None:
    del valid[option]
    assert f"required: --{option}" in rejection(valid, capsys)


def test_a_malformed_token_is_rejected_and_not_shown(
    valid: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(valid["token-file"]).write_text("not-a-token")
    error = rejection(valid, capsys)
    assert "does not hold a token" in error
    assert "not-a-token" not in error
