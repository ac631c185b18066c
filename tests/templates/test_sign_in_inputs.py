"""The inputs for an identity provider: what preflight refuses, and what the api gets."""

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[2] / "roles/app_stack"
PROVIDER = {
    "app_stack_session_jwks_url": "https://login.example.com/keys",
    "app_stack_session_issuer": "https://login.example.com/",
    "app_stack_session_audience": ["screen-flow"],
}


def refusals(**inputs):
    """Return the sentences of the role's rules that are broken."""
    loader = DataLoader()
    variables = {"role_path": str(ROLE), "app_stack_allowed_origins": ["https://www.example.com"]}
    for file in ("defaults/main.yml", "vars/main.yml"):
        variables = loader.load_from_file(str(ROLE / file), trusted_as_template=True) | variables
    tasks = loader.load_from_file(str(ROLE / "tasks/validate.yml"), trusted_as_template=True)
    internals = tasks[-1]["vars"]
    variables |= internals | {"ansible_facts": {"server": {"listeners": []}}}
    rules = Templar(loader, variables=variables | inputs).template(internals["__app_stack_rules"])
    return [rule["msg"] for rule in rules if not rule["ok"]]


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"app_stack_demo_sign_in": True},
        PROVIDER,
        {**PROVIDER, "app_stack_session_jwks_url": "http://127.0.0.1:8080/keys"},
        {**PROVIDER, "app_stack_session_jwks_url": "http://[::1]/keys"},
        {**PROVIDER, "app_stack_session_ca_bundle": __file__},
        *[
            {**PROVIDER, "app_stack_sign_in_url": url}
            for url in ("https://login.example.com/authorize?a=b&c=%20", "/", "/sign-in", "/\u2603")
        ],
    ],
)
def test_usable(inputs):
    assert refusals(**inputs) == []


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        *[
            (
                "app_stack_session_jwks_url",
                url,
                "use the https:// address of your identity provider's key set",
            )
            for url in (
                *("http://login.example.com/keys", "http://127.0.0.1.example.com/keys", "login.example.com"),
                "https://login.example.com/a b",
            )
        ],
        ("app_stack_session_issuer", "", "use the issuer exactly as the provider's tokens have it"),
        ("app_stack_session_issuer", "my-realm", "use the issuer exactly as the provider's tokens have it"),
        ("app_stack_session_audience", [], "use a list of the aud values"),
        ("app_stack_session_audience", ["a,b"], "without commas and spaces"),
        ("app_stack_session_max_seconds", "5", "use 60 or more seconds"),
        ("app_stack_session_ca_bundle", "/nowhere", "use a PEM file, or leave it empty"),
        ("app_stack_demo_sign_in", True, "use one of the two, as the demo's sign-in signs sessions itself"),
        *[
            (
                "app_stack_sign_in_url",
                url,
                "use the https:// address where users sign in, a path of this site",
            )
            for url in (
                "//evil.example",
                "/\\evil.example",
                "http://login.example.com/",
                "javascript:alert(1)",
                "/a b",
            )
        ],
    ],
)
def test_refused(name, value, remedy):
    (sentence,) = refusals(**{**PROVIDER, name: value})
    assert f"{name} is " in sentence and remedy in sentence
    assert (str(value) if value is not True else "true") in sentence


def test_a_password_in_the_url_is_refused_and_not_shown():
    url = "https://user:secret@login.example.com/keys"
    (sentence,) = refusals(**{**PROVIDER, "app_stack_session_jwks_url": url})
    assert "https://...@login.example.com/keys" in sentence
    assert "secret" not in sentence


def environment(render, **inputs):
    text = render(
        "app_stack",
        "compose.yaml.j2",
        app_stack_allowed_origins=["https://www.example.com"],
        __app_stack_built={"app": "screen-flow-app:1", "redis": "screen-flow-redis:1"},
        **inputs,
    )
    return yaml.safe_load(text)["services"]["api"]["environment"]


def test_what_the_api_gets(render):
    api = environment(
        render,
        **{
            **PROVIDER,
            "app_stack_session_audience": ["web", "mobile"],
            "app_stack_session_ca_bundle": __file__,
            "app_stack_sign_in_url": 'https://login.example.com/authorize?a="b"&c=$d',
        },
    )
    assert "APP_SESSION_KEYS_FILE" not in api
    assert {name: value for name, value in api.items() if "SESSION" in name or "SIGN_IN" in name} == {
        "APP_SESSION_JWKS_URL": "https://login.example.com/keys",
        "APP_SESSION_ISSUER": "https://login.example.com/",
        "APP_SESSION_AUDIENCE": "web,mobile",
        "APP_SESSION_MAX_SECONDS": "86400",
        "APP_SESSION_CA_FILE": "/run/secrets/session_ca",
        "APP_DEMO_SIGN_IN": "false",
        # Compose takes a single $ for a variable's.
        "APP_SIGN_IN_URL": 'https://login.example.com/authorize?a="b"&c=$$d',
    }


def test_what_it_gets_without_a_provider(render):
    api = environment(render)
    assert {name for name in api if "SESSION" in name or "SIGN_IN" in name} == {
        "APP_SESSION_KEYS_FILE",
        "APP_DEMO_SIGN_IN",
    }
