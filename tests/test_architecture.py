"""The stairs and the budget of the code, as DESIGN's section Layout says.

What could go wrong: a floor imports from above, so that a part cannot be tested or replaced alone; two modules need
each other; a module or function grows until nobody reads it; somebody sleeps where nothing can interrupt it; a driver,
`requests`, `transitions` or `sqlite3` spreads; the store learns of the agent; an error is swallowed; an error code is
used twice or is not explained to anyone. And: the checker itself sees nothing, so each rule has a control, a made-up
module that it must complain of.
"""

from __future__ import annotations

import ast
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

import pytest

import agent
import storage
from storage.errors import CodedError

ROOT = Path(__file__).parent.parent
MODULE_LINES, FUNCTION_LINES = 400, 60

# From the bottom to the top. A name stands for a module and everything in it; the longest that fits counts.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("storage.errors", "storage.guard", "storage.plain"),
    ("storage.envelope",),
    ("storage",),
    (
        "agent",  # __init__: the version
        *("agent.errors", "agent.source_errors", "agent.clock", "agent.cost", "agent.config", "agent.news"),
        *("agent.logs", "agent.log_queue", "agent.journal", "agent.reminder", "agent.repeats"),
        *("agent.pulse", "agent.losses", "agent.status", "agent.thrift", "agent.certificates", "agent.canary"),
        *("agent.finding", "agent.skew", "agent.preparation", "agent.here", "agent.core_dumps"),
        *("agent.record", "agent.redact", "agent.body", "agent.backoff", "agent.commands", "agent.parquet"),
        *("agent.foreign_json", "agent.ration"),
    ),
    ("agent.transport", "agent.sd_notify", "agent.delivery", "agent.registration", "agent.sinks", "agent.sources"),
    ("agent.machine", "agent.watch", "agent.breaker", "agent.collector", "agent.lane", "agent.renewal"),
    (
        *(
            "agent.reconfigure",
            "agent.command_book",
            "agent.command_desk",
            "agent.command_log",
            "agent.burden",
            "agent.watch_loop",
            "agent.worker",
        ),
        *("agent.flusher", "agent.heartbeat", "agent.vigil", "agent.status_door", "agent.console"),
        *("agent.signals", "agent.conductor"),
    ),
    ("agent.wiring",),
    ("agent.single", "agent.lobby", "agent.audit", "agent.overview", "agent.listing", "agent.replay"),
    ("agent.command_history", "agent.doctor"),
    ("agent.dev",),
    ("agent.cli", "agent.__main__", "scripts"),
)
# The file of the outbox belongs to those who collect, deliver and assemble; the rest knows its shapes and errors only.
KNOW_STORAGE = (
    *("storage", "agent.collector", "agent.command_book", "agent.command_desk", "agent.watch_loop", "agent.flusher"),
    "agent.command_log",
    *(
        "agent.wiring",
        "agent.doctor",
        "agent.single",
        "agent.audit",
        "agent.overview",
        "agent.listing",
        *("agent.parquet", "agent.replay"),
        "agent.cli",
        "agent.dev",
        "agent.console",
    ),
    "scripts",
)
STORAGE_SHAPES = ("storage.errors", "storage.envelope", "storage.plain")
# package: who may import it, and what to do instead
OWNERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "pymysql": (("agent.sources", "agent.dev"), "put what needs the driver into its source"),
    "psycopg2": (("agent.sources", "agent.dev"), "put what needs the driver into its source"),
    "requests": (("agent.transport",), "use agent.transport.Transport"),
    "transitions": (("agent.machine",), "put the way into the table of agent.machine"),
    "sqlite3": (("storage",), "give the outbox a method for it"),
}
OUTSIDE = ("scripts",)  # tools for people: they may use anything, but stand on the stairs and in the budget


