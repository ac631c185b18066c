"""cloudflare_zone: rules among those of other clients, also while another client writes."""

from random import Random

import pytest
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare.client import (
    CloudflareApi,
    CloudflareFailure,
    Reason,
    Zone,
)
from ansible_collections.screen_flow.live.plugins.module_utils.cloudflare.rules import Rules, comparable

from emulator.faults import Fault
from tests.kit.ansible_module import warnings
from tests.kit.cloudflare import CACHE, CONFIG, TOKEN

ENTRYPOINT = f"/phases/{CACHE['phase']}/entrypoint"


def foreign(number, **more):
    """Return a cache rule of another client."""
    return {
        "ref": f"foreign_{number}",
        "action": "set_cache_settings",
        "action_parameters": {"cache": True},
        "expression": f'http.request.uri.path eq "/{number}"',
        "description": "Theirs",
        **more,
    }


def foreign_rules(rules):
    return [rule for rule in rules or [] if rule["ref"] != "managed"]


def managed_rule(rules):
    return next((rule for rule in rules or [] if rule["ref"] == "managed"), None)


def test_a_phase_without_ruleset_gets_one(run, cloudflare):
    result = run(settings=None, rules=[CACHE, CONFIG])
    assert [change["difference"] for change in result["changes"]] == ["missing", "missing"]
    assert len(cloudflare.rules()) == len(cloudflare.rules(CONFIG["phase"])) == 1
    assert cloudflare.rules()[0]["action_parameters"] == {"cache": False}
    cloudflare.api.journal.clear()
    assert not run(settings=None, rules=[CACHE, CONFIG])["changed"]
    assert cloudflare.methods() == ["GET"] * 3  # the zone and two phases


def test_a_rule_is_added_last_and_others_keep_content_and_order(run, cloudflare):
    cloudflare.edit_rules("PUT", ENTRYPOINT, {"rules": [foreign(1), foreign(2, enabled=False)]})
    before = cloudflare.rules()
    run(settings=None, rules=[CACHE])
    assert cloudflare.rules()[:2] == before
    assert managed_rule(cloudflare.rules()) is not None
    result = run(settings=None, rules=[{"phase": CACHE["phase"], "ref": "managed", "state": "absent"}])
    assert [change["difference"] for change in result["changes"]] == ["added"]
    assert cloudflare.rules() == before


def test_a_rule_changed_by_hand_is_corrected_in_its_place(run, cloudflare):
    altered = {**CACHE, "enabled": False}
    del altered["phase"]
    cloudflare.edit_rules("PUT", ENTRYPOINT, {"rules": [foreign(1), altered, foreign(2)]})
    before = cloudflare.rules()
    result = run(settings=None, rules=[CACHE])
    assert [change["difference"] for change in result["changes"]] == ["changed"]
    after = cloudflare.rules()
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1]["enabled"]


def test_check_mode_predicts_changed_rules_and_writes_nothing(run, cloudflare):
    predicted = run(check=True, settings=None, rules=[CACHE])
    assert cloudflare.rules() is None
    assert {entry["method"] for entry in cloudflare.api.journal} == {"GET"}
    actual = run(settings=None, rules=[CACHE])
    assert (actual["changes"], actual["diff"]) == (predicted["changes"], predicted["diff"])


def test_a_ruleset_created_between_read_and_write_is_kept(run, cloudflare):
    body = {"rules": [foreign(1)]}
    made = {"method": "PUT", "path": "/zones/{zone}/rulesets" + ENTRYPOINT, "body": body}
    # The first POST is the dry run.
    cloudflare.api.faults.append(
        Fault.read({"path": "/rulesets$", "method": "POST", "skip": 1, "edits": [made]})
    )
    result = run(settings=None, rules=[CACHE])
    assert [rule["ref"] for rule in cloudflare.rules()] == ["foreign_1", "managed"]
    assert "Another client changed the rules" in warnings(result)


def test_a_client_that_keeps_editing_the_rule_is_reported(run, cloudflare):
    body = {**CACHE, "enabled": False}
    del body["phase"]
    cloudflare.edit_rules("PUT", ENTRYPOINT, {"rules": [body, foreign(1)]})
    replace = {"method": "PUT", "path": "/zones/{zone}/rulesets" + ENTRYPOINT}
    faults = [{"body": {"rules": [foreign(number), {**body, "ref": "managed"}]}} for number in range(9)]
    for fault in faults:
        # Another client replaces the whole ruleset, and with it the rule's id, before each PATCH.
        edits = [{**replace, "body": {"rules": []}}, {**replace, **fault}]
        cloudflare.api.faults.append(
            Fault.read({"path": "/rules/", "method": "PATCH", "times": 1, "skip": 0, "edits": edits})
        )
    result = run(settings=None, rules=[CACHE])
    assert result["failed"]
    assert "another client changed it 4 times" in result["msg"]


