"""cloudflare_zone: settings, in what order they are written, and how their values compare."""

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare.resource import make_diff
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare.settings import normalize

from tests.kit.ansible_module import warnings


def changed(result):
    """Return the names of the settings that changed, in order."""
    return [change["resource"].removeprefix("setting ") for change in result["changes"]]


def test_writes_the_guides_settings_in_a_safe_order(run, cloudflare):
    result = run()
    assert cloudflare.settings_written() == [
        ("ssl_automatic_mode", "custom"),
        ("rocket_loader", "off"),
        ("ssl", "full"),
        ("websockets", "on"),
    ]
    assert result["changed"]
    assert changed(result) == [name for name, _ in cloudflare.settings_written()]
    assert result["zone_id"] == cloudflare.zone.id
    assert result["before"]["settings"] == {
        "ssl_automatic_mode": "auto",
        "rocket_loader": "on",
        "ssl": "flexible",
        "websockets": "off",
    }
    assert result["after"]["settings"] == {
        name: cloudflare.zone.value(name) for name in result["before"]["settings"]
    }


def test_a_second_run_writes_nothing_and_reads_each_setting_once(run, cloudflare):
    run()
    cloudflare.api.journal.clear()
    result = run()
    assert not result["changed"]
    assert result["changes"] == []
    assert result["diff"] == []
    assert cloudflare.methods() == ["GET"] * 5  # the zone and four settings


def test_everything_is_read_before_the_first_write(run, cloudflare):
    run()
    assert cloudflare.methods() == sorted(cloudflare.methods())


def test_check_mode_predicts_the_changes_and_writes_nothing(run, cloudflare):
    predicted = run(check=True)
    assert cloudflare.settings_written() == []
    assert cloudflare.zone.value("ssl") == "flexible"
    actual = run()
    assert {**actual, "calls": None} == {**predicted, "calls": None}


def test_the_diff_has_a_part_for_each_setting(run):
    run(settings={"websockets": True})
    shown = [
        (part["before_header"], part["after_header"], part["before"], part["after"])
        for part in run(check=True)["diff"]
    ]
    assert shown == [
        (f"zone example.com, setting {name}", f"zone example.com, setting {name}", before, after)
        for name, before, after in [
            ("ssl_automatic_mode", "auto\n", "custom\n"),
            ("rocket_loader", "on\n", "off\n"),
            ("ssl", "flexible\n", "full\n"),
        ]
    ]


def test_the_diff_of_a_mapping_has_a_line_for_each_key():
    diff = make_diff("minify", {"js": "on", "css": "off"}, {"js": "on", "css": "on"})
    assert diff["before"].splitlines() == ["{", '  "css": "off",', '  "js": "on"', "}"]
    assert diff["after"].splitlines() == ["{", '  "css": "on",', '  "js": "on"', "}"]


def test_only_differences_are_written(run, cloudflare):
    cloudflare.zone.put_settings({"ssl": "full", "websockets": "on"})
    assert changed(run(settings={"ssl": "full", "websockets": True, "http3": True})) == [
        "ssl_automatic_mode",
        "http3",
    ]


def test_a_zone_id_saves_the_search(run, cloudflare):
    assert run(zone=None, zone_id=cloudflare.zone.id)["changed"]
    assert not any(entry["path"].endswith("/zones") for entry in cloudflare.api.journal)


def test_numbers_and_booleans_are_written_in_cloudflares_form(run, cloudflare):
    run(settings={"min_tls_version": 1.2, "browser_cache_ttl": 600, "0rtt": True})
    assert cloudflare.settings_written() == [
        ("min_tls_version", "1.2"),
        ("browser_cache_ttl", 600),
        ("0rtt", "on"),
    ]


@pytest.mark.parametrize(
    ("value", "current", "wanted"),
    [
        (True, "off", "on"),
        (False, None, "off"),
        (True, "zrt", "zrt"),
        (False, "zrt", "off"),
        (False, True, False),
        (1.2, "1.0", "1.2"),
        (600, 14400, 600),
        ("strict", "full", "strict"),
        (["A"], ["B"], ["A"]),
        ({"css": True}, {"css": "off", "js": "on"}, {"css": "on", "js": "on"}),
    ],
)
def test_yaml_values_are_normalized(value, current, wanted):
    assert normalize(value, current) == wanted


def test_always_use_https_is_turned_off_before_ssl(run, cloudflare):
    cloudflare.zone.put_settings({"ssl": "full", "always_use_https": "on", "ssl_automatic_mode": "custom"})
    run(settings={"ssl": False, "always_use_https": False})
    assert cloudflare.settings_written() == [("always_use_https", "off"), ("ssl", "off")]


# The automatic SSL mode.


def test_an_automatic_mode_that_cannot_be_changed_is_a_warning(run, cloudflare):
    cloudflare.fail("/ssl_automatic_mode", 400, (1057, "cannot be modified"), method="PATCH")
    result = run()
    assert cloudflare.zone.value("ssl") == "full"
    assert changed(result) == ["rocket_loader", "ssl", "websockets"]
    assert result["after"]["settings"]["ssl_automatic_mode"] == "auto"
    assert "Cloudflare may change the SSL mode on its own." in warnings(result)


@pytest.mark.parametrize("editable", [False, None])
def test_an_automatic_mode_that_is_locked_or_unknown_is_not_written(run, cloudflare, editable):
    if editable is None:
        cloudflare.fail("/ssl_automatic_mode", 404, (7003, "Could not route"))
    else:
        cloudflare.zone.put_settings({"ssl_automatic_mode": {"editable": False}})
    assert "Cloudflare may change the SSL mode on its own" in warnings(run())
    assert "ssl_automatic_mode" not in dict(cloudflare.settings_written())
    assert cloudflare.zone.value("ssl") == "full"


def test_an_automatic_mode_that_is_wanted_is_kept(run, cloudflare):
    run(settings={"ssl": "full", "ssl_automatic_mode": "auto"})
    assert cloudflare.settings_written() == [("ssl", "full")]


def test_the_automatic_mode_is_left_alone_without_ssl(run, cloudflare):
    run(settings={"websockets": True})
    assert cloudflare.settings_written() == [("websockets", "on")]