def within(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def modules() -> dict[str, str]:
    """Name to text of every module there is."""
    found = {}
    for folder in ("agent", "storage", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def imports(text: str, known: frozenset[str] = frozenset()) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is imported, wherever it stands; types that only a checker sees as well."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for name in node.names:
                whole = f"{base}.{name.name}"
                yield node.lineno, whole if whole in known else base


def floor(module: str) -> int | None:
    best: tuple[int, int] | None = None
    for number, names in enumerate(FLOORS):
        for name in names:
            fits = module == name if name == "agent" else within(module, (name,))
            if fits and (best is None or len(name) > best[0]):
                best = len(name), number
    return best[1] if best else None


Complaints = Iterator[str]


def climbs(module: str, text: str) -> Complaints:
    here = floor(module)
    if here is None:
        yield f"{module} stands on no floor: give it one in FLOORS"
        return
    for line, name in imports(text, frozenset(modules())):
        there = floor(name)
        if there is not None and there > here:
            yield f"{module}:{line} imports {name}, which lies above it: move what both need down, or hand it in"


def reaches_into_the_store(module: str, text: str) -> Complaints:
    for line, name in imports(text, frozenset(modules())):
        if within(name, ("storage",)) and not within(name, STORAGE_SHAPES) and not within(module, KNOW_STORAGE):
            yield f"{module}:{line} imports {name}: only {', '.join(STORAGE_SHAPES)} are for it; hand the rest in"


def uses_the_development_package(module: str, text: str) -> Complaints:
    for line, name in imports(text, frozenset(modules())):
        if within(name, ("agent.dev",)) and not within(module, ("agent.dev", "agent.cli", "scripts")):
            yield f"{module}:{line} imports {name}: the agent must run without it; move what is needed out of agent/dev"


def takes_another_owners_package(module: str, text: str) -> Complaints:
    if within(module, OUTSIDE):
        return
    for line, name in imports(text):
        owners, instead = OWNERS.get(name.split(".")[0], ((module,), ""))
        if not within(module, owners):
            yield f"{module}:{line} imports {name}, which belongs to {', '.join(owners)}: {instead}"


def needs_more_than_the_standard_library(module: str, text: str) -> Complaints:
    if not within(module, ("storage",)) or module == "storage.shelf":
        return
    for line, name in imports(text):
        if name.split(".")[0] not in {*sys.stdlib_module_names, "storage"}:
            yield f"{module}:{line} imports {name}: a plain python3 must be able to read an outbox; do without it"


def is_too_long(module: str, text: str) -> Complaints:
    lines = len(text.splitlines())
    if lines > MODULE_LINES:
        yield f"{module} has {lines} lines, {MODULE_LINES} are allowed: split it by nouns"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{module}:{node.lineno} {node.name} has {length} lines, not {FUNCTION_LINES}: name its parts"


def sleeps(module: str, text: str) -> Complaints:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            asleep = ast.unparse(node) in {"time.sleep", "asyncio.sleep"}
        else:
            asleep = isinstance(node, ast.ImportFrom) and node.module == "time" and _names(node) >= {"sleep"}
        if asleep and isinstance(node, ast.Attribute | ast.ImportFrom):
            yield f"{module}:{node.lineno} sleeps: wait on an Event or an inbox with a timeout, so that a stop ends it"


def _names(node: ast.ImportFrom) -> set[str]:
    return {name.name for name in node.names}


def prints(module: str, text: str) -> Complaints:
    if within(module, ("agent.cli", "scripts")):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{module}:{node.lineno} prints: return it to the command line, or use agent.logs.tell"


def swallows(module: str, text: str) -> Complaints:
    if module == "agent.worker" or within(module, OUTSIDE):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler) and _takes_everything(node) and not _raises_again(node):
            yield f"{module}:{node.lineno} catches everything: name what you expect; defects end in agent.worker"


def _takes_everything(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in kinds)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    # To tidy up and pass it on is no swallowing; but then even a stop has to pass, so `except Exception` is not it.
    last = handler.body[-1]
    tidies = handler.type is not None and ast.unparse(handler.type) == "BaseException"
    return tidies and isinstance(last, ast.Raise) and last.exc is None


RULES: tuple[tuple[Callable[[str, str], Complaints], str, str], ...] = (
    # the rule, and a module with a text that it must complain of
    (climbs, "agent.record", "from agent.flusher import Flusher"),
    (climbs, "agent.record", "def f() -> None:\n    import agent.conductor"),
    (climbs, "agent.redact", "from agent import wiring"),
    (climbs, "agent.sinks.http", "from agent.watch import Watch"),
    (climbs, "storage.outbox", "from agent.clock import Clock"),
    (climbs, "agent.brandnew", ""),
    (reaches_into_the_store, "agent.heartbeat", "from storage.outbox import Outbox"),
    (reaches_into_the_store, "agent.status", "import storage.connection"),
    (uses_the_development_package, "agent.wiring", "from agent.dev.serve import RunningBackend"),
    (takes_another_owners_package, "agent.collector", "import pymysql"),
    (takes_another_owners_package, "agent.cli", "from psycopg2.extensions import connection"),
    (takes_another_owners_package, "agent.heartbeat", "import requests.adapters"),
    (takes_another_owners_package, "agent.watch", "from transitions import Machine"),
    (takes_another_owners_package, "agent.flusher", "import sqlite3"),
    (needs_more_than_the_standard_library, "storage.outbox", "import orjson"),
    (is_too_long, "agent.record", "x = 1\n" * (MODULE_LINES + 1)),
    (is_too_long, "agent.record", "def f() -> None:\n" + "    x = 1\n" * FUNCTION_LINES),
    (sleeps, "agent.flusher", "import time\ntime.sleep(1)"),
    (sleeps, "agent.flusher", "from time import sleep"),
    (prints, "agent.flusher", "print('x')"),
    (swallows, "agent.flusher", "try:\n    f()\nexcept Exception:\n    pass"),
    (swallows, "agent.flusher", "try:\n    f()\nexcept:\n    pass"),
    (swallows, "agent.flusher", "try:\n    f()\nexcept (ValueError, Exception):\n    raise"),
    (swallows, "agent.flusher", "try:\n    f()\nexcept BaseException:\n    g()"),
)


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, _, _ in RULES), ids=lambda rule: rule.__name__)
def test_no_module(rule: Callable[[str, str], Complaints]) -> None:
    complaints = [complaint for module, text in modules().items() for complaint in rule(module, text)]
    assert complaints == []


