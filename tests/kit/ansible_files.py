"""The plays, tasks and templates of this project, for tests that check all of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, nodes

PROJECT = Path(__file__).parents[2]
ROLES = sorted((PROJECT / "roles").iterdir())
CONDITIONS = ("when", "until", "failed_when", "changed_when")
# The keys of a play or block that contain tasks.
BLOCKS = ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers")
JINJA = Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])


class Loader(yaml.SafeLoader):
    """Loads Ansible's own tags as text."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: str(node.value))


class Task(NamedTuple):
    """A play, block, task or handler: its file, its content, and what contains it, outermost first."""

    file: Path
    item: dict[str, Any]
    around: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        return f"{self.file.relative_to(PROJECT)}: {self.item.get('name')}"


def load(file: Path) -> Any:
    return yaml.load(file.read_text(), Loader)


def files(*patterns: str) -> list[Path]:
    return sorted(file for pattern in patterns for file in PROJECT.glob(pattern))


def playbooks() -> list[Path]:
    """Return the files with plays, and the files of tasks that playbooks include."""
    found = files("site.yml", "playbooks/**/*.yml", "molecule/**/*.yml")
    return [file for file in found if "group_vars" not in file.parts and isinstance(load(file), list)]


def items(file: Path) -> Iterator[Task]:
    """Yield all plays, blocks, tasks and handlers of a file."""
    stack = [Task(file, item, ()) for item in load(file) or []]
    while stack:
        task = stack.pop()
        yield task
        for part in BLOCKS:
            stack += [Task(file, inner, (*task.around, task.item)) for inner in task.item.get(part) or []]


def plays() -> list[Task]:
    return [task for file in playbooks() for task in items(file) if "hosts" in task.item]


def tasks() -> list[Task]:
    """Return all blocks, tasks and handlers of roles and playbooks."""
    found = [*files("roles/*/tasks/*.yml", "roles/*/handlers/*.yml"), *playbooks()]
    every = [task for file in found for task in items(file)]
    return [task for task in every if not {"hosts", "import_playbook"} & task.item.keys()]


def templates(file: Path) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield all strings of a file that Ansible evaluates, as templates, each with its path of YAML keys."""
    stack: list[tuple[tuple[Any, ...], Any]] = [
        ((), file.read_text() if file.suffix == ".j2" else load(file))
    ]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            stack += [((*path, key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            stack += [((*path, number), inner) for number, inner in enumerate(value)]
        elif isinstance(value, str):
            yield path, "{{ " + value + "\n}}" if is_condition(path) else value


def is_condition(path: tuple[Any, ...]) -> bool:
    keys = [key for key in path if isinstance(key, str)]
    return bool(keys) and keys[-1] in (*CONDITIONS, "that")


def expression(template: str) -> nodes.Expr:
    """Return the expression of a template that consists of one."""
    (output,) = JINJA.parse(template).body
    (node,) = output.nodes  # type: ignore[attr-defined]
    return node
