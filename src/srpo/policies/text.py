"""Instructions as token ids, with word vectors that ship inside a package (WordLlama, MIT; 256-d, Llama-2 tokens)."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from srpo.types import SrpoError

VECTOR_DIM = 256


def _folder() -> Path:
    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise SrpoError('The compact policy needs the word vectors of wordllama: pip install "srpo[compact]".')
    return Path(next(iter(spec.submodule_search_locations)))


@functools.cache
def _tokenizer():
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(_folder() / "tokenizers" / "l2_supercat_tokenizer_config.json"))


@functools.cache
def tokenise(instruction: str, length: int) -> np.ndarray:
    """Token ids of an instruction, (length,) int32, cut or padded with 0."""
    ids = _tokenizer().encode(instruction.strip().lower(), add_special_tokens=False).ids[:length]
    return np.array(ids + [0] * (length - len(ids)), np.int32)


@functools.cache
def word_vectors() -> torch.Tensor:
    """(V, 256) float16 frozen word vectors, one a token id."""
    from safetensors.torch import load_file

    tensors = load_file(_folder() / "weights" / "l2_supercat_256.safetensors")
    (table,) = tensors.values()
    return table.half()
