"""Instructions as token ids and word vectors."""

from __future__ import annotations

import numpy as np
import torch

from srpo.policies import text


def test_token_ids_are_those_of_llama_2() -> None:
    # The pieces "put", "the", "red", "bowl" and their ids in Llama 2's published vocabulary.
    ids = text.tokenise("put the red", 6)
    assert ids.dtype == np.int32 and ids.shape == (6,)
    pieces = [text._tokenizer().id_to_token(int(i)) for i in ids[:3]]
    assert pieces == ["▁put", "▁the", "▁red"]
    assert ids[1] == 278  # "▁the"
    np.testing.assert_array_equal(ids[3:], 0)


def test_case_and_surrounding_space_do_not_matter() -> None:
    np.testing.assert_array_equal(text.tokenise("  Put The Red Bowl\n", 8), text.tokenise("put the red bowl", 8))


def test_long_instructions_are_cut_and_empty_ones_are_all_padding() -> None:
    np.testing.assert_array_equal(text.tokenise("put the red bowl on the plate", 2), text.tokenise("put the", 2))
    np.testing.assert_array_equal(text.tokenise("", 4), 0)


def test_word_vectors_cover_the_vocabulary_and_mean_something() -> None:
    table = text.word_vectors()
    assert table.shape == (32_000, text.VECTOR_DIM) and table.dtype == torch.float16

    def vector(word: str) -> torch.Tensor:
        return table[int(text.tokenise(word, 1)[0])].float()

    def similarity(a: str, b: str) -> float:
        return float(torch.cosine_similarity(vector(a), vector(b), dim=0))

    assert similarity("bowl", "plate") > similarity("bowl", "left") + 0.05
