"""A tiny sentence encoder with random weights, made in a second, so that tests train a real transformer quickly.

It knows letters and a few words, and nothing of any language. What is learnt on top of it is real.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Iterable

WIDTH = 32
LAYERS = 2
HEADS = 2
LENGTH = 64
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_tiny_encoder(folder: Path, words: Iterable[str] = (), seed: int = 0) -> Path:
    """Write a sentence-transformers folder with a two-layer BERT of width 32 and mean pooling; return the folder.

    Args:
        words: lower-case words that get a token of their own; all others are spelt in letters.
        seed: of the random weights. The state of torch's generator is left as it was.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    tokenizer = _tokenizer(words)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=2 * WIDTH,
            max_position_embeddings=LENGTH,
            initializer_range=0.2,
        )
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformer = Transformer(str(folder), max_seq_length=LENGTH)
    encoder = SentenceTransformer(modules=[transformer, Pooling(WIDTH)], device="cpu")
    encoder.save(str(folder), create_model_card=False)
    return folder


def _tokenizer(words: Iterable[str]) -> Any:
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    letters = string.ascii_lowercase + string.digits
    tokens = [*SPECIAL, *string.punctuation, *letters, *(f"##{letter}" for letter in letters)]
    tokens += sorted(set(words) - set(tokens))
    known = {token: number for number, token in enumerate(tokens)}
    made = Tokenizer(WordPiece(known, unk_token="[UNK]"))
    made.normalizer = BertNormalizer(lowercase=True)
    made.pre_tokenizer = BertPreTokenizer()
    special = [(token, known[token]) for token in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    fast: Any = transformers.PreTrainedTokenizerFast
    return fast(
        tokenizer_object=made,
        model_max_length=LENGTH,
        **{f"{name.strip('[]').lower()}_token": name for name in SPECIAL},
    )
