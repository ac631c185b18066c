"""When a container does not become healthy, the run's message contains its last log lines."""

from tests.kit.playbook import run_playbook, words

CONVERGE = "molecule/app_stack/converge.yml"
KEYS = "/opt/screen-flow/secrets/session_keys"


def test_the_message_has_the_last_lines_of_what_is_unhealthy(host):
    host.run_expect([0], f"cp -p {KEYS} /root/session_keys && echo short >{KEYS}")
    try:
        failed = run_playbook(CONVERGE, app_stack_log_level="WARNING", app_stack_start_timeout=20)
    finally:
        host.run_expect([0], f"cp -p /root/session_keys {KEYS} && rm /root/session_keys")
        repaired = run_playbook(CONVERGE)
    assert failed.returncode == 2
    message = words(failed.stdout)
    assert "The last lines of api:" in message
    assert "must have 1 to 2 lines of 32 or more characters" in message
    assert "The last lines of redis:" not in message
    assert repaired.returncode == 0, repaired.stdout
