"""A comparison of groups as a page: one HTML file, Markdown, or CSV of the table alone."""

import csv
import io
from pathlib import Path

from analyzer.report.html import environment
from analyzer.results.number_format import number
from analyzer.results.text_table import Table, table
from analyzer.verbs.compare import CompareAnswer
from analyzer.verbs.compared_groups import GroupsAnswer
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.files import refuse_other_kinds, write_whole
from kvt_async.contract.local_faults import file_error

KINDS = (".html", ".md", ".csv")


def write_page(answer: CompareAnswer | GroupsAnswer, out: Path) -> None:
    """Write the comparison to `out`. Raises ConfigError for another suffix, StoreError where it can't be written."""
    if out.suffix not in KINDS:
        raise ConfigError(
            f"{out.name} is no page of a comparison", where="--out", do=f"Name a file that ends in {', '.join(KINDS)}."
        )
    refuse_other_kinds(out)
    names = answer.groups if isinstance(answer, GroupsAnswer) else [answer.a, answer.b]
    shown = answer.table if isinstance(answer, GroupsAnswer) else _of_two(answer)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".csv":
            write_whole(out, _csv(shown))
            return
        kind = out.suffix[1:]
        template = environment(kind).get_template(f"compare.{kind}.jinja")
        summary = answer.summary if isinstance(answer, GroupsAnswer) else None
        write_whole(out, template.render(groups=names, table=shown, summary=summary, remarks=answer.remarks))
    except OSError as error:
        raise file_error(error, "the page can't be written", out) from error


def _of_two(answer: CompareAnswer) -> Table:
    """A and B side by side with their paired difference."""
    several = any(level.task for level in answer.levels)
    return table(
        [
            {
                **({"Task": level.task} if several else {}),
                "Series": level.series,
                "Budget": f"{level.kv_budget:g}",
                answer.a: number(level.acc_a),
                f"{answer.b} ": number(level.acc_b),
                "A - B": number(level.diff),
                "95% interval": "-"
                if level.diff_ci_low is None or level.diff_ci_high is None
                else f"[{level.diff_ci_low:+.3f}, {level.diff_ci_high:+.3f}]",
                "n": str(level.n),
                "p (Holm)": f"{level.p_holm:.3g}",
            }
            for level in answer.levels
        ],
        text_columns=2 if several else 1,
        note=f"A = {answer.a}, B = {answer.b}: accuracy on the examples that both have; p is adjusted over all rows.",
    )


def _csv(shown: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(shown.head)
    writer.writerows(shown.rows)
    return text.getvalue()
