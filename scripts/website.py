"""The documents as a static site: pages of Markdown, and pages made of the program. A dead link fails the build.

python scripts/website.py [--out site]       writes the site; open site/index.html
python scripts/website.py --check            writes nothing; exit 1 where a link or an anchor leads nowhere
"""

import argparse
import html
import posixpath
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from reference_pages import GENERATED

ROOT = Path(__file__).resolve().parents[1]

# The order of the menu. A page that is not named here stands under the last heading.
MENU = {
    "Start": (
        "README",
        "docs/CONFIGS",
        "docs/KV_BUDGETS",
        "docs/SERVE",
        "docs/RUNS",
        "docs/VIEW",
        "docs/RESULTS",
        "docs/IMPORTS",
    ),
    "Meaning": (
        "docs/STATISTICS",
        "docs/MEASUREMENT",
        "docs/BENCH",
        "docs/DATA",
        "docs/GLOSSARY",
        "docs/COMPATIBILITY",
    ),
    "Reference": ("docs/COMMANDS", "docs/CONFIG_KEYS", "docs/DATABASE", "docs/API", "docs/PYTHON", "docs/BAD_INPUT"),
    "Scale": ("docs/SHARDS", "docs/CLUSTER"),
    "Code": (
        "docs/ARCHITECTURE",
        "docs/MODULES",
        "docs/LIFE_OF_A_REQUEST",
        "docs/EXTENDING",
        "CONTRIBUTING",
        "SECURITY",
        "CHANGELOG",
    ),
    "More": (),
}
SOURCES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/decisions/*.md")
MARKDOWN = MarkdownIt("commonmark").enable("table")
NAMED_PAGE = re.compile(r"(?<![\w/(-])docs/[\w/-]+\.md\b")
STYLE = Path(__file__).with_suffix(".css")


@dataclass(frozen=True)
class Page:
    """A document by its path from the root, as its text."""

    path: str
    text: str

    @cached_property
    def tokens(self) -> list[Token]:
        """Its blocks; headings have their anchors."""
        tokens = MARKDOWN.parse(self.text)
        seen: Counter[str] = Counter()
        for token, inline in pairwise(tokens):
            if token.type == "heading_open":
                slug = anchor(plain(inline))
                token.attrSet("id", f"{slug}-{seen[slug]}" if seen[slug] else slug)
                seen[slug] += 1
        return tokens

    @cached_property
    def anchors(self) -> set[str]:
        """What a link into the page may name."""
        return {str(token.attrs["id"]) for token in self.tokens if token.type == "heading_open"}

    @property
    def title(self) -> str:
        """Its first heading."""
        at = next(i for i, token in enumerate(self.tokens) if token.type == "heading_open")
        return plain(self.tokens[at + 1])

    @property
    def target(self) -> str:
        """Where it lies in the site."""
        return "index.html" if self.path == "README.md" else f"{self.path.removesuffix('.md')}.html"

    def links(self) -> Iterator[tuple[Token, str, str]]:
        """(token, attribute, address) of links and pictures that don't leave the site."""
        for token in (inner for block in self.tokens for inner in block.children or ()):
            name = {"link_open": "href", "image": "src"}.get(token.type)
            if name is not None and not re.match(r"[a-z]+:", str(token.attrs[name])):
                yield token, name, str(token.attrs[name])


def plain(inline: Token) -> str:
    """A heading's text without its marks."""
    return "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))


def anchor(title: str) -> str:
    """The anchor of a heading, as repositories show it: 'What `kvt` does' -> 'what-kvt-does'."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def pages() -> dict[str, Page]:
    """Every page by its path."""
    texts = {str(p.relative_to(ROOT)): p.read_text("utf-8") for pattern in SOURCES for p in sorted(ROOT.glob(pattern))}
    return {path: Page(path, text) for path, text in {**texts, **{p: make() for p, make in GENERATED.items()}}.items()}


def dead_links(of: dict[str, Page]) -> list[str]:
    """'PAGE: ADDRESS, why' of every link, picture and named page that leads nowhere."""
    dead = []
    for page in of.values():
        for _, _, address in page.links():
            path, _, fragment = unquote(address).partition("#")
            target = resolved(page, path)
            if target not in of and not (ROOT / target).is_file():
                dead.append(f"{page.path}: {address}, there is no such page or file")
            elif fragment and fragment not in (of[target].anchors if target in of else ()):
                dead.append(f"{page.path}: {address}, the page has no such heading")
        named = NAMED_PAGE.findall(page.text) if page.path != "CHANGELOG.md" else []  # it tells what once was
        dead += [f"{page.path}: {name} is named, there is no such page" for name in named if name not in of]
    return dead


def resolved(page: Page, path: str) -> str:
    """A relative address as a path from the root; '' is the page itself."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page.path), path)) if path else page.path


def menu(of: dict[str, Page], current: Page) -> str:
    """The list of pages beside each page."""
    named = {f"{name}.md" for names in MENU.values() for name in names}
    lines = []
    for heading, names in MENU.items():
        paths = [f"{name}.md" for name in names] or [path for path in of if path not in named]
        lines.append(f"<p>{heading}</p>")
        for path in paths:
            mark = ' aria-current="page"' if path == current.path else ""
            lines.append(f'<a href="{relative(current, of[path].target)}"{mark}>{html.escape(of[path].title)}</a>')
    return "\n".join(lines)


def relative(page: Page, target: str) -> str:
    """The address of a file of the site, from a page of it."""
    return posixpath.relpath(target, posixpath.dirname(page.target) or ".")


def rendered(of: dict[str, Page], page: Page) -> str:
    """A page as a whole HTML document."""
    for token, name, address in page.links():
        path, mark, fragment = address.partition("#")
        if path and (target := resolved(page, path)) in of:
            token.attrSet(name, f"{relative(page, of[target].target)}{mark}{fragment}")
    body = MARKDOWN.renderer.render(page.tokens, MARKDOWN.options, {})
    body = body.replace("<table>", '<div class="wide" tabindex="0"><table>').replace("</table>", "</table></div>")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(page.title)}</title>\n"
        f'<link rel="stylesheet" href="{relative(page, "style.css")}">\n'
        f'<nav aria-label="Pages">\n{menu(of, page)}\n</nav>\n<main>\n{body}</main>\n</html>\n'
    )


def write(of: dict[str, Page], out: Path) -> None:
    """The site in a folder: pages, what they link to, and the style."""
    for page in of.values():
        linked = {resolved(page, unquote(address).partition("#")[0]) for _, _, address in page.links()}
        for path in linked - of.keys():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, out / path)
        (out / page.target).parent.mkdir(parents=True, exist_ok=True)
        (out / page.target).write_text(rendered(of, page), encoding="utf-8")
    shutil.copyfile(STYLE, out / "style.css")


def main() -> int:
    """Check, then write unless --check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    of = pages()
    if dead := dead_links(of):
        print("\n".join(dead), file=sys.stderr)
        return 1
    if not options.check:
        write(of, options.out)
        print(f"{len(of)} pages, no dead link: {options.out}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
