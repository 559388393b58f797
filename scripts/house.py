"""Count what keeps the rooms of the house readable, and fail when a figure is over its bar.

Product code is `kvt_async` and `analyzer`. A function's lines include its docstring; its parameters are those without
self, cls, *args and **kwargs. The arrows between rooms are those of the table in tests/contract/test_imports.py.

    python scripts/house.py              each figure beside its bar; exit 1 when one is over
    python scripts/house.py --places     also where each counted thing stands
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.contract.test_imports import PACKAGES, arrows_outside_the_table  # noqa: E402 - the root is on the path now

# The highest number that passes. Lower one when work has brought a figure down; raising one takes a reason in a commit.
BARS = {
    "module names used twice or more": 1,
    "class names used twice or more": 5,
    "`# fmt:` markers": 2,
    "`# type: ignore`": 12,
    "functions with 8 parameters or more": 1,
    "modules of more than 350 lines": 1,
    "modules at the analyzer's top level": 7,
    "arrows that the table of rooms does not have": 0,
    "files that name a way of applying a budget": 0,
}
MANY_PARAMETERS, LONG_MODULE = 8, 350

# Code names a way of applying a budget when it holds one of these words against one of these names, or when it names
# the control that cuts the prompt.
WAYS = frozenset({"body", "endpoint", "launch", "none", "header"})
HOLDERS = frozenset({"via", "apply_via", "kv_apply"})
CUT_PROMPT = frozenset({"TRUNCATE", "TRUNCATE_PROMPT"})
HOMES_OF_WAYS = ("kvt_async/ways/", "kvt_async/contract/settings.py", "kvt_async/contract/settings_kv.py")


@dataclass(frozen=True)
class Module:
    """One file of the product, read and parsed once."""

    path: str  # from the repository's root
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The last part of the module's name: what an import or a listing shows."""
        return Path(self.path).stem

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, nested ones included."""
        yield from (n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


@dataclass(frozen=True)
class Figure:
    """A counted thing and the places where it stands; the count is the number of places."""

    title: str
    places: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return len(self.places) > BARS[self.title]


def modules() -> list[Module]:
    """Every module of the product, in the order of the paths."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    texts = [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
    return [Module(path, text, ast.parse(text)) for path, text in texts]


def repeated(names: Iterator[tuple[str, str]]) -> list[str]:
    """The names that stand in more than one place, each with its places; of (name, place) pairs."""
    places: dict[str, list[str]] = {}
    for name, place in names:
        places.setdefault(name, []).append(place)
    return [f"{name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a caller may give, by position or by name."""
    own = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in own)


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether Typer calls it: its parameters are the options of a command."""
    calls = [decorator.func for decorator in function.decorator_list if isinstance(decorator, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr in ("command", "callback") for call in calls)


def way_named(tree: ast.Module) -> str | None:
    """The first code that names a way of applying a budget, docstrings aside; None: there is none."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                names_one = name in CUT_PROMPT or ast.unparse(node).startswith("Via.")
            case ast.Constant(value=str(text)):
                names_one = "truncate_prompt" in text and id(node) not in documentation
            case ast.keyword(arg=str(name), value=ast.Constant(value=str(word))):
                names_one = name in HOLDERS and word in WAYS
            case ast.Match(subject=subject, cases=cases):
                patterns = {word for case in cases for part in ast.walk(case.pattern) for word in words_of(part)}
                names_one = bool(words_of(subject) & HOLDERS and patterns & WAYS)
            case ast.Compare() | ast.Subscript() | ast.Dict():
                names_one = bool(words_of(node) & WAYS and words_of(node) & HOLDERS)
            case _:
                continue
        if names_one:
            return ast.unparse(node).splitlines()[0]
    return None


def words_of(node: ast.AST) -> set[str]:
    """The names and strings that a node holds, two steps down: a comparison's sides, a dictionary's keys and values."""
    near = [node, *ast.iter_child_nodes(node)]
    near += [part for child in near[1:] for part in ast.iter_child_nodes(child)]
    return {
        word
        for part in near
        for word in (getattr(part, "attr", None), getattr(part, "id", None), getattr(part, "value", None))
        if isinstance(word, str)
    }


def figures(product: list[Module]) -> list[Figure]:
    """Everything that has a bar."""
    named = [module for module in product if not module.name.startswith("__")]
    classes = (
        (node.name, module.path)
        for module in product
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    )
    lines = [(f"{m.path}:{n}", text) for m in product for n, text in enumerate(m.text.splitlines(), 1)]
    wide = [
        f"{module.path}:{function.lineno} {function.name} ({parameters(function)})"
        for module in product
        for function in module.functions()
        if parameters(function) >= MANY_PARAMETERS and not is_command(function)
    ]
    long = [(m.path, len(m.text.splitlines())) for m in product]
    top = [m.path for m in named if Path(m.path).parent == Path("analyzer")]
    elsewhere = [(m.path, way_named(m.tree)) for m in product if not m.path.startswith(HOMES_OF_WAYS)]
    return [
        Figure("module names used twice or more", repeated((m.name, m.path) for m in named)),
        Figure("class names used twice or more", repeated(classes)),
        Figure("`# fmt:` markers", [place for place, text in lines if "# fmt:" in text]),
        Figure("`# type: ignore`", [place for place, text in lines if "# type: ignore" in text]),
        Figure("functions with 8 parameters or more", wide),
        Figure("modules of more than 350 lines", [f"{path} ({n})" for path, n in long if n > LONG_MODULE]),
        Figure("modules at the analyzer's top level", top),
        Figure("arrows that the table of rooms does not have", arrows_outside_the_table()),
        Figure("files that name a way of applying a budget", [f"{p}: {line}" for p, line in elsewhere if line]),
    ]


def sizes(package: str, product: list[Module]) -> str:
    """One line: files, lines, and how long the functions of a package are."""
    own = [module for module in product if module.path.startswith(f"{package}/")]
    lengths = sorted((f.end_lineno or f.lineno) - f.lineno + 1 for module in own for f in module.functions())
    median, high = statistics.median(lengths), lengths[int(0.95 * len(lengths))]
    n_lines = sum(len(module.text.splitlines()) for module in own)
    return (
        f"{package}: {len(own)} files, {n_lines:,} lines, {len(lengths):,} functions; "
        f"lines a function {median:g} (median), {high} (95%), {lengths[-1]} (longest)"
    )


def main() -> int:
    """Print every figure beside its bar; 1 when one is over."""
    product, show = modules(), "--places" in sys.argv[1:]
    counted = figures(product)
    print(f"{'now':>5} {'bar':>5}")
    for figure in counted:
        print(f"{len(figure.places):>5} {BARS[figure.title]:>5}  {figure.title}{'  OVER' if figure.over else ''}")
        for place in figure.places if show or figure.over else []:
            print(f"{'':>13}{place}")
    for package in PACKAGES:
        print(sizes(package, product))
    return int(any(figure.over for figure in counted))


if __name__ == "__main__":
    sys.exit(main())
