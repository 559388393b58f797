"""What `kvt bench` prints with --json, held against the schema that is shipped with it."""

import json
from functools import cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from kvt_async.contract.bench_output import SCHEMA_FILE, schema_text, stamped

WHERE_TO_SAY_IT = f"kvt_async/contract/{SCHEMA_FILE}, and docs/BENCH.md, section --json"


def documented(answer: dict[str, Any], kind: str = "analysis") -> dict[str, Any]:
    """The answer, if the schema knows all of it but `lines`. `kind`: a definition of the schema."""
    shown = {name: value for name, value in answer.items() if name != "lines"}
    plain = json.loads(orjson.dumps(stamped(shown), option=orjson.OPT_SERIALIZE_NUMPY, default=str))
    errors = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in _validator(kind).iter_errors(plain)]
    assert not errors, f"{errors[:3]} A new key of --json is to be documented in {WHERE_TO_SAY_IT}"
    return answer


@cache
def _validator(kind: str) -> Draft202012Validator:
    """Stricter than what is shipped: there a reader passes over keys that it does not know."""
    return Draft202012Validator(closed(json.loads(schema_text())) | {"anyOf": [{"$ref": f"#/$defs/{kind}"}]})


def closed(schema: Any) -> Any:
    """The schema with no room for keys that it does not name."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: closed(part) for key, part in schema.items()}
    own = isinstance(parts.get("properties"), dict) and parts.get("type") == "object"
    return parts | {"additionalProperties": False} if own else parts
