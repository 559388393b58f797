"""The group contract: what must stay equal for results to belong to one experiment group."""

from kvt_async.contract.load import known_secrets
from kvt_async.contract.settings import Settings
from kvt_async.data.manifest import ManifestHead

Plain = str | int | float | bool | list[object] | dict[str, object] | None


def group_contract(settings: Settings, manifest: ManifestHead) -> dict[str, Plain]:
    """Dotted names -> plain values, to be compared field by field and stored as `experiments.contract_json`.

    Dataset and revision, selection rule, tokenizer, prompt template version, model, decoding. The manifest's own hash
    is not in it: a manifest may grow, and store_manifest proves that what is there stays.
    """
    contract: dict[str, Plain] = {
        "dataset.id": manifest.dataset_id,
        "dataset.name": manifest.name,
        "dataset.task": manifest.task,
        "dataset.source_revision": manifest.source_revision,
        "dataset.metric": manifest.metric,
        "tokenizer.name": manifest.tokenizer_name,
        "tokenizer.sha256": manifest.tokenizer_sha256,
        "prompt.template_version": str(manifest.prompt["template_version"]),
        "prompt.chat_template_sha256": manifest.prompt["chat_template_sha256"],
        "model.name": settings.model.name,
    }
    contract |= {f"selection.{key}": value for key, value in manifest.selection.items()}
    decoding = known_secrets(settings).json(settings.decoding.model_dump(mode="json"))
    contract |= {f"decoding.{key}": value for key, value in decoding.items()}
    return dict(sorted(contract.items()))
