"""The documents: no dead link, and every command in them is one that kvt takes."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from reference_pages import GENERATED
from typer.main import get_command
from website import Page, anchor, dead_links, pages, write

from kvt_async.cli import app
from kvt_async.init_command import NEXT

PAGES = pages()
WRITTEN = [
    page for page in PAGES.values() if page.path not in ("CHANGELOG.md", "docs/BAD_INPUT.md", *GENERATED)
]  # mistakes are that page's subject
RUNNER = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?kvt (?=\S)")


@cache
def program() -> Any:
    return get_command(app)


def typed(text: str) -> Iterator[list[str]]:
    """The words behind `kvt` of every command in a block; pipes, redirections and comments are the shell's."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r" && | \| | > |; | & ?$", re.sub(r"\s+#.*", "", line.strip())):
            if RUNNER.match(part):
                yield shlex.split(RUNNER.sub("", part))


def blocks(page: Page) -> Iterator[list[str]]:
    """Commands of a page's code blocks."""
    for token in page.tokens:
        if token.type == "code_block" or (
            token.type == "fence" and token.info in ("", "sh", "bash", "text", "console")
        ):
            yield from typed(token.content)


def parse(words: list[str]) -> None:
    """As the program does, up to where it would begin to work. Raises click's UsageError."""
    command, name, rest = program(), "kvt", words
    context = command.make_context(name, list(rest))
    while hasattr(command, "commands") and (rest := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest))


def test_no_link_and_no_named_page_leads_nowhere() -> None:
    assert dead_links(PAGES) == []


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("[a](docs/NOWHERE.md)", "docs/NOWHERE.md, there is no such page or file"),
        ("[a](#nowhere)", "#nowhere, the page has no such heading"),
        ("[a](docs/BENCH.md#nowhere)", "docs/BENCH.md#nowhere, the page has no such heading"),
        ("![a](docs/images/nowhere.png)", "docs/images/nowhere.png, there is no such page or file"),
        ("see docs/NOWHERE.md", "docs/NOWHERE.md is named, there is no such page"),
    ],
)
def test_a_dead_link_is_named_with_its_page(text: str, dead: str) -> None:
    assert dead_links({**PAGES, "README.md": Page("README.md", text)}) == [f"README.md: {dead}"]


def test_anchors_are_those_that_repositories_make() -> None:
    assert anchor("What `kvt` does, and why?") == "what-kvt-does-and-why"
    assert Page("p.md", "# A\n\n# A\n").anchors == {"a", "a-1"}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.path)
def test_every_command_in_a_block_is_one_that_kvt_takes(page: Page) -> None:
    for words in blocks(page):
        try:
            parse(words)
        except Exception as error:
            pytest.fail(f"kvt {shlex.join(words)}: {getattr(error, 'message', error)}")


@pytest.mark.parametrize(
    "words", [["swep"], ["sweep", "--budgets", "1"], ["bench", "compare"], ["serve", "--port", "x"]]
)
def test_what_kvt_does_not_take_is_seen(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"No such|Missing|a valid integer"):
        parse(words)


def test_the_quickstart_for_an_own_server_is_what_init_prints_and_a_test_runs() -> None:
    commands = [shlex.join(["kvt", *words]) for words in blocks(PAGES["README.md"])]
    assert ["kvt init", *(command.format(path="my.yaml") for command, _ in NEXT)] == [
        command for command in commands if command == "kvt init" or "my.yaml" in command
    ]
    assert sum(len(list(blocks(page))) for page in WRITTEN) > 50, "the blocks of the documents are found"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.path)
def test_every_command_in_a_sentence_exists_with_its_options(page: Page) -> None:
    for token in (inner for block in page.tokens for inner in block.children or ()):
        if token.type != "code_inline" or not token.content.startswith("kvt ") or "|" in token.content:
            continue
        command, words = program(), token.content.split()[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        if hasattr(command, "commands") and words:
            assert not words[0].islower() or words[0].startswith("-"), f"{token.content}: no such command"
        options = {name for parameter in command.params for name in parameter.opts} | {"-h", "--help"}
        given = {word.partition("=")[0].rstrip(".,") for word in words if word.startswith("-")}
        assert given <= options, token.content


def test_the_site_has_every_page_and_picture_and_each_link_in_it_leads_to_a_file(tmp_path: Path) -> None:
    write(pages(), tmp_path)
    assert "kvt bench quick" in (tmp_path / "docs/COMMANDS.html").read_text("utf-8")
    assert "max_tokens" in (tmp_path / "docs/CONFIG_KEYS.html").read_text("utf-8")
    assert "open_group" in (tmp_path / "docs/PYTHON.html").read_text("utf-8")
    for path in tmp_path.rglob("*.html"):
        for address in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', path.read_text("utf-8")):
            assert (path.parent / address).is_file(), f"{path}: {address}"
