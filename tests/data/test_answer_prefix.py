"""prompt.answer_prefix: turn. What begins an assistant's turn is counted, hashed and written as servers read it."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from kvt_async.contract.errors import ConfigError
from kvt_async.data.example_prompt import is_templated, prompt_rule, served_text
from kvt_async.data.identity import dataset_id, selection_rule
from kvt_async.data.prepare import prepare
from kvt_async.data.sources import open_source
from kvt_async.data.tokens import load_tokenizer
from tests.data.helpers import jsonl_settings, numbered

BEGUN = [{**row, "meta": {"answer_prefix": "it is"}} for row in numbered(4)]


def test_an_answer_prefix_inside_the_turn_makes_another_dataset_and_leaves_the_others_names_alone(
    tmp_path: Path,
) -> None:
    plain = jsonl_settings(tmp_path, BEGUN)
    turn = jsonl_settings(tmp_path, BEGUN, "prompt.answer_prefix=turn")
    assert "answer_prefix" not in selection_rule(plain)
    assert dataset_id(plain) != dataset_id(turn)
    heads = [prepare(config, report=lambda _: None).head for config in (plain, turn)]
    assert "answer_prefix" not in heads[0].prompt
    assert heads[1].prompt["answer_prefix"] == "turn"
    assert heads[0].prompt["template_version"] != heads[1].prompt["template_version"]


def test_a_completion_whose_tokenizer_begins_every_text_is_written_without_that_mark(tmp_path: Path) -> None:
    folder = tmp_path / "begins"
    folder.mkdir()
    words = {"<s>": 0, "<unk>": 1, "who": 2, "it": 3, "is": 4, "A": 5}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens(["<s>"])
    template = "{{ bos_token }} {% for m in messages %}{{ m.content }} A {% endfor %}"
    texts = {}
    for begins in (True, False):
        if begins:
            backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        backend.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "chat_template": template}))
        config = jsonl_settings(tmp_path, BEGUN, "prompt.answer_prefix=turn", "prompt.endpoint=completions",
                                f"tokenizer.name={folder}")  # fmt: skip
        tokenizer = load_tokenizer(config)
        rule = prompt_rule(config, open_source(config), tokenizer)
        messages = [{"role": "user", "content": "who"}, {"role": "assistant", "content": "it is"}]
        texts[begins] = served_text(rule, tokenizer, messages)
        assert tokenizer.count([texts[begins]], special=not is_templated(rule, tokenizer)) == [5]  # one mark
        backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
        backend.pre_tokenizer = WhitespaceSplit()
        backend.add_special_tokens(["<s>"])
    assert texts == {True: " who A it is", False: "<s> who A it is"}


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["dataset.name=kvtext", "dataset.task=multikey", "dataset.path=null"], "kvtext has no answer prefix"),
        (["prompt.endpoint=completions", "tokenizer.name=approx:chars/4"], "has no chat template"),
    ],
)
def test_an_answer_prefix_that_can_not_begin_a_turn_is_refused(tmp_path: Path, overrides: list[str], why: str) -> None:
    config = jsonl_settings(tmp_path, BEGUN, "prompt.answer_prefix=turn", *overrides)
    with pytest.raises(ConfigError, match=why):
        prepare(config, report=lambda _: None)
