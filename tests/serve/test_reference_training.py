"""What training starts from and learns on. Needs torch, so `make test-parity` runs it."""

from typing import Any

import pytest

pytestmark = pytest.mark.parity


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="the train extra is not installed")


def test_before_training_each_head_of_layer_0_looks_at_its_own_distance(torch: Any) -> None:
    from reference.network import Llama, Shape, initialise, rotate

    from kvt_async.data.sources.kvtext_words import VOCABULARY

    shape = Shape(vocab_size=len(VOCABULARY))
    model = Llama(shape)
    initialise(model, seed=1)
    length = 64
    ids = torch.randint(0, shape.vocab_size, (8, length), generator=torch.Generator().manual_seed(1))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * shape.frequencies()
    cos, sin = angles.cos().float(), angles.sin().float()
    block = model.blocks()[0]
    x = block.input_layernorm(model.embed_tokens(ids))
    q, k = (
        rotate(project(x).view(8, length, -1, shape.head_dim).transpose(1, 2), cos, sin)
        for project in (block.self_attn.q_proj, block.self_attn.k_proj)
    )
    scores = q @ k.repeat_interleave(shape.group, dim=1).mT / shape.head_dim**0.5
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    attention = scores.masked_fill(future, float("-inf")).softmax(-1)
    for head in range(shape.num_attention_heads):
        own = attention[:, head].diagonal(-(head + 1), 1, 2)[:, shape.num_attention_heads :]
        assert own.mean() > 0.94


@pytest.mark.parametrize("length", [64, 512])
@pytest.mark.parametrize("warmup_share", [0.0, 1.0])
def test_training_rows_mark_exactly_the_answers_after_assistant(torch: Any, length: int, warmup_share: float) -> None:
    from reference.rows import make_batch

    from kvt_async.data.sources.kvtext_text import Dice
    from kvt_async.data.sources.kvtext_words import ASSISTANT, EOS, TOKEN_IDS, VALUES

    batch = make_batch(Dice("rows"), length=length, tokens=4096, warmup_share=warmup_share)
    assert batch.ids.shape == batch.targets.shape == batch.answers.shape == (4096 // length, length)
    values = {TOKEN_IDS[value] for value in VALUES}
    for ids, targets, answers in zip(batch.ids, batch.targets, batch.answers, strict=True):
        starts = (ids == ASSISTANT).nonzero().flatten().tolist()
        assert starts
        assert answers.nonzero().flatten().tolist() == [start + n for start in starts for n in range(3)]
        for start in starts:
            first, second, end = targets[start : start + 3].tolist()
            assert {first, second} <= values
            assert end == EOS
            # the pair stands in the context too, two tokens after the name that was asked for
            name = ids[start - 2].item()
            asked = [n for n in range(start - 2) if ids[n] == name and ids[n + 2] == first and ids[n + 3] == second]
            assert len(asked) == 1


@pytest.mark.parametrize("stage", [0, 1])
def test_recital_rows_mark_the_whole_answer_of_each_name_that_is_asked(torch: Any, stage: int) -> None:
    from reference.recite import STAGES, make_rows

    from kvt_async.data.sources.kvtext_text import Dice
    from kvt_async.data.sources.kvtext_words import ASSISTANT, EOS, TOKEN_IDS

    comma, has = TOKEN_IDS[","], TOKEN_IDS["has"]
    recitals = 0
    for _ in range(4):
        batch = make_rows(Dice(f"rows {stage}"), STAGES[stage], 4096)
        for ids, targets, answers in zip(batch.ids, batch.targets, batch.answers, strict=True):
            learned = targets[answers].tolist()
            if has not in learned:
                continue  # a row as the reference model learns on
            recitals += 1
            assert learned[-1] == EOS
            names = learned[:-1:5]
            at = ids.tolist().index(ASSISTANT)
            question = ids[:at].tolist()[-4 * len(names) - 8 :]
            assert [question[4 * n + 3] for n in range(len(names))] == names
            assert question[4:-9:4] == [comma] * (len(names) - 1)
    assert recitals > 4


def test_orthogonal_updates_have_singular_values_near_one(torch: Any) -> None:
    from reference.muon import orthogonal

    draw = torch.Generator().manual_seed(0)
    for rows, columns in ((64, 128), (128, 128), (256, 128)):
        updates = orthogonal(torch.randn(3, rows, columns, generator=draw))
        singular = torch.linalg.svdvals(updates)
        assert 0.5 < singular.median() < 1.3
        assert singular.max() < 1.4