def test_an_invalid_rule_is_refused(refuses, cloudflare):
    message = refuses("Can't write rule managed", settings=None, rules=[{**CACHE, "expression": "what?"}])
    assert "20127" in message
    assert cloudflare.rules() is None


class Interrupted(CloudflareApi):
    """The API, with a function called before each request."""

    before_each = staticmethod(lambda: None)

    def call(self, call):
        self.before_each()
        return super().call(call)


def write_as_other_client(random, cloudflare):
    """Do one random write that another client may do, to its own rules or to the managed one."""
    rules = cloudflare.rules()
    number = random.randrange(1_000_000)
    if rules is None:
        cloudflare.edit_rules("PUT", ENTRYPOINT, {"rules": [foreign(number)]})
        return
    ruleset = next(one["id"] for one in cloudflare.zone.rulesets.all if one["phase"] == CACHE["phase"])
    kept = [{key: rule[key] for key in foreign(0).keys() | {"enabled"} if key in rule} for rule in rules]
    which = random.choice(rules)["id"] if rules else None
    match random.choice(["add", "first", "change", "move", "remove", "replace"]):
        case "add" if len(rules) < 9:
            cloudflare.edit_rules("POST", f"/{ruleset}/rules", foreign(number))
        case "first" if len(rules) < 9:
            cloudflare.edit_rules("POST", f"/{ruleset}/rules", {**foreign(number), "position": {"index": 1}})
        case "change" if which:
            rule = next(rule for rule in rules if rule["id"] == which)
            body = {**foreign(number), "ref": rule["ref"], "enabled": random.random() < 0.5}
            cloudflare.edit_rules("PATCH", f"/{ruleset}/rules/{which}", body)
        case "move" if which:
            cloudflare.edit_rules("PATCH", f"/{ruleset}/rules/{which}", {"position": {"index": 1}})
        case "remove" if which:
            cloudflare.edit_rules("DELETE", f"/{ruleset}/rules/{which}")
        case "replace":
            # As the dashboard does: the whole ruleset in another order, some left out, each with a new id.
            random.shuffle(kept)
            cloudflare.edit_rules("PUT", f"/{ruleset}", {"rules": kept[:8]})


@pytest.mark.parametrize("block", range(10))
def test_no_foreign_rule_is_lost_in_a_thousand_runs_with_another_client(cloudflare, block):
    """After the run, the other client's rules are as its last write left them: content, order, versions."""
    zone = Zone(cloudflare.zone.id, "example.com")
    api = Interrupted(TOKEN, cloudflare.url)
    conflicts = refused = 0
    for seed in range(block * 100, block * 100 + 100):
        random = Random(seed)
        cloudflare.zone.rulesets.clear()
        for _ in range(random.randrange(4)):
            write_as_other_client(random, cloudflare)
        if random.random() < 0.5:
            own = {name: value for name, value in CACHE.items() if name != "phase"}
            mixed = [*foreign_rules(cloudflare.rules()), {**own, "enabled": random.random() < 0.5}]
            mixed = [
                {key: rule[key] for key in {*own, "enabled", "description"} if key in rule} for rule in mixed
            ]
            random.shuffle(mixed)
            cloudflare.edit_rules("PUT", ENTRYPOINT, {"rules": mixed})
        last = [cloudflare.rules()]

        def interrupt(random=random, last=last):
            if random.random() < 0.5:
                write_as_other_client(random, cloudflare)
                last[0] = cloudflare.rules()

        api.before_each = interrupt
        wanted = {**CACHE, "state": random.choice(["present", "present", "absent"])}
        rules = Rules(api, zone, [wanted])
        [resource] = rules.read()
        try:
            if resource.differs:
                resource.write()
        except CloudflareFailure as failure:
            assert failure.reason is Reason.CONFLICT, f"seed {seed}: {failure}"
            refused += 1
        else:
            if resource.differs:
                found = comparable(managed_rule(cloudflare.rules()))
                assert found == resource.wanted, f"seed {seed}"
        conflicts += bool(rules.warnings)
        assert foreign_rules(cloudflare.rules()) == foreign_rules(last[0]), f"seed {seed}"
    # Without conflicts the test would prove noresource.
    assert conflicts > 10
    assert refused < 20
