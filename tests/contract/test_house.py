"""What scripts/house.py counts: what names a way of applying a budget, and what a parameter is."""

import ast

import house
import pytest


@pytest.mark.parametrize(
    "code",
    [
        'if settings.kv.apply.via == "launch": ...',
        'if level.apply_via in ("body", "none"): ...',
        'match apply.via:\n    case "endpoint": ...',
        'work = {"launch": started, "none": plain}[apply.via]',
        'Level(apply_via="none")',
        'apply = {"via": "header"}',
        "if level.policy == TRUNCATE: ...",
        'if run.kv_policy != "truncate_prompt": ...',
        "sql = \"SELECT 1 FROM runs WHERE kv_policy <> 'truncate_prompt'\"",
    ],
)
def test_code_that_decides_by_a_way_names_it(code: str) -> None:
    assert house.way_named(ast.parse(code)) is not None


@pytest.mark.parametrize(
    "code",
    [
        '"""A prompt of truncate_prompt is cut before it is sent."""',
        "way_of(settings.kv.apply.via).check(settings)",
        'post(url, body="none")',
        'row = {"endpoint": url, "body": body}',
        'conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")',
        'if source == "none": ...',
    ],
)
def test_code_that_hands_a_way_on_or_speaks_of_other_things_names_none(code: str) -> None:
    assert house.way_named(ast.parse(code)) is None


def functions(code: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return list(house.Module("a.py", code, ast.parse(code)).functions())


def test_self_and_collected_arguments_are_no_parameters() -> None:
    (method,) = functions("class A:\n    def f(self, a, /, b, *rest, c=1, **more): ...")
    assert house.parameters(method) == 3


def test_the_options_of_a_command_are_not_counted_against_it() -> None:
    command, plain = functions("@app.command()\ndef run(a): ...\n\n@cache\ndef helper(a): ...")
    assert house.is_command(command)
    assert not house.is_command(plain)


def test_every_figure_has_a_bar_and_is_under_it() -> None:
    figures = house.figures(house.modules())
    assert {figure.title for figure in figures} == set(house.BARS)
    assert [figure for figure in figures if figure.over] == []
