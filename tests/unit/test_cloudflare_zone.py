"""cloudflare_zone_settings over the emulated Cloudflare: what it writes, what it says when it can't."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
import yaml
from ansible.module_utils.testing import patch_module_args

from emulator.api import PREFIX, Api
from emulator.faults import Fault
from emulator.zone import Fresh, Zone
from plugins.module_utils import cloudflare_api
from plugins.modules import cloudflare_zone_settings as module

ROOT = Path(__file__).parents[2]
TOKEN = "the-token-that-must-never-be-seen-anywhere-0123456789"
GUIDE = {"ssl": "full", "websockets": True, "rocket_loader": False}
AT_ONCE = {"retry-after-ms": "1"}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """One emulated Cloudflare: its zone, its api (journal, faults), its URL."""
    folder = tmp_path_factory.mktemp("cloudflare")
    fresh = Fresh("example.com", settings={"ssl": "flexible", "websockets": "off", "rocket_loader": "on"})
    zone = Zone(folder / "zone.json", fresh)
    api = Api(zone, TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(api, http="h11", lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{PREFIX}"
        yield SimpleNamespace(zone=zone, api=api, url=url)
        server.should_exit = True
        thread.join()


@pytest.fixture
def cloudflare(emulated):
    emulated.zone.reset()
    emulated.api.reset()
    return emulated


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith("CLOUDFLARE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(cloudflare, capsys):
    """Run the module over the zone; return what it says."""

    def call(check=False, **arguments):
        defaults = {
            "zone": "example.com",
            "api_token": TOKEN,
            "api_base_url": cloudflare.url,
            "settings": GUIDE,
        }
        arguments = {name: value for name, value in (defaults | arguments).items() if value is not None}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        said = capsys.readouterr().out
        assert TOKEN not in said
        return json.loads(said)

    return call


@pytest.fixture
def fault(cloudflare):
    """Let the API answer the next requests for a path with something else."""

    def call(path, status=400, *errors, body=None, times=99, **more):
        if body is None:
            entries = [{"code": code, "message": message} for code, message in errors]
            body = {"success": False, "errors": entries, "messages": [], "result": None}
        cloudflare.api.faults.append(Fault(path=path, status=status, body=body, times=times, **more))

    return call


def written(cloudflare):
    """Return (setting, value) of every write that the API saw, in order."""
    return [
        (entry["path"].rsplit("/", 1)[1], entry["body"]["value"])
        for entry in cloudflare.api.journal
        if entry["method"] != "GET"
    ]


def verified(cloudflare):
    """Tell whether the module asked Cloudflare about its token."""
    return any(entry["path"].endswith("/verify") for entry in cloudflare.api.journal)


def warnings(said):
    return " ".join(warning["event"]["msg"] for warning in said.get("warnings", []))


# What it does.


def test_sets_what_the_guide_asks_in_an_order_that_serves(run, cloudflare):
    said = run()
    assert written(cloudflare) == [
        ("ssl_automatic_mode", "custom"),
        ("rocket_loader", "off"),
        ("ssl", "full"),
        ("websockets", "on"),
    ]
    assert said["changed"]
    assert said["changed_settings"] == [name for name, _ in written(cloudflare)]
    assert said["zone_id"] == cloudflare.zone.id
    assert said["before"] == {
        "ssl_automatic_mode": "auto",
        "rocket_loader": "on",
        "ssl": "flexible",
        "websockets": "off",
    }
    assert said["after"] == {name: cloudflare.zone.value(name) for name in said["before"]}


def test_a_second_run_writes_nothing_and_asks_once_for_each_thing(run, cloudflare):
    run()
    cloudflare.api.journal.clear()
    said = run()
    assert not said["changed"]
    assert said["changed_settings"] == []
    assert said["diff"] == []
    assert [entry["method"] for entry in cloudflare.api.journal] == ["GET"] * 5  # the zone and four settings


def test_all_is_read_before_the_first_write(run, cloudflare):
    run()
    methods = [entry["method"] for entry in cloudflare.api.journal]
    assert methods == sorted(methods)


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(run, cloudflare):
    dry = run(check=True)
    assert written(cloudflare) == []
    assert cloudflare.zone.value("ssl") == "flexible"
    assert run() == dry


def test_the_diff_shows_what_changes_setting_by_setting(run):
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


def test_a_mapping_has_a_line_for_each_key_in_the_diff():
    diff = module.as_diff("minify", {"js": "on", "css": "off"}, {"js": "on", "css": "on"})
    assert diff["before"].splitlines() == ["{", '  "css": "off",', '  "js": "on"', "}"]
    assert diff["after"].splitlines() == ["{", '  "css": "on",', '  "js": "on"', "}"]


def test_only_what_differs_is_written(run, cloudflare):
    cloudflare.zone.put_settings({"ssl": "full", "websockets": "on"})
    assert run(settings={"ssl": "full", "websockets": True, "http3": True})["changed_settings"] == [
        "ssl_automatic_mode",
        "http3",
    ]


def test_the_zone_can_be_given_by_its_id(run, cloudflare):
    assert run(zone=None, zone_id=cloudflare.zone.id)["changed"]
    assert not any(entry["path"].endswith("/zones") for entry in cloudflare.api.journal)


def test_numbers_and_booleans_take_the_form_that_cloudflare_has(run, cloudflare):
    run(settings={"min_tls_version": 1.2, "browser_cache_ttl": 600, "0rtt": True})
    assert written(cloudflare) == [("min_tls_version", "1.2"), ("browser_cache_ttl", 600), ("0rtt", "on")]


@pytest.mark.parametrize(
    ("value", "current", "wanted"),
    [
        (True, "off", "on"),
        (False, None, "off"),
        (False, True, False),
        (1.2, "1.0", "1.2"),
        (600, 14400, 600),
        ("strict", "full", "strict"),
        (["A"], ["B"], ["A"]),
        ({"css": True}, {"css": "off", "js": "on"}, {"css": "on", "js": "on"}),
    ],
)
def test_values_from_yaml(value, current, wanted):
    assert module.in_cloudflares_form(value, current) == wanted


def test_https_is_required_no_longer_before_it_is_gone(run, cloudflare):
    cloudflare.zone.put_settings({"ssl": "full", "always_use_https": "on", "ssl_automatic_mode": "custom"})
    run(settings={"ssl": False, "always_use_https": False})
    assert written(cloudflare) == [("always_use_https", "off"), ("ssl", "off")]


def test_a_stray_email_and_key_in_the_environment_change_nothing(run, monkeypatch):
    for name in ("EMAIL", "API_KEY", "API_USER_SERVICE_KEY", "API_TOKEN", "BASE_URL"):
        monkeypatch.setenv(f"CLOUDFLARE_{name}", "https://stray.example.com")
    assert run()["changed"]


def test_the_token_may_come_from_the_environment(run, monkeypatch):
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", TOKEN)
    assert run(api_token=None)["changed"]


def test_a_moment_of_trouble_is_got_over(run, fault):
    fault("/settings/ssl", 503, times=2, headers=AT_ONCE, method="GET")
    assert run()["changed"]


# Pinning the SSL mode.


def test_a_mode_that_can_not_be_pinned_is_a_warning(run, cloudflare, fault):
    fault("/ssl_automatic_mode", 400, (1057, "cannot be modified"), method="PATCH")
    said = run()
    assert cloudflare.zone.value("ssl") == "full"
    assert said["changed_settings"] == ["rocket_loader", "ssl", "websockets"]
    assert said["after"]["ssl_automatic_mode"] == "auto"
    assert "Cloudflare may change the SSL mode by itself." in warnings(said)


@pytest.mark.parametrize("editable", [False, None])
def test_a_pin_that_is_locked_or_unknown_is_not_even_tried(run, cloudflare, fault, editable):
    if editable is None:
        fault("/ssl_automatic_mode", 404, (7003, "Could not route"))
    else:
        cloudflare.zone.put_settings({"ssl_automatic_mode": {"editable": False}})
    assert "Cloudflare may change the SSL mode by itself" in warnings(run())
    assert "ssl_automatic_mode" not in dict(written(cloudflare))
    assert cloudflare.zone.value("ssl") == "full"


def test_an_automatic_mode_that_is_asked_for_is_kept(run, cloudflare):
    run(settings={"ssl": "full", "ssl_automatic_mode": "auto"})
    assert written(cloudflare) == [("ssl", "full")]


def test_nothing_is_pinned_where_ssl_is_not_asked_for(run, cloudflare):
    run(settings={"websockets": True})
    assert written(cloudflare) == [("websockets", "on")]


# What it says when it can't.


def refuses(run, cloudflare, *words, **arguments):
    """Run, and check that it failed with these words and wrote nothing."""
    said = run(**arguments)
    assert said["failed"]
    for word in words:
        assert word in said["msg"]
    assert written(cloudflare) == []
    return said["msg"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"api_token": ""}, ["api_token is empty", "CLOUDFLARE_API_TOKEN"]),
        ({"api_token": f"Bearer {TOKEN}"}, ["without the word Bearer"]),
        ({"api_token": f"{TOKEN}\n"}, ["a line break"]),
        ({"api_base_url": "api.cloudflare.com"}, ["api_base_url is 'api.cloudflare.com'"]),
        ({"api_base_url": "http://192.0.2.1/client/v4"}, ["unencrypted", "give an https:// URL"]),
        ({"zone": "contains:example"}, ["zone is 'contains:example'", "give a domain name"]),
        ({"zone": "example com"}, ["zone is 'example com'"]),
        ({"zone": None}, ["one of the following is required: zone, zone_id"]),
        ({"zone": None, "zone_id": "../user"}, ["zone_id is '../user'", "32 hexadecimal digits"]),
        ({"settings": {"../dns_records": "x"}}, ["settings names '../dns_records'"]),
        ({"settings": {"ssl": None}}, ["settings gives ssl no value"]),
    ],
)
def test_bad_input_is_refused_before_any_request(run, cloudflare, arguments, words):
    refuses(run, cloudflare, *words, **arguments)
    assert not cloudflare.api.journal


def test_an_unknown_zone(run, cloudflare):
    refuses(run, cloudflare, "Zone other.com is unknown", "correct the name", "Zone Read", zone="other.com")


def test_an_unknown_zone_id(run, cloudflare):
    refuses(run, cloudflare, "correct zone_id", "7003", zone=None, zone_id="0" * 32)


def test_a_zone_of_two_accounts(run, cloudflare, fault):
    zones = [{"id": digit * 32, "name": "example.com", "status": "active"} for digit in "ab"]
    fault("/zones$", 200, body={"success": True, "errors": [], "messages": [], "result": zones})
    refuses(run, cloudflare, "exists in 2 accounts", "give zone_id", "a" * 32)


def test_a_zone_that_is_not_served_yet_is_a_warning(run, cloudflare, fault):
    zones = [{"id": cloudflare.zone.id, "name": "example.com", "status": "pending"}]
    fault("/zones$", 200, body={"success": True, "errors": [], "messages": [], "result": zones})
    assert "Zone example.com is pending" in warnings(run())


def test_a_wrong_token(run, cloudflare):
    message = refuses(run, cloudflare, "does not know the API token", "make a new one", api_token="w" * 40)
    assert "w" * 40 not in message


def test_a_token_of_the_wrong_form(run, cloudflare):
    refuses(run, cloudflare, "does not know the API token", "6111", api_token="short")


def no_longer_valid(fault, status):
    """Answer as Cloudflare does for a token that it knows but takes no more."""
    fault("/zones", 403, (9109, "Invalid access token"))
    fault("/verify$", 200, body={"success": True, "errors": [], "messages": [], "result": {"status": status}})


@pytest.mark.parametrize("status", ["expired", "disabled"])
def test_a_token_that_is_no_longer_valid(run, cloudflare, fault, status):
    no_longer_valid(fault, status)
    refuses(run, cloudflare, f"the API token is {status}", "make a new one")


@pytest.mark.parametrize("code", [9109, 10000])
def test_a_missing_permission_is_told_from_a_bad_token(run, cloudflare, fault, code):
    words = ["valid but lacks a permission", "add the permission Zone Settings Write"]
    fault("/settings/", 403, (code, "Authentication error"))
    refuses(run, cloudflare, *words)
    # The zone was found with this token, so there is nothing to verify.
    assert not verified(cloudflare)
    refuses(run, cloudflare, *words, zone=None, zone_id=cloudflare.zone.id)
    assert verified(cloudflare)


def test_no_permission_for_the_zone_itself(run, cloudflare, fault):
    fault(
        "/zones$", 403, (0, "Actor requires permission 'com.cloudflare.api.account.zone.list' to list zones")
    )
    refuses(run, cloudflare, "Can't find zone example.com", "add the permission Zone Read", "zone.list")


def test_a_token_that_can_not_be_verified_is_told_both_ways(run, cloudflare, fault):
    fault("/zones$", 403, (10000, "Authentication error"))
    fault("/verify$", 500, headers=AT_ONCE)
    refuses(run, cloudflare, "the API token is wrong or lacks a permission")


def test_unknown_and_locked_settings_are_all_named_at_once(run, cloudflare):
    message = refuses(
        run,
        cloudflare,
        "Can't read zone setting webbsockets: there is no setting of that name",
        "Can't set zone setting polish to lossy: it is locked for this zone",
        "Nothing was written",
        settings={"ssl": "full", "webbsockets": True, "polish": "lossy"},
    )
    assert "1006" in message


def test_a_locked_setting_that_is_right_is_no_problem(run):
    assert not run(settings={"polish": "off"})["changed"]


def test_an_invalid_value(run, cloudflare):
    said = run(settings={"ssl": "half"})
    assert "Can't set zone setting ssl to half: it does not take that value" in said["msg"]
    assert "1007" in said["msg"]


@pytest.mark.parametrize("code", [1024, 1025, 1057])
def test_a_setting_that_turns_out_to_be_locked(run, fault, code):
    fault("/settings/websockets", 400, (code, "not modifiable"), method="PATCH")
    assert "the plan does not include it" in run(settings={"websockets": True})["msg"]


def test_a_plan_limit_is_not_taken_for_a_bad_token(run, cloudflare, fault):
    fault("/settings/websockets", 401, (1015, "not entitled"))
    arguments = {"zone": None, "zone_id": cloudflare.zone.id, "settings": {"websockets": True}}
    refuses(run, cloudflare, "the zone's plan does not include it", **arguments)
    assert not verified(cloudflare)


def test_a_failure_halfway_says_what_is_done_and_what_is_left(run, cloudflare, fault):
    fault("/settings/ssl$", 400, (1057, "cannot be modified"), method="PATCH")
    said = run()
    assert said["failed"]
    assert said["changed"]
    assert "Written before that: ssl_automatic_mode, rocket_loader." in said["msg"]
    assert "Not tried: websockets." in said["msg"]
    assert said["after"]["rocket_loader"] == "off"
    assert said["after"]["ssl"] == cloudflare.zone.value("ssl") == "flexible"
    cloudflare.api.faults.clear()
    assert run()["changed_settings"] == ["ssl", "websockets"]


def test_a_value_that_cloudflare_changes_is_a_warning(run, fault):
    result = {"id": "tls_1_3", "value": "zrt", "editable": True}
    fault(
        "/tls_1_3",
        200,
        body={"success": True, "errors": [], "messages": [], "result": result},
        method="PATCH",
    )
    said = run(settings={"tls_1_3": False})
    assert "took off for tls_1_3, but made it zrt" in warnings(said)
    assert said["after"] == {"tls_1_3": "zrt"}


@pytest.mark.parametrize(
    ("headers", "wait"),
    [({}, "300 s"), ({"retry-after": "240"}, "240 s"), ({"retry-after": "soon"}, "300 s")],
)
def test_the_rate_limit_beyond_what_is_waited(run, cloudflare, fault, headers, wait):
    fault("/zones$", 429, (971, "Please wait"), headers=headers)
    refuses(run, cloudflare, "rate limit is reached", f"run again in {wait}", wait_seconds=200)
    assert len(cloudflare.api.journal) == 1


def test_the_rate_limit_is_waited_for_as_told_and_says_so(run, cloudflare, fault, monkeypatch, tmp_path):
    waits = []
    monkeypatch.setattr(cloudflare_api.time, "sleep", waits.append)
    fault("/settings/ssl$", 429, times=2, headers={"retry-after": "61"}, method="PATCH")
    said = run(wait_seconds=130, progress_file=str(tmp_path / "progress"))
    assert cloudflare.zone.value("ssl") == "full"
    assert waits == [61, 61]
    assert "waiting 61 s, as it asks, to set zone setting ssl to full" in warnings(said)
    assert [line.rsplit("; ")[1] for line in (tmp_path / "progress").read_text().splitlines()] == [
        "then 69 s of patience are left.",
        "then 8 s of patience are left.",
    ]


def test_what_must_happen_once_is_sent_once(cloudflare, fault):
    api = cloudflare_api.CloudflareApi(TOKEN, cloudflare.url)
    fault("/zones$", 503)
    with pytest.raises(cloudflare_api.CloudflareFailure, match=r"in trouble \(HTTP 503\)"):
        api.call(cloudflare_api.Call("get", "/zones", "read", "Zone Read", retries=0))
    assert len(cloudflare.api.journal) == 1


def test_trouble_at_cloudflare(run, cloudflare, fault):
    fault("/zones$", 502, body="<html><title>502 Bad Gateway</title></html>", headers=AT_ONCE)
    refuses(run, cloudflare, "in trouble (HTTP 502", "www.cloudflarestatus.com")
    assert len(cloudflare.api.journal) == cloudflare_api.RETRIES + 1


@pytest.mark.parametrize("status", [200, 403])
def test_html_where_json_should_be(run, cloudflare, fault, status):
    page = "<!doctype html><html><title>Sign in</title></html>"
    fault("/zones$", status, body=page, headers={"content-type": "text/html"})
    refuses(run, cloudflare, "text/html", "titled 'Sign in'", "correct api_base_url")


@pytest.mark.parametrize("body", ["", "{", [], {"hello": 1}, {"success": True, "result": "?"}])
def test_json_that_is_not_cloudflares(run, cloudflare, fault, body):
    fault("/zones$", 200, body=body, headers={"content-type": "application/json"})
    refuses(run, cloudflare, "not as Cloudflare's API does")


def test_a_setting_without_a_value(run, cloudflare, fault):
    fault("/settings/ssl$", 200, body={"success": True, "errors": [], "messages": [], "result": None})
    refuses(run, cloudflare, "Can't read zone setting ssl", "not as Cloudflare's API does")


def test_success_false_under_200(run, cloudflare, fault):
    fault("/settings/websockets$", 200, (1234, "Something else"))
    refuses(run, cloudflare, "Cloudflare refuses it", "Something else (code 1234)")


def test_a_redirect_is_not_followed(run, cloudflare, fault):
    fault("/zones$", 301, body="", headers={"location": "/client/v4/ips"})
    refuses(run, cloudflare, "HTTP 301", "correct api_base_url")


def test_an_api_that_does_not_answer(run, cloudflare, fault, monkeypatch):
    monkeypatch.setattr(cloudflare_api, "ANSWER_SECONDS", 0.1)
    fault("/zones$", 200, delay=0.5)
    refuses(run, cloudflare, "gave no answer in 0.1 s, 3 times over")


def test_an_api_that_can_not_be_reached(run, cloudflare):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/client/v4"
    refuses(run, cloudflare, f"{url} can't be reached", "refused", "proxy", api_base_url=url)


def test_a_missing_sdk(run, cloudflare, monkeypatch):
    monkeypatch.setattr(cloudflare_api, "SDK_PROBLEM", "Traceback")
    refuses(run, cloudflare, "Failed to import the required Python library (cloudflare)")


def test_the_documentation_names_the_arguments_that_there_are():
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    spec = cloudflare_api.api_arguments() | {"settings": {"type": "dict", "required": True}}
    assert documented.keys() == spec.keys()
    for name, option in spec.items():
        for key in ("type", "required", "default"):
            assert documented[name].get(key) == option.get(key), f"{name}: {key}"


# The role, as a playbook runs it.


@pytest.fixture
def play(cloudflare, tmp_path):
    """Run the role, or its validation alone, in a real playbook; return what it prints."""

    def call(*arguments, entry="main", environment=(), **variables):
        playbook = tmp_path / "play.yml"
        role = {"name": "cloudflare_zone", "tasks_from": entry}
        tasks = [{"name": "Call the role", "ansible.builtin.import_role": role}]
        playbook.write_text(
            yaml.safe_dump([{"name": "Edge", "hosts": "all", "gather_facts": False, "tasks": tasks}])
        )
        (tmp_path / "variables.json").write_text(
            json.dumps(
                {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": sys.executable,
                    "cloudflare_zone_name": "example.com",
                    "cloudflare_zone_api_token": TOKEN,
                    "cloudflare_zone_api_base_url": cloudflare.url,
                    **variables,
                }
            )
        )
        command = [
            "ansible-playbook",
            "-i",
            "zone,",
            "-e",
            f"@{tmp_path}/variables.json",
            *arguments,
            str(playbook),
        ]
        done = subprocess.run(
            [Path(sys.executable).parent / command[0], *command[1:]],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "NO_COLOR": "1",
                **dict(environment),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = done.stdout + done.stderr
        assert TOKEN not in said
        return SimpleNamespace(rc=done.returncode, text=" ".join(said.split()), lines=said)

    return call


def test_the_role_shows_the_diff_and_never_the_token(play, cloudflare):
    log = {"CLOUDFLARE_LOG": "debug", "CLOUDFLARE_EMAIL": "stray@example.com"}
    first = play("-vvv", "--diff", environment=log)
    assert first.rc == 0, first.lines
    assert "+++ after: zone example.com, setting ssl @@ -1 +1 @@ -flexible +full" in first.text
    assert "+++ after: zone example.com, setting websockets @@ -1 +1 @@ -off +on" in first.text
    assert cloudflare.zone.value("rocket_loader") == "off"
    second = play("-e", "cloudflare_zone_websockets=yes")
    assert "changed=0" in second.text
    assert second.lines.count("TASK [") == 3


def test_a_wait_is_shown_while_it_lasts(play, fault):
    """The play runs as a child; the sentence has to come before the module's own output."""
    fault("/settings/ssl$", 429, headers={"retry-after": "2"}, method="PATCH", times=1)
    said = play()
    assert said.rc == 0
    shown = said.lines.index("zone: Cloudflare's rate limit is reached: waiting 2 s")
    assert shown < said.lines.index("changed: [zone]")


