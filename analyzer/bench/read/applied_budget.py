"""Was the level's budget applied while it was benched? The verdict of a sweep's runs, from a stage's own replies."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.bench.read import stage_facts
from analyzer.read.compressions import Compressions
from analyzer.read.drift import answers_beside_canary, run_server
from analyzer.store.tables import Evidence
from analyzer.summarise.budget_evidence import run_evidence, worst
from kvt_async.contract.vocabulary import EvidenceStatus

UNPROVEN = (EvidenceStatus.UNVERIFIED, EvidenceStatus.CONTRADICTED)


@dataclass(frozen=True, slots=True)
class AppliedBudget:
    """What shows that a stage was served at its level's budget. `row`: of run_evidence, without its fingerprint.
    `kv_bytes`: median of the kept cache; None: nobody says."""

    row: Evidence
    unit: str
    kv_bytes: float | None

    @property
    def status(self) -> str:
        """A word of EvidenceStatus."""
        return self.row.status

    @property
    def reason(self) -> str:
        return self.row.reason

    @property
    def reading(self) -> str:
        """'0.5 fraction (echoed)', as the evidence shows it; '-': nothing does."""
        effective = self.row.effective_p50
        return "-" if effective is None else f"{effective:.4g} {self.unit} ({self.row.source})"


def budget_of(conn: sqlite3.Connection, stage: stage_facts.StageFacts) -> AppliedBudget | None:
    """What a stage's measured replies show of its budget; None where levels aren't benched."""
    if stage.level is None:
        return None
    run, replies = stage_facts.run_of(conn, stage.run_id), stage_facts.replies(conn, stage.run_id)
    kept = replies["kv_bytes"].median()
    size = float(kept) if isinstance(kept, (int, float)) else None
    key = conn.execute("SELECT exp_group_id, generation FROM runs WHERE run_id = ?", (run.run_id,)).fetchone()
    server = run_server(conn, run, answers_beside_canary(conn, *key))
    shows = replies["kv_effective"].is_not_null()
    applied = Compressions.of_replies(replies["n_compressions"].to_numpy(), shows.to_numpy()) if run.decodes else None
    return AppliedBudget(run_evidence(run, replies, server, applied=applied), run.kv_unit, size)


def of_all(budgets: Sequence[AppliedBudget | None]) -> AppliedBudget | None:
    """The worst of the budgets of one level's stages; None where there is none."""
    stages = [budget for budget in budgets if budget is not None]
    if not stages:
        return None
    status = worst([budget.status for budget in stages])
    return next(budget for budget in stages if budget.status == status)
