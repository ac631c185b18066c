"""Failures of Cloudflare's API: each has a reason, and a sentence with cause and remedy."""

import socket

import pytest
import yaml
from ansible_collections.screen_flow.live.plugins.doc_fragments.cloudflare import ModuleDocFragment
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare import client
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare import module as module_utils
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare.client import (
    Call,
    CloudflareApi,
    CloudflareFailure,
    Reason,
)
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_zone

from tests.kit.ansible_module import warnings
from tests.kit.cloudflare import RETRY_AT_ONCE, TOKEN


def verified(cloudflare):
    """Return whether the token was verified."""
    return any(entry["path"].endswith("/verify") for entry in cloudflare.api.journal)


# Inputs.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"api_token": ""}, ["api_token is empty", "CLOUDFLARE_API_TOKEN"]),
        ({"api_token": None}, ["api_token is empty", "CLOUDFLARE_API_TOKEN"]),
        ({"api_token": f"Bearer {TOKEN}"}, ["without the word Bearer"]),
        ({"api_token": f"{TOKEN}\n"}, ["a line break"]),
        ({"api_base_url": "api.cloudflare.com"}, ["api_base_url is 'api.cloudflare.com'"]),
        ({"api_base_url": "http://192.0.2.1/client/v4"}, ["unencrypted", "use an https:// URL"]),
        ({"zone": "contains:example"}, ["zone is 'contains:example'", "use a domain name"]),
        ({"zone": "example com"}, ["zone is 'example com'"]),
        ({"zone": None}, ["zone and zone_id are both missing: set one"]),
        ({"zone": None, "zone_id": "../user"}, ["zone_id is '../user'", "32 hexadecimal digits"]),
        ({"settings": {"../dns_records": "x"}}, ["settings names '../dns_records'"]),
        ({"settings": {"ssl": None}}, ["settings has no value for ssl"]),
    ],
)
def test_invalid_input_is_refused_before_any_request(refuses, cloudflare, arguments, words):
    refuses(*words, **arguments)
    assert not cloudflare.api.journal


def test_the_token_may_come_from_the_environment(run, monkeypatch):
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", TOKEN)
    assert run(api_token=None)["changed"]


def test_other_credentials_in_the_environment_are_ignored(run, monkeypatch):
    for name in ("EMAIL", "API_KEY", "API_USER_SERVICE_KEY", "API_TOKEN", "BASE_URL"):
        monkeypatch.setenv(f"CLOUDFLARE_{name}", "https://stray.example.com")
    assert run()["changed"]


def test_a_missing_sdk(refuses, monkeypatch):
    monkeypatch.setattr(module_utils, "SDK_IMPORT_ERROR", "Traceback")
    refuses("Failed to import the required Python library (cloudflare)")


def compare(documented, spec, path=""):
    """Fail where the documentation and the argument spec differ, suboptions included."""
    assert documented.keys() == spec.keys(), path
    for name, option in spec.items():
        for key in ("type", "required", "default", "choices", "elements"):
            assert documented[name].get(key) == option.get(key), f"{path}{name}: {key}"
        compare(documented[name].get("suboptions", {}), option.get("options", {}), f"{path}{name}.")


def test_the_documented_options_are_the_arguments():
    compare(yaml.safe_load(cloudflare_zone.DOCUMENTATION)["options"], cloudflare_zone.ARGUMENTS)
    shared = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    compare(shared, module_utils.COMMON_ARGUMENTS)


# The zone.


def test_an_unknown_zone(refuses):
    refuses("Zone other.com does not exist", "correct the name", "Zone Read", zone="other.com")


def test_an_unknown_zone_id(refuses):
    refuses("correct zone_id", "7003", zone=None, zone_id="0" * 32)


def in_two_accounts(cloudflare):
    """Answer a search for the zone's name with another account's zone as well."""
    shop = {"id": "a" * 32, "name": "Shop Ltd"}
    other = {"id": "b" * 32, "name": "example.com", "status": "active", "account": shop}
    cloudflare.succeed("/zones$", [cloudflare.zone.describe(), other])


def test_a_zone_of_two_accounts(refuses, cloudflare):
    in_two_accounts(cloudflare)
    own = f"{cloudflare.zone.id} (account Emulated account, "
    other = f"{'b' * 32} (account Shop Ltd, {'a' * 32})"
    refuses(
        "Zone example.com exists in 2 accounts", "set zone_id (site_zone_id in the inventory)", own, other
    )


def test_a_zone_of_two_accounts_is_found_by_its_id(run, cloudflare):
    in_two_accounts(cloudflare)
    assert run(zone_id=cloudflare.zone.id)["after"]["settings"]["ssl"] == "full"
    assert cloudflare.zone.value("ssl") == "full"


