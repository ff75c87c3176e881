"""Tiny language models in double precision, batches for them, and gradients that can't be wrong."""

import warnings

import pytest
import torch
from torch import nn

VOCABULARY, POSITIONS = 50, 32
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Recurrent(nn.Module):
    """A language model without transformers; its forward knows the tokens only."""

    def __init__(self, vocabulary=VOCABULARY):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 12)
        self.gru = nn.GRU(12, 10, batch_first=True)
        self.head = nn.Linear(10, vocabulary)

    def forward(self, tokens):
        return self.head(self.gru(self.embed(tokens))[0])


def llama(transformers, **options):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **options))


def tied_llama(transformers):
    return llama(transformers, tie_word_embeddings=True)


def eager_llama(transformers):
    return llama(transformers, attn_implementation="eager")


def qwen2(transformers):
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES))


def gemma(transformers):
    return transformers.GemmaForCausalLM(transformers.GemmaConfig(**SIZES, head_dim=4))


def gpt2(transformers):
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=POSITIONS,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def lora(transformers):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # peft asks for a name that transformers drops
        return peft.get_peft_model(llama(transformers), config)


# transformers computes their norms in single precision: derivatives agree to its rounding
ROUNDING = {"tied_llama", "llama", "eager_llama", "qwen2", "gemma", "lora"}
FAMILIES = llama, tied_llama, qwen2, gpt2, gemma, lora


def make(family):
    """A model of a family, in double precision and evaluation mode."""
    torch.manual_seed(0)
    if family is Recurrent:
        return Recurrent().double().eval()
    return family(pytest.importorskip("transformers", minversion="5")).double().eval()


def make_batch(n, length, padding=None, seed=0):
    """Tokens of which the first two are a prompt, some sequences padded on a side."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (n, length), generator=generator)
    mask, labels = torch.ones_like(ids), ids.clone()
    labels[:, :2] = -100
    if padding == "right":
        mask[1, length - 2 :] = 0
    if padding == "left":
        mask[1, :2] = 0
        labels[1, 2] = -100  # predicted from padding
    labels[mask == 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def call(model, batch):
    """Logits, as anyone would ask for them."""
    if isinstance(model, Recurrent):
        return model(batch["input_ids"])
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def token_log_proba(model, batch):
    """Log-probabilities of the labelled tokens, sequence-major, one sequence at a time."""
    found = []
    for i in range(len(batch["input_ids"])):
        row = {key: value[i : i + 1] for key, value in batch.items()}
        logits, labels = call(model, row)[0], row["labels"][0]
        found += [torch.log_softmax(logits[t - 1], 0)[labels[t]]
                  for t in range(1, len(labels)) if labels[t] != -100]  # fmt: skip
    return torch.stack(found)


def jacobian(scalars, model):
    """Gradients of scalars, one backward pass each: (n, d)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for scalar in scalars:
        gradient = torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(gradient, parameters)
        gradient = [torch.zeros_like(p) if g is None else g for g, p in pairs]
        rows.append(torch.cat([g.flatten() for g in gradient]))
    return torch.stack(rows)


def sequence_jacobian(model, batch):
    """Gradients of the sequences' sums."""
    return jacobian(sums(token_log_proba(model, batch), batch), model)


def sums(values, batch):
    """Sums over the labelled tokens of each sequence, of values by token."""
    counts = (batch["labels"] != -100).sum(1).tolist()
    return torch.stack([part.sum(0) for part in values.split(counts)])
