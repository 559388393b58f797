"""Names of a KV cache's data types and the bits per element that they mean, as engines call them in 2026.

A name has two widths: the payload that it says, and what an element takes with its scales, norms and offsets. Where no
source says how large those are, only the payload is known; a few names are known whose payload nobody documents. A
layer that an engine leaves at 16 bits is not counted here, because how many there are depends on the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NO_NAMES = frozenset({"", "auto", "none", "null", "default", "unknown"})  # what a server says without saying anything


@dataclass(frozen=True, slots=True)
class DataType:
    """`payload`, `bits`: bits per element without and with scales. None: not known."""

    payload: float | None
    bits: float | None
    boundary_layers: int = 0  # layers that this type itself leaves at 16 bits, whatever the model

    def width(self, asked: float | None = None) -> float | None:
        """Bits per element, scales included where they are known; the payload, where it is what was asked."""
        if asked is not None and asked == self.payload:
            return self.payload
        return self.bits if self.bits is not None else self.payload


def _plain(bits: float, names: str) -> dict[str, DataType]:
    """Types whose name is their width: no scales, one scale for a whole layer, or scales of a size that isn't known."""
    return {name: DataType(bits, bits) for name in names.split()}


# Head size 128 for types with a scale for each head's vector; a smaller head takes a little more.
DATA_TYPES: Mapping[str, DataType] = {
    # torch: one number an element.
    **_plain(64, "float64 fp64"),
    **_plain(32, "float32 fp32 f32 float"),
    **_plain(16, "float16 fp16 f16 bfloat16 bf16 half"),
    # vLLM, SGLang, TensorRT-LLM, LMDeploy, OpenVINO: one scale a layer or head, which is next to nothing a token.
    **_plain(8, "fp8 e4m3 e5m2 fp8_e4m3 fp8_e5m2 fp8_inc float8_e4m3fn float8_e5m2 int8 u8"),
    **_plain(4, "int4 u4 fp4 fp4_e2m1"),  # scales in groups, of a size that isn't documented
    # vLLM's per-token-head types: a float32 scale (vLLM: scale_dtype=torch.float32) for the 128 elements of a head.
    "int8_per_token_head": DataType(8, 8.25),
    "fp8_per_token_head": DataType(8, 8.25),
    "int4_per_token_head": DataType(4, 4.25),
    # Block formats: one 8-bit scale in 16 elements (NVFP4, and SGLang's block of 16), in 32 (OCP Microscaling 1.0).
    "nvfp4": DataType(4, 4.5),
    "nvfp4_4over6": DataType(4, 4.5),
    "fp4_mx_block16": DataType(4, 4.5),
    "mxfp4": DataType(4, 4.25),
    "mxfp6": DataType(6, 6.25),
    "mxfp8": DataType(8, 8.25),
    # vLLM's latent caches: 656 bytes hold 512 latent elements, their scales and 64 rotary ones in 16 bits.
    "fp8_ds_mla": DataType(8, 656 * 8 / 576),
    "nvfp4_ds_mla": DataType(None, None),
    # vLLM's TurboQuant: bytes of one token's keys and values in a head of 128 (slot sizes of its source, 0.33.0) over
    # 256 elements. The first and last two layers stay at 16 bits.
    "turboquant_k8v4": DataType(6, 196 * 8 / 256, 4),
    "turboquant_4bit_nc": DataType(4, 136 * 8 / 256, 4),
    "turboquant_k3v4_nc": DataType(3.5, 120 * 8 / 256, 4),
    "turboquant_3bit_nc": DataType(3, 104 * 8 / 256, 4),
    # KVarN (a vLLM proposal and plugins): keys and values of 4 and 2 bits with scales that nobody documents yet.
    "kvarn_k4v2_g128": DataType(None, None),
    "kvarn_k4v4_g128": DataType(None, None),
    "kvarn_k4v4_g64": DataType(None, None),
    # llama.cpp: bytes of a block of 32 elements (ggml's block_q*): 34, 24, 22, 20, 18.
    **_plain(8.5, "q8_0"),
    **_plain(6, "q5_1"),
    **_plain(5.5, "q5_0"),
    **_plain(5, "q4_1"),
    **_plain(4.5, "q4_0 iq4_nl"),
}


def plain_name(text: str) -> str:
    """A name as it is compared: lower case, without what a framework puts before it (`torch.bfloat16`)."""
    name = text.strip().strip("'\"").lower()
    for prefix in ("torch.", "ggml_type_", "mx.core.", "mlx.core."):
        name = name.removeprefix(prefix)
    return name


def data_type(text: str) -> DataType | None:
    """The type of that name; None: nobody told us of it."""
    return DATA_TYPES.get(plain_name(text))


def number_of(text: str | None, asked: float | None = None) -> float | None:
    """A number, or the bits of a data type's name; None for anything else, `auto` included.

    `asked`: a level's bits, since a type may be asked for by its payload (`nvfp4` as 4) or with its scales (4.5).
    """
    if text is None:
        return None
    known = data_type(text)
    if known is not None:
        return known.width(asked)
    try:
        return float(text.strip())
    except ValueError:
        return None


def is_data_type(text: Any) -> bool:
    """Whether this is a name of a data type that is known here: it counts bits, whatever else is counted."""
    return isinstance(text, str) and data_type(text) is not None


def is_name(text: str | None) -> bool:
    """Whether this names something: no number, and not a word that leaves it open (`auto`)."""
    if text is None or plain_name(text) in NO_NAMES:
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