def test_an_id_of_another_zone(refuses, cloudflare):
    words = [
        f"zone_id is {cloudflare.zone.id}, which is the zone example.com (account",
        "but zone is www.org",
    ]
    refuses(*words, "correct one of them", zone="www.org", zone_id=cloudflare.zone.id)


def test_an_id_of_no_zone_beside_a_name(refuses):
    refuses("correct zone_id", zone_id="0" * 32)


@pytest.mark.parametrize("zone", ["example.com", None])
def test_an_empty_id_is_none(run, zone):
    assert run(zone=zone, zone_id="").get("failed", False) is (zone is None)


def test_a_zone_that_is_not_active_is_a_warning(run, cloudflare):
    cloudflare.succeed("/zones$", [{"id": cloudflare.zone.id, "name": "example.com", "status": "pending"}])
    assert "Zone example.com is pending" in warnings(run())


# The token.


def test_a_wrong_token(refuses):
    message = refuses("does not recognize the API token", "create a token", api_token="w" * 40)
    assert "w" * 40 not in message


def test_a_malformed_token(refuses):
    refuses("does not recognize the API token", "6111", api_token="short")


@pytest.mark.parametrize(
    ("status", "reason"), [("expired", Reason.TOKEN_EXPIRED), ("disabled", Reason.TOKEN_DISABLED)]
)
def test_a_token_that_is_no_longer_valid(refuses, cloudflare, status, reason):
    cloudflare.fail("/zones", 403, (9109, "Invalid access token"))
    cloudflare.succeed("/verify$", {"status": status})
    refuses(f"the API token is {status}", "create a token")
    with pytest.raises(CloudflareFailure) as failed:
        CloudflareApi(TOKEN, cloudflare.url).find_zone("example.com")
    assert (failed.value.reason, failed.value.status, failed.value.codes) == (reason, 403, {9109})


@pytest.mark.parametrize("code", [9109, 10000])
def test_a_missing_permission_is_distinguished_from_a_bad_token(refuses, cloudflare, code):
    words = ["valid but lacks a permission", "add Zone Settings Write for this zone", "Nothing was written"]
    cloudflare.fail("/settings/", 403, (code, "Authentication error"))
    refuses(*words)
    # The token found the zone, so it needs no verification.
    assert not verified(cloudflare)
    refuses(*words, zone=None, zone_id=cloudflare.zone.id)
    assert verified(cloudflare)


def test_no_permission_for_the_zone_itself(refuses, cloudflare):
    cloudflare.fail(
        "/zones$", 403, (0, "Actor requires permission 'com.cloudflare.api.account.zone.list' to list zones")
    )
    refuses("Can't find zone example.com", "add the permission Zone Read", "zone.list")


def test_a_token_that_cannot_be_verified_has_two_possible_causes(refuses, cloudflare):
    cloudflare.fail("/zones$", 403, (10000, "Authentication error"))
    cloudflare.fail("/verify$", 500, headers=RETRY_AT_ONCE)
    refuses("the API token is wrong or lacks a permission")


# Settings.


def test_unknown_and_locked_settings_are_all_named_at_once(refuses):
    message = refuses(
        "Can't read zone setting webbsockets: Cloudflare has no setting of that name",
        "Can't set zone setting polish to lossy: it is locked for this zone",
        "Nothing was written",
        settings={"ssl": "full", "webbsockets": True, "polish": "lossy"},
    )
    assert "1006" in message


def test_a_locked_setting_with_the_wanted_value_is_accepted(run):
    assert not run(settings={"polish": "off"})["changed"]


def test_an_invalid_value(run):
    result = run(settings={"ssl": "half"})
    assert "Can't set zone setting ssl to half: the value is not valid for this setting" in result["msg"]
    assert "1007" in result["msg"]


@pytest.mark.parametrize("code", [1024, 1025, 1057])
def test_a_setting_that_is_locked_on_write(run, cloudflare, code):
    cloudflare.fail("/settings/websockets", 400, (code, "not modifiable"), method="PATCH")
    assert "the plan does not include it" in run(settings={"websockets": True})["msg"]


def test_a_plan_limit_is_distinguished_from_a_bad_token(refuses, cloudflare):
    cloudflare.fail("/settings/websockets", 401, (1015, "not entitled"))
    arguments = {"zone": None, "zone_id": cloudflare.zone.id, "settings": {"websockets": True}}
    refuses("the zone's plan does not include it", **arguments)
    assert not verified(cloudflare)


def test_a_partial_failure_names_what_was_written_and_what_was_not(run, cloudflare):
    cloudflare.fail("/settings/ssl$", 400, (1057, "cannot be modified"), method="PATCH")
    result = run()
    assert result["failed"]
    assert result["changed"]
    assert "Written before that: setting ssl_automatic_mode, setting rocket_loader." in result["msg"]
    assert "Not attempted: setting websockets." in result["msg"]
    assert result["after"]["settings"]["rocket_loader"] == "off"
    assert result["after"]["settings"]["ssl"] == cloudflare.zone.value("ssl") == "flexible"
    cloudflare.api.faults.clear()
    assert [change["resource"] for change in run()["changes"]] == ["setting ssl", "setting websockets"]


