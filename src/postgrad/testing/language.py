"""A tiny language model with random weights, made in a second, so that tests tune a real transformer quickly.

It knows no language. What is learnt on top of it is real.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable

WIDTH = 64
LAYERS = 2
HEADS = 4
KEY_HEADS = 2
LENGTH = 512
VOCABULARY = 384
PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
# The markers say which tokens an assistant wrote; training libraries read them.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tiny_lm(folder: Path, texts: Iterable[str] = (), seed: int = 0, chat: bool = True) -> Path:
    """Write a folder with a two-layer Llama of about 110,000 parameters and its tokenizer; return the folder.

    Args:
        texts: what the byte-level BPE tokenizer is trained on. It can spell every text.
        seed: of the random weights. The state of torch's generator is left as it was.
        chat: whether there is a chat template, or the model is one that was never taught to chat.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(texts, chat)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KEY_HEADS,
            max_position_embeddings=LENGTH,
            initializer_range=0.08,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(texts: Iterable[str], chat: bool) -> Any:
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    made = Tokenizer(BPE())
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(list(texts), trainer)
    fast: Any = transformers.PreTrainedTokenizerFast
    tokenizer = fast(
        tokenizer_object=made,
        model_max_length=LENGTH,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        padding_side="left",
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