@pytest.mark.parametrize(("rule", "module", "text"), RULES, ids=lambda each: getattr(each, "__name__", ""))
def test_the_checker_sees(rule: Callable[[str, str], Complaints], module: str, text: str) -> None:
    complaints = list(rule(module, text))
    assert len(complaints) == 1
    assert ": " in complaints[0], "a complaint says how to mend it"


@pytest.mark.parametrize(
    ("rule", "module", "text"),
    [
        (climbs, "agent.wiring", "from agent.flusher import Flusher"),
        (climbs, "agent.watch", "from agent.machine import attach"),
        (reaches_into_the_store, "agent.heartbeat", "from storage.errors import CodedError"),
        (takes_another_owners_package, "agent.sources.mysql_slow_log", "import pymysql"),
        (swallows, "agent.worker", "try:\n    f()\nexcept Exception:\n    pass"),
        (swallows, "storage.outbox", "try:\n    f()\nexcept BaseException:\n    g()\n    raise"),
        (is_too_long, "agent.record", "def f() -> None:\n" + "    x = 1\n" * (FUNCTION_LINES - 1)),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_the_checker_allows(rule: Callable[[str, str], Complaints], module: str, text: str) -> None:
    assert list(rule(module, text)) == []


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle of imports; none when there is no circle."""
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for name in sorted(graph.get(module, ())):
            found = visit(name, [*trail, module])
            if found:
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := visit(module, []))), [])


def test_no_modules_import_each_other() -> None:
    texts = modules()
    names = frozenset(texts)
    graph = {module: {name for _, name in imports(text, names) if name in names} for module, text in texts.items()}
    circle = cycle(graph)
    assert circle == [], f"{' > '.join(circle)}: move what both need into a module below them"


def test_a_circle_of_imports_is_seen() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_the_modules_are_found() -> None:
    assert {"agent", "agent.sources.mysql_slow_log", "storage.outbox", "agent.config.schema"} <= set(modules())


# -- error codes -----------------------------------------------------------------------------------------------------


def error_classes() -> list[type[CodedError]]:
    """Every CodedError there is, from all modules that can be imported without the extras."""
    for package in (agent, storage):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name != "agent.__main__" and not within(module.name, ("agent.dev",)):
                import_module(module.name)
    found: list[type[CodedError]] = []
    waiting = [CodedError]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found += [each for each in subclasses if within(each.__module__, ("agent", "storage"))]
    return sorted(found, key=lambda each: each.code)


def is_family(kind: type[CodedError]) -> bool:
    """A common name for several errors, with no case of its own."""
    return kind.code.endswith("-00")


def test_each_error_code_belongs_to_one_error() -> None:
    codes = [kind.code for kind in error_classes()]
    assert len(codes) > 20
    assert [code for code in sorted(set(codes)) if codes.count(code) > 1] == []
    assert [code for code in codes if not re.fullmatch(r"[A-Z]{2}-\d\d", code)] == []


def test_each_error_has_a_sentence_and_a_remedy() -> None:
    kinds = [kind for kind in error_classes() if not is_family(kind)]
    assert [kind.__name__ for kind in kinds if not (kind.__doc__ or "").strip() or not kind.remedy] == []
    assert [kind.__name__ for kind in kinds if "__doc__" not in vars(kind) or "code" not in vars(kind)] == []


def test_no_error_is_raised_that_is_only_a_family() -> None:
    families = {kind.__name__ for kind in error_classes() if is_family(kind)} | {"CodedError"}
    raised = [
        f"{module}:{node.lineno}"
        for module, text in modules().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Raise) and node.exc is not None
        if ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc) in families
    ]
    assert raised == [], "give the case a class with a code, a sentence and a remedy of its own"


def test_each_error_code_is_explained_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [kind.code for kind in error_classes() if not is_family(kind) and kind.code not in readme]
    assert missing == [], "add a line for each to the table of error codes"
