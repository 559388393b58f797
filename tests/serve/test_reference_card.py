"""The shipped reference model's folder: small, loadable, and as good as its card says it must be."""

import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from jinja2 import Environment
from safetensors import safe_open
from tokenizers import Tokenizer

from kvt_async.data.sources import kvtext_words as words
from kvt_async.data.sources.kvtext import KINDS, chat, generate

FOLDER = Path(str(files("kvt_async"))) / "serve" / "reference"
ROW = re.compile(r"^\| (\w[\w ]*) \| ([\d+ a-z-]+) \| (\d+) \| ([01]\.\d{3}) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def card() -> str:
    return (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def test_the_folder_is_at_most_4_mb_and_complete() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= names
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 4_000_000


def test_the_card_reports_every_task_at_every_length_and_nothing_below_the_bar(card: str) -> None:
    cells = [(task, tokens, int(examples), float(accuracy)) for task, tokens, examples, accuracy in ROW.findall(card)]
    reported = {(task, tokens) for task, tokens, _, _ in cells}
    assert {(task, length) for task in KINDS for length in ("128", "256", "512", "1024", "2048")} <= reported
    for task in KINDS:
        assert sum(name == task and "-" in tokens for name, tokens in reported) == 5, "the demo's five bins"
    assert all(examples >= 200 for _, _, examples, _ in cells)
    assert min(accuracy for *_, accuracy in cells) >= 0.97


def test_the_card_describes_these_very_weights_and_this_vocabulary(card: str) -> None:
    assert hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest() in card
    assert hashlib.sha256("\n".join(words.VOCABULARY).encode()).hexdigest() in card


def test_the_card_names_the_limits(card: str) -> None:
    for limit in ("not a language\n  model", "steeper", "two hops", "not at a ratio"):
        assert limit in card


def test_the_tokenizer_gives_every_word_its_place_in_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab() == words.TOKEN_IDS
    assert tokenizer.encode("The code of babin is 300?").tokens == ["the", "code", "of", "babin", "is", "300", "?"]
    assert tokenizer.encode("zeppelin").ids == [words.UNK]
    assert tokenizer.decode([words.TOKEN_IDS["300"], words.TOKEN_IDS["301"], words.EOS]) == "300 301"


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("system", ["", "you answer with the code ."])
def test_the_chat_template_renders_exactly_the_layout_of_training(tokenizer: Tokenizer, task: str, system: str) -> None:
    config = json.loads((FOLDER / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = Environment(autoescape=False).from_string(config["chat_template"])
    for example in generate(task, contexts=5, max_tokens=400):
        messages = [{"role": "system", "content": system}] if system else []
        ask = example.context + " "
        for question, answer in example.meta.get("turns", []):
            messages += [{"role": "user", "content": ask + question}, {"role": "assistant", "content": answer}]
            ask = ""
        messages.append({"role": "user", "content": ask + example.question})
        text = template.render(
            messages=messages, bos_token=config["bos_token"], eos_token=config["eos_token"], add_generation_prompt=True
        )
        assert tokenizer.encode(text, add_special_tokens=False).ids == [
            words.TOKEN_IDS[word] for word in chat(example, system)
        ]


def test_tensors_have_hugging_face_names_and_the_shapes_of_the_config() -> None:
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    wanted = {"model.embed_tokens.weight": [config["vocab_size"], width], "model.norm.weight": [width]}
    for n in range(config["num_hidden_layers"]):
        wanted |= {
            f"model.layers.{n}.{name}.weight": shape
            for name, shape in {
                "self_attn.q_proj": [config["num_attention_heads"] * head, width],
                "self_attn.k_proj": [config["num_key_value_heads"] * head, width],
                "self_attn.v_proj": [config["num_key_value_heads"] * head, width],
                "self_attn.o_proj": [width, config["num_attention_heads"] * head],
                "mlp.gate_proj": [inner, width],
                "mlp.up_proj": [inner, width],
                "mlp.down_proj": [width, inner],
                "input_layernorm": [width],
                "post_attention_layernorm": [width],
            }.items()
        }
    with safe_open(FOLDER / "model.safetensors", framework="numpy") as weights:
        stored = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 - not a dict
        assert {name: part.get_shape() for name, part in stored.items()} == wanted
        assert {part.get_dtype() for part in stored.values()} == {"F16"}
    assert config["max_position_embeddings"] >= 4096
    assert config["tie_word_embeddings"] is True
