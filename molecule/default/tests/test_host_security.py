"""Security updates come by themselves, and the journal stays small: asked of those who do it."""

import pytest


@pytest.mark.parametrize("timer", ["apt-daily.timer", "apt-daily-upgrade.timer"])
def test_updates_are_due_daily(host, timer):
    unit = host.service(timer)
    assert unit.is_running
    assert unit.is_enabled


def test_security_updates_alone_are_installed(host):
    said = host.run_expect([0], "unattended-upgrade --dry-run --debug 2>&1").stdout
    release = host.system_info.codename
    [allowed] = [line for line in said.splitlines() if line.startswith("Allowed origins are: ")]
    security = f"origin=Debian,codename={release}-security,label=Debian-Security"
    assert allowed.removeprefix("Allowed origins are: ") == security


def test_the_daily_run_installs_and_does_not_reboot(host):
    effective = host.run_expect([0], "apt-config dump").stdout.splitlines()
    for setting in (
        'APT::Periodic::Update-Package-Lists "1";',
        'APT::Periodic::Unattended-Upgrade "1";',
        'Unattended-Upgrade::Automatic-Reboot "false";',
    ):
        assert setting in effective
        assert sum(line.startswith(setting.split(" ")[0]) for line in effective) == 1


def test_the_journal_is_bounded(host):
    """By size in the words of the running journal; of the days it says nothing, so what it reads does."""
    said = host.run_expect(
        [0], "journalctl --unit systemd-journald --grep '^System Journal' --output cat"
    ).stdout
    assert "max 500M" in said.splitlines()[-1]
    read = host.run_expect([0], "systemd-analyze cat-config systemd/journald.conf").stdout.splitlines()
    assert [line for line in read if line.startswith("MaxRetentionSec=")] == ["MaxRetentionSec=30day"]
