"""Charts as files: Vega-Lite JSON, SVG and PNG. Many are drawn in several processes.

Converting holds Python's lock, so threads would not help. Nothing here needs Altair or Polars: a process that only
draws has its first picture after less than a second.
"""

import json
import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analyzer import parallel
from analyzer.charts.fonts import prefer_own_fonts
from kvt_async.contract.files import write_whole

FILES = (".vl.json", ".svg", ".png")
PNG_SCALE = 2
WORTH_IT = 24  # pictures: of fewer, half are drawn before a new process has loaded what draws


@dataclass(frozen=True)
class Picture:
    """A chart to be written as NAME.vl.json, NAME.svg and NAME.png, whose bytes depend on the spec alone."""

    spec: dict[str, Any]
    folder: Path
    name: str

    @property
    def files(self) -> list[Path]:
        return [self.folder / f"{self.name}{end}" for end in FILES]

    @cached_property
    def text(self) -> str:
        """What the Vega-Lite file holds."""
        return json.dumps(self.spec, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @property
    def stands(self) -> bool:
        """Whether the files are there, of this spec."""
        source = self.files[0]
        return all(file.is_file() for file in self.files) and source.read_text(encoding="utf-8") == self.text

    def draw(self) -> None:
        import vl_convert

        source, svg_file, png_file = self.files
        prefer_own_fonts()
        svg = svg_of(self.spec)
        write_whole(svg_file, svg)
        write_whole(png_file, vl_convert.svg_to_png(svg, scale=PNG_SCALE))
        write_whole(source, self.text)  # last: it says that the pictures beside it are of this spec


def svg_of(spec: dict[str, Any]) -> str:
    """A Vega-Lite spec as SVG, the same text in every process."""
    import vl_convert

    return _numbered_anew(vl_convert.vegalite_to_svg(spec, vl_version=_version(spec)))


def save(*pictures: Picture) -> list[Path]:
    """Draw pictures, but not those that stand already; returns the files of all, in their order."""
    with Drawers(len(pictures)) as drawers:
        return drawers.save(*pictures)


class Drawers:
    """What draws so many pictures: this process, and of many others too. They get ready while charts are made."""

    def __init__(self, n_pictures: int) -> None:
        others = min(parallel.cores(), parallel.MOST) - 1
        self._pool: ProcessPoolExecutor | None = None
        if others > 0 and n_pictures >= WORTH_IT:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(others, spawn, initializer=parallel.begin, initargs=((),))
            for _ in range(others):
                self._pool.submit(_get_ready)

    def __enter__(self) -> "Drawers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def save(self, *pictures: Picture) -> list[Path]:
        """As save()."""
        missing = [picture for picture in pictures if not picture.stands]
        if self._pool is None:
            for picture in missing:
                picture.draw()
        else:
            _draw_with(self._pool, missing)
        return [file for picture in pictures for file in picture.files]


def _get_ready() -> None:
    """Make the first conversion, which takes as long as five others."""
    import vl_convert

    prefer_own_fonts()
    vl_convert.vegalite_to_svg({"data": {"values": []}, "mark": "point"})


def _draw_with(pool: ProcessPoolExecutor, pictures: Sequence[Picture]) -> None:
    """Draw here and in the processes of a pool: those begin with the first picture, this one with the last."""
    try:
        futures = [pool.submit(picture.draw) for picture in pictures]
        for future, picture in zip(reversed(futures), reversed(pictures), strict=True):
            if future.cancel():
                picture.draw()
            else:
                future.result()
    except BrokenProcessPool:  # a script that can't be imported again, as new processes do: slower, not wrong
        for picture in pictures:
            if not picture.stands:
                picture.draw()


def _version(spec: dict[str, Any]) -> str:
    """The Vega-Lite that a spec is written for, as vl-convert names it: "6.1"."""
    return re.sub(r".*/v(\d+\.\d+).*", r"\1", spec["$schema"])


def _numbered_anew(svg: str) -> str:
    """Vega numbers gradients and clips through the life of a process; here they count from 0 in each picture."""
    seen: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        return seen.setdefault(match[0], f"{match[1]}{len(seen)}")

    return re.sub(r"\b(gradient_|clip)\d+\b", rename, svg)
