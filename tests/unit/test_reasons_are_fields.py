"""Modules decide by fields and enums: none searches human-readable text, such as a message.

Output of outside software is parsed where it is read, into a field. Human-readable text is an exception's
text, or a field that carries one (TEXTS); comparing or searching it is a violation.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "collections/ansible_collections/screen_flow/live/plugins"
FILES = sorted(PLUGINS.rglob("*.py"))
# Fields and attributes whose value is human-readable text.
TEXTS = {
    "says", "said", "message", "msg", "error", "missing", "cause", "remedy", "detail", "strerror",
}  # fmt: skip
# Classes of exceptions, by their names.
EXCEPTION = re.compile(r"(Error|Exception|Failure|Fault|Missing)$")
# Functions and methods whose result is a text when an argument is.
PASSING = {"str", "repr", "list", "tuple", "set", "sorted", "join", "format", "next", "any", "all", "filter"}
# Files that still do it. Never add to it.
PENDING = {"module_utils/cloudflare/rules.py"}
SEARCHES = {
    "startswith", "endswith", "find", "rfind", "index", "count", "partition", "rpartition", "split",
    "search", "match", "fullmatch", "findall", "finditer",
}  # fmt: skip


def key_of(node: ast.AST) -> str:
    """Return the name of the field that a node reads: one["error"], e["server.canary.error"], one.error."""
    match node:
        case ast.Subscript(slice=ast.Constant(value=str(path))):
            return path.rpartition(".")[2]
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), *_]):
            return name
        case ast.Attribute(attr=name, ctx=ast.Load()):
            return name
    return ""


def names(target: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


class Texts:
    """The expressions of a function, or of a module's own level, that are human-readable text."""

    def __init__(self, scope: ast.AST) -> None:
        self.nodes = list(own_nodes(scope))
        handlers = [node for node in self.nodes if isinstance(node, ast.ExceptHandler)]
        self.exceptions = {*parameters(scope), *(node.name for node in handlers if node.name)}
        self.variables: set[str] = set()
        known = -1
        while known < len(self.variables):
            known = len(self.variables)
            for node in self.nodes:
                self._follow(node)

    def _follow(self, node: ast.AST) -> None:
        """Record the variables that a node assigns a text to."""
        match node:
            case ast.Assign(targets=targets, value=value) if self.contains(value):
                self.variables |= {name for target in targets for name in names(target)}
            case ast.AugAssign(target=target, value=value) if self.contains(value):
                self.variables |= names(target)
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                self.variables |= names(target) if self.contains(value) else set()

    def is_text(self, node: ast.AST) -> bool:
        match node:
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]):
                return name in self.exceptions or name in self.variables
            case ast.Name(id=name):
                return name in self.variables
        return key_of(node) in TEXTS

    def contains(self, node: ast.AST) -> bool:
        """Return whether an expression's value is, or contains, human-readable text."""
        if self.is_text(node):
            return True
        match node:
            case ast.IfExp(body=body, orelse=orelse):  # the condition only selects
                return self.contains(body) or self.contains(orelse)
            case ast.Compare():
                return False
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return name in PASSING and any(map(self.contains, arguments))
            case ast.Call(func=ast.Attribute(attr=name, value=value), args=arguments):
                return self.contains(value) or (name in PASSING and any(map(self.contains, arguments)))
            case ast.Call():
                return False
        return any(map(self.contains, ast.iter_child_nodes(node)))

    def violations(self) -> Iterator[ast.AST]:
        for node in self.nodes:
            match node:
                case ast.Compare(left=left, ops=ops, comparators=others):
                    sides = [left, *others]
                    literal = any(isinstance(side, ast.Constant) and not side.value for side in sides)
                    searched = any(isinstance(op, ast.In | ast.NotIn | ast.Eq | ast.NotEq) for op in ops)
                    if searched and not literal and any(map(self.contains, sides)):
                        yield node
                case ast.Call(func=ast.Attribute(attr=method, value=value), args=arguments):
                    if method in SEARCHES and any(map(self.contains, [value, *arguments])):
                        yield node
                case ast.Match(subject=subject) if self.contains(subject):
                    yield node


def parameters(scope: ast.AST) -> Iterator[str]:
    """Yield the parameters of a function that are exceptions."""
    if isinstance(scope, ast.FunctionDef):
        for each in scope.args.args:
            if each.annotation is not None and EXCEPTION.search(ast.unparse(each.annotation)):
                yield each.arg


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below a scope, without those of the functions in it."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, ast.FunctionDef):
            yield from own_nodes(node)


def violations(source: str) -> list[str]:
    """Return the lines of a module that search human-readable text."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = {
        node.lineno: ast.unparse(node) for scope in (tree, *functions) for node in Texts(scope).violations()
    }
    return [f"{line}: {code}" for line, code in sorted(found.items())]


def test_modules_are_found():
    assert len(FILES) > 30


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PLUGINS)))
def test_no_human_readable_text_is_searched(file):
    if str(file.relative_to(PLUGINS)) in PENDING:
        pytest.xfail("still searches a sentence")
    assert violations(file.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        # From former rules and gatherers.
        'refused = "OOM command not allowed" in (e["server.canary.error"] or "")',
        'if not inside.get("error", "").startswith("not tried"): pass',
        'waited = "timed out" in e.document["edge"].get("page", {}).get("missing", "")',
        "try:\n    call()\nexcept Failure as error:\n    if 'is expired' in str(error): pass",
        "def refusal(error: ApiFailure):\n    return next(w for sign, w in WORDS if sign in str(error))",
        'said = {"api": str(e["server.ready.says"])}\n'
        "refused = [name for name, text in said.items() if any(sign in text for sign in SIGNS)]",
        'why = next(line for line in test["says"] if "[emerg]" in line)',
        'if line.detail == "no token is given.": pass',
        'if re.search("no answer", datum["missing"]): pass',
        'match failure.message:\n    case "closed": pass',
    ],
)
def test_a_search_is_found(code):
    assert violations(code)


@pytest.mark.parametrize(
    "code",
    [
        'if found["error"]: pass',
        'if probe["error"] == "": pass',
        'if "missing" in datum: pass',
        'if e["server.canary.redis_code"] == "OOM": pass',
        "found = [(one, Finding(one.cause)) for one in some]\nfor one, _ in found: one.name in shown",
        "try:\n    call()\nexcept OSError as error:\n    if error.errno == 2: raise Missing(str(error))",
        'text = "it fails: " + probe["error"] if probe["reason"] == "timeout" else ""',
    ],
)
def test_a_field_may_be_compared_and_a_text_shown(code):
    assert not violations(code)
