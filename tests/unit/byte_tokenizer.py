"""A tokenizer made where it is needed: no file, and every text has tokens."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors


def byte_tokenizer(*, leading: bool = True) -> Tokenizer:
    """One token a byte, and ` Yes` and ` No` as merges; `</s>` first, and before every text if `leading`."""
    vocab = {"</s>": 0, "<pad>": 1}
    vocab |= {byte: index for index, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 2)}
    merges = []
    for word in ("ĠYes", "ĠNo"):
        for end in range(2, len(word) + 1):
            merges.append((word[: end - 1], word[end - 1]))
            vocab[word[:end]] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.add_special_tokens(["</s>", "<pad>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if leading:
        tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 0)])
    return tokenizer
