"""The budget stands in fields of each request's body (kv.apply.via: body)."""

from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import Apply, Via
from kvt_async.engine.request.kv_fields import check_template
from kvt_async.records import Json, Level
from kvt_async.ways.way import RunningServer


class BodyFields(RunningServer):
    """kv.apply.body is merged into the request; at full cache kv.apply.full_body, where there is one."""

    name = Via.BODY.value
    takes_any_budget = True
    names_mode = True

    def check(self, settings: Settings, level: Level) -> None:
        apply = settings.kv.apply
        if level.serves_full and apply.full_body is not None:
            check_template(apply.full_body, "kv.apply.full_body", level)
        else:
            check_template(apply.body, "kv.apply.body", level)

    def identity(self, apply: Apply, *, serves_full: bool) -> Json:
        return {"body": apply.full_body if serves_full and apply.full_body is not None else apply.body}