def test_a_value_that_cloudflare_replaces_is_a_warning(run, cloudflare):
    cloudflare.succeed("/tls_1_3", {"id": "tls_1_3", "value": "zrt", "editable": True}, method="PATCH")
    result = run(settings={"tls_1_3": False})
    assert "setting tls_1_3 was set to off, but Cloudflare stored zrt instead." in warnings(result)
    assert result["after"]["settings"] == {"tls_1_3": "zrt"}


# The rate limit, and the way to the API.


@pytest.mark.parametrize(
    ("headers", "wait"),
    [({}, "300 s"), ({"retry-after": "240"}, "240 s"), ({"retry-after": "soon"}, "300 s")],
)
def test_a_rate_limit_beyond_wait_seconds(refuses, cloudflare, headers, wait):
    cloudflare.fail("/zones$", 429, (971, "Please wait"), headers=headers)
    refuses("rate limit", f"run again in {wait}", "A larger wait_seconds", wait_seconds=200)
    assert len(cloudflare.api.journal) == 1
    assert "wait_seconds" not in refuses("rate limit", wait_seconds=0)


def test_a_rate_limit_is_waited_for_and_reported(run, cloudflare, monkeypatch, tmp_path):
    waits = []
    monkeypatch.setattr(client.time, "sleep", waits.append)
    cloudflare.fail("/settings/ssl$", 429, times=2, headers={"retry-after": "61"}, method="PATCH")
    result = run(wait_seconds=130, progress_file=str(tmp_path / "progress"))
    assert cloudflare.zone.value("ssl") == "full"
    assert waits == [61, 61]
    assert "waiting 61 s to set zone setting ssl to full" in warnings(result)
    assert [line.rsplit("; ")[1] for line in (tmp_path / "progress").read_text().splitlines()] == [
        "69 s of wait_seconds remain.",
        "8 s of wait_seconds remain.",
    ]


def test_a_request_without_retries_is_sent_once(cloudflare):
    cloudflare.fail("/zones$", 503)
    with pytest.raises(CloudflareFailure, match=r"returned HTTP 503;") as failed:
        CloudflareApi(TOKEN, cloudflare.url).call(Call("get", "/zones", "read", "Zone Read", retries=0))
    assert failed.value.reason is Reason.SERVER_ERROR
    assert len(cloudflare.api.journal) == 1


def test_a_short_outage_is_retried(run, cloudflare):
    cloudflare.fail("/settings/ssl", 503, times=2, headers=RETRY_AT_ONCE, method="GET")
    assert run()["changed"]


def test_an_outage(refuses, cloudflare):
    cloudflare.fail("/zones$", 502, body="<html><title>502 Bad Gateway</title></html>", headers=RETRY_AT_ONCE)
    refuses("returned HTTP 502, 3 attempts", "www.cloudflarestatus.com")
    assert len(cloudflare.api.journal) == client.RETRIES + 1


@pytest.mark.parametrize("status", [200, 403])
def test_html_instead_of_json(refuses, cloudflare, status):
    page = "<!doctype html><html><title>Sign in</title></html>"
    cloudflare.fail("/zones$", status, body=page, headers={"content-type": "text/html"})
    refuses("text/html", "title 'Sign in'", "correct api_base_url")


@pytest.mark.parametrize("body", ["", "{", [], {"hello": 1}, {"success": True, "result": "?"}])
def test_json_that_is_not_cloudflares(refuses, cloudflare, body):
    cloudflare.fail("/zones$", 200, body=body, headers={"content-type": "application/json"})
    refuses("is not one of Cloudflare's API")


def test_a_setting_without_a_value(refuses, cloudflare):
    cloudflare.succeed("/settings/ssl$", None)
    refuses("Can't read zone setting ssl", "is not one of Cloudflare's API")


def test_success_false_under_200(refuses, cloudflare):
    cloudflare.fail("/settings/websockets$", 200, (1234, "Something else"))
    refuses("Cloudflare rejected it", "Something else (code 1234)")


def test_a_redirect_is_not_followed(refuses, cloudflare):
    cloudflare.fail("/zones$", 301, body="", headers={"location": "/client/v4/ips"})
    refuses("HTTP 301", "correct api_base_url")


def test_an_api_that_does_not_respond(refuses, cloudflare, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.1)
    cloudflare.fail("/zones$", 200, delay=0.5)
    refuses(f"no response from {cloudflare.url} in 0.1 s, 3 attempts")


def test_an_api_that_cannot_be_reached(refuses):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/client/v4"
    refuses(f"can't connect to {url}", "refused", "proxy", api_base_url=url)
