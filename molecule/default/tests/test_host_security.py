"""Security updates are installed daily and the journal is bounded, as the running services report it."""

import pytest


@pytest.mark.parametrize("timer", ["apt-daily.timer", "apt-daily-upgrade.timer"])
def test_updates_are_due_daily(host, timer):
    unit = host.service(timer)
    assert unit.is_running
    assert unit.is_enabled


def test_only_security_updates_are_installed(host):
    output = host.check_output("unattended-upgrade --dry-run --debug 2>&1")
    release = host.system_info.codename
    [allowed] = [line for line in output.splitlines() if line.startswith("Allowed origins are: ")]
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
    """The size as the running journal logs it; it does not log the days, so those of its configuration."""
    log = host.check_output("journalctl --unit systemd-journald --grep '^System Journal' --output cat")
    assert "max 500M" in log.splitlines()[-1]
    configuration = host.check_output("systemd-analyze cat-config systemd/journald.conf").splitlines()
    days = [line for line in configuration if line.startswith("MaxRetentionSec=")]
    assert days == ["MaxRetentionSec=30day"]
