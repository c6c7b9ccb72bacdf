"""Small real models whose weights are set by hand, so that what they say is known."""

from itertools import pairwise

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def rewritten(source, folder, change):
    """Save a copy of a model whose weights are changed in place."""
    model = AutoModelForCausalLM.from_pretrained(str(source))
    tokenizer = AutoTokenizer.from_pretrained(str(source))
    with torch.no_grad():
        change(model, tokenizer)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def chain(*words):
    """Make a model say these words: each token gives the next, whatever came before.

    Attention and feed-forward add nothing, so the last hidden state is the token's own embedding;
    the head's row of a token is the embedding of the token it follows.
    """

    def change(model, tokenizer):
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        head.zero_()
        tokens = [tokenizer(word)["input_ids"] for word in ("\n", *words)]
        assert all(len(token) == 1 for token in tokens)
        for (before,), (after,) in pairwise(tokens):
            head[after] = embedding[before]

    return change


def saying(source, folder, *pieces):
    """Save a model that answers whatever it is asked with these pieces, each of them once.

    They become tokens of its tokenizer, which are no control tokens.
    """
    model = AutoModelForCausalLM.from_pretrained(str(source))
    tokenizer = AutoTokenizer.from_pretrained(str(source))
    tokenizer.add_tokens(list(pieces))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        std = model.config.initializer_range  # no token's words are louder than another's
        torch.nn.init.normal_(model.model.embed_tokens.weight[-len(pieces) :], std=std)
        chain(*pieces, tokenizer.eos_token)(model, tokenizer)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder
