"""What the database says of how its analyses were made."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from analyzer.summarise.question import STAGE
from analyzer.verify.differences import Findings
from kvt_async.contract.settings import Analysis


@dataclass(frozen=True)
class Analysed:
    """A stored analysis: of a whole generation (scope '*') or of one run."""

    scope: str
    fingerprint: str
    version: str
    analysis: Analysis
    samples: Mapping[str, int]  # by dataset_id: answers of each example that counted


def stored_analyses(facts: sqlite3.Connection, group: str, generation: int, findings: Findings) -> list[Analysed]:
    rows = facts.execute(
        "SELECT scope, fingerprint, detail_json FROM analysis_state "
        "WHERE exp_group_id = ? AND generation = ? AND stage = ? ORDER BY scope",
        (group, generation, STAGE),
    )
    analyses = []
    for scope, mark, text in rows.fetchall():
        try:
            detail = json.loads(text)
            analyses.append(
                Analysed(
                    scope,
                    mark,
                    str(detail["analyzer_version"]),
                    Analysis.model_validate(detail["settings"]),
                    detail.get("samples", {}),
                )
            )
        except (ValueError, KeyError, TypeError, ValidationError):
            findings.cannot_check(f"the record of how {scope!r} was analysed can't be read", 1)
    return analyses
