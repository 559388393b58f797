"""What a server's start-up log says of its set-up."""

import pytest

from kvt_async.session.launch_facts import launch_facts


@pytest.mark.parametrize(
    ("log", "facts"),
    [
        ("INFO Using FLASHINFER attention backend out of potential backends", {"attention_backend": "FLASHINFER"}),
        ("INFO Using Flash Attention backend on V1 engine.", {"attention_backend": "Flash Attention"}),
        (
            "Initializing a V1 LLM engine with config: model='m', tensor_parallel_size=2, enable_prefix_caching=True",
            {"tensor_parallel_size": "2", "enable_prefix_caching": "True"},
        ),
        (
            "server_args=ServerArgs(tp_size=4, attention_backend='fa3', disable_radix_cache=False)",
            {"attention_backend": "fa3", "tensor_parallel_size": "4", "disable_radix_cache": "False"},
        ),
        (
            "WARNING Using KV cache scaling factor 1.0 for fp8_e4m3. If this is unintended, verify k/v_scale",
            {"kv_scales": "scales of the KV cache are 1.0, not calibrated,"},
        ),
        ("tensor_parallel_size=1\nrestarted\ntensor_parallel_size=2", {"tensor_parallel_size": "2"}),
        ("nothing of the kind", {}),
    ],
)
def test_set_up_is_read_from_the_log_the_last_word_counts(log: str, facts: dict[str, str]) -> None:
    assert launch_facts(lambda: log) == facts
