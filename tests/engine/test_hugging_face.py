"""Language models as they come: no parameter of theirs needs the autograd rule."""

import pytest
import torch
from torch import nn

from sklearn_lpntk.kernels import empirical_ntk

from ..oracle import assert_same_kernel, oracle_kernel

transformers = pytest.importorskip("transformers")

WORDS = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
SIZES = WORDS | {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
GPT2 = WORDS | {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
MODELS = {
    "GPT2 tied": ("GPT2", GPT2),
    "GPT2": ("GPT2", GPT2 | {"tie_word_embeddings": False}),
    "Llama": ("Llama", SIZES),
    "Llama tied": ("Llama", SIZES | {"tie_word_embeddings": True}),
    "Qwen2": ("Qwen2", SIZES),
    "Qwen2 tied": ("Qwen2", SIZES | {"tie_word_embeddings": True}),
}


class NextToken(nn.Module):
    """Logits of the token after the last."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(input_ids=x, use_cache=False).logits[:, -1]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_no_parameter_takes_the_autograd_rule(name, attention):
    kind, sizes = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    config._attn_implementation = attention
    head = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")
    net = NextToken(head(config).double()).eval()
    X, y = torch.randint(0, 50, (6, 10)), torch.arange(6)
    operator = empirical_ntk(net, X, y)  # an AutogradRuleWarning would be an error here
    assert_same_kernel(operator.toarray(), oracle_kernel(net, X, y, "lpntk"))