def test_the_role_fails_with_the_sentence_and_without_the_token(play, fault):
    no_longer_valid(fault, "expired")
    said = play("-vvv", "--diff")
    assert said.rc == 2
    assert "the API token is expired; make a new one" in said.text


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"cloudflare_zone_name": "my site.com"},
            "cloudflare_zone_name is 'my site.com'; give one domain name",
        ),
        ({"cloudflare_zone_api_token": ""}, "cloudflare_zone_api_token is empty; make one"),
        (
            {"cloudflare_zone_api_token": "seen-by-nobody"},
            "cloudflare_zone_api_token is no API token; make one",
        ),
        (
            {"cloudflare_zone_api_base_url": "http://192.0.2.1/"},
            "is 'http://192.0.2.1/'; give an https:// address",
        ),
        (
            {"cloudflare_zone_ssl": "half"},
            "value of cloudflare_zone_ssl must be one of: off, flexible, full, strict",
        ),
        ({"cloudflare_zone_websockets": "maybe"}, "cloudflare_zone_websockets"),
    ],
)
def test_bad_input_stops_at_validation(play, cloudflare, variables, words):
    said = play("-vvv", entry="validate", **variables)
    assert said.rc == 2
    assert words in said.text
    assert "seen-by-nobody" not in said.text
    assert not cloudflare.api.journal


def test_ssl_off_may_be_written_as_yaml_likes(play, cloudflare):
    assert play(cloudflare_zone_ssl=False).rc == 0
    assert cloudflare.zone.value("ssl") == "off"
