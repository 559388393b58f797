"""The group contract: what must stay equal for results to belong to one experiment group. It has two parts: what all
tasks share, and what each task has of its own. An added task is a new part, and changes none that is there.
"""

from kvt_async.contract.load import known_secrets
from kvt_async.contract.settings import Settings
from kvt_async.contract.turn_settings import TurnSettings
from kvt_async.data.manifest import ManifestHead

SEED_RULE = "sha256"  # a request's own seed: formulas/sample_seed.py. Until schema 3 all had the one of the config
Plain = str | int | float | bool | list[object] | dict[str, object] | None


def group_contract(settings: Settings, manifest: ManifestHead) -> dict[str, Plain]:
    """What all tasks share: dotted names -> plain values, to be compared one by one and stored as
    `experiments.contract_json`. `manifest` is any task's: all are counted with one tokenizer. Of `workload` it holds
    what is not the default, so that groups of before are not refused.
    """
    defaults = TurnSettings().model_dump()
    workload = {key: value for key, value in settings.workload.model_dump().items() if value != defaults[key]}
    return {
        "model.name": settings.model.name,
        "tokenizer.name": manifest.tokenizer_name,
        "tokenizer.sha256": manifest.tokenizer_sha256,
        **{f"workload.{key}": value for key, value in workload.items()},
    }


def task_contract(settings: Settings, manifest: ManifestHead) -> dict[str, Plain]:
    """What a task has of its own, stored as `task_contracts.contract_json`; `settings` are those of the task.

    Dataset and revision, selection rule, prompt template version, decoding. The manifest's own hash is not in it: a
    manifest may grow, and store_manifest proves that what is there stays. The number of answers isn't either: more of
    them are more requests, and change none.
    """
    contract: dict[str, Plain] = {
        "dataset.id": manifest.dataset_id,
        "dataset.name": manifest.name,
        "dataset.task": manifest.task,
        "dataset.source_revision": manifest.source_revision,
        "dataset.metric": manifest.metric,
        "prompt.template_version": str(manifest.prompt["template_version"]),
        "prompt.chat_template_sha256": manifest.prompt["chat_template_sha256"],
    }
    contract |= {f"selection.{key}": value for key, value in manifest.selection.items()}
    decoding = known_secrets(settings).json(settings.decoding.model_dump(mode="json", exclude={"samples"}))
    if settings.decoding.seed is not None and settings.decoding.temperature != 0:
        decoding["seed_rule"] = SEED_RULE
    contract |= {f"decoding.{key}": value for key, value in decoding.items()}
    return dict(sorted(contract.items()))
