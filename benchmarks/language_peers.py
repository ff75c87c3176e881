r"""Gram matrices of per-sequence gradients: what each library gives, on the same tiny models.

K[i, j] = <grad_w L_i, grad_w L_j>, L_i the sum of the cross-entropies of the labelled tokens of
sequence i, w all trainable parameters.

    pip install --no-deps bergson dattri dattri-llm kronfluence traker ml_dtypes opt_einsum \
        einconv natsort jaxtyping wadler_lindig petname torchopt optree simple_parsing \
        docstring_parser
    python benchmarks/language_peers.py > docs/language_peers.txt

A *site* is one use of a parameter in a module ("lm_head.weight"); a tied weight has several. Each
library function returns its matrix and *groups* of sites: what the library says it covers, and adds
up before the inner product. From these follow what it should give, and what it leaves out.
"""

import contextlib
import copy
import functools
import io
import logging
import os
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from importlib.metadata import version
from unittest import mock

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

COMMON = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}


# ---- models, data, loss -------------------------------------------------------------------------
def llama(init, tied=False):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32}
    config = LlamaConfig(**COMMON, **shape, tie_word_embeddings=tied, initializer_range=init)
    return LlamaForCausalLM(config).eval()


def gpt2(init):
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "n_inner": 24}
    return GPT2LMHeadModel(GPT2Config(**COMMON, **shape, initializer_range=init)).eval()


def lora(init):
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "down_proj"]
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(llama(init), config).eval()


MODELS = {"Llama": llama, "Llama tied": functools.partial(llama, tied=True), "GPT-2": gpt2}
MODELS["Llama LoRA"] = lora


def make_batch():
    torch.manual_seed(0)
    ids = torch.randint(3, 50, (6, 7))
    mask = torch.ones_like(ids)
    mask[[1, 4], 5:] = 0  # two sequences, padded on the right by 2
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :2] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def summed_loss(logits, labels):
    """The sum over the labelled tokens, shifted as in transformers; works inside vmap too."""
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def batch_loss(model, batch):
    out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return summed_loss(out.logits, batch["labels"])


def rows(batch):
    return [dict(zip(batch, row)) for row in zip(*batch.values())]


# ---- oracle -------------------------------------------------------------------------------------
def rowwise_gradients(model, batch, parameters):
    rowwise = []
    for row in rows(batch):
        loss = batch_loss(model, {key: value[None] for key, value in row.items()})
        rowwise.append(torch.autograd.grad(loss, list(parameters.values())))
    return {name: torch.stack(gs).flatten(1) for name, gs in zip(parameters, zip(*rowwise))}


class Oracle:
    """The true matrix in float64, and that of any groups of sites (from an untied copy)."""

    def __init__(self, model, batch):
        model = copy.deepcopy(model).double()
        self.own = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.K = sum(g @ g.T for g in rowwise_gradients(model, batch, self.own).values())
        names, seen, self.owner, self.kind = {id(p): n for n, p in self.own.items()}, set(), {}, {}
        for path, module in model.named_modules():
            for key, p in list(module.named_parameters(recurse=False)):
                if p.requires_grad:
                    site = f"{path}.{key}"
                    self.owner[site], self.kind[site] = names[id(p)], type(module).__name__
                    if id(p) in seen:  # untie
                        setattr(module, key, torch.nn.Parameter(p.detach().clone()))
                    seen.add(id(p))
        self.G = rowwise_gradients(model, batch, {s: model.get_parameter(s) for s in self.owner})
        assert torch.allclose(self.gram(self.by_parameter(self.own)), self.K, rtol=1e-10)

    def by_parameter(self, names):
        """Groups of whole parameters: a tied weight counts as one, with all of its sites."""
        return [tuple(site for site, o in self.owner.items() if o == name) for name in names]

    def by_site(self, modules):
        """Each weight and bias of these modules on its own, as if nothing was tied."""
        return [(s,) for m in modules for s in (f"{m}.weight", f"{m}.bias") if s in self.owner]

    def gram(self, groups, shared=None):
        """``shared``, {site: n}: gradients that are sums over batches of n, the same for each."""
        G = dict(self.G)
        for site, n in (shared or {}).items():
            G[site] = G[site].unflatten(0, (-1, n)).sum(1).repeat_interleave(n, 0)
        return sum(g @ g.T for g in (sum(G[site] for site in group) for group in groups))

    def left_out(self, groups, shared=None):
        missing = self.owner.keys() - {site for group in groups for site in group}
        n_groups = Counter(owner for group in groups for owner in {self.owner[s] for s in group})
        star = {site: "*" * (self.owner[site] in n_groups) for site in missing}
        kinds = Counter(f"{self.kind[s]}.{s.split('.')[-1]}{star[s]}" for s in missing)
        out = [f"{kind} x{n}" for kind, n in sorted(kinds.items())]
        out += ["cross terms of the tied weight" for n in n_groups.values() if n > 1]
        out += [f"{site} summed over batches of {n}" for site, n in (shared or {}).items()]
        return "; ".join(out) or "nothing"


# ---- libraries ----------------------------------------------------------------------------------
def ours(model, batch, oracle):
    from sklearn_lpntk.language import sequence_kernel

    return torch.as_tensor(sequence_kernel(model, batch).toarray()), oracle.by_parameter(oracle.own)


def functional_loss(model, weights, ids, labels):
    """For torch.func: one sequence. No attention mask: with right padding it changes nothing."""
    out = torch.func.functional_call(model, weights, ids[None])
    return summed_loss(out.logits, labels[None])


def trak(model, batch, oracle):
    """TRAKer with NoOpProjector, float32: its features are the gradients over a constant."""
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import NoOpProjector

    class SummedLoss(AbstractModelOutput):
        __init__ = object.__init__  # which is abstract there

        @staticmethod
        def get_output(model, weights, buffers, ids, labels):
            return functional_loss(model, (weights, buffers), ids, labels)

        def get_out_to_loss_grad(self, model, weights, buffers, batch):
            return torch.ones(len(batch[0]), 1)

    with tempfile.TemporaryDirectory() as path:
        traker = TRAKer(
            model, SummedLoss(), 6, path, device="cpu", projector=NoOpProjector(device="cpu"),
            grad_wrt=list(oracle.own), use_half_precision=False,
        )  # fmt: skip
        traker.load_checkpoint(model.state_dict(), model_id=0)
        traker.featurize((batch["input_ids"], batch["labels"]), num_samples=6)
        features = torch.tensor(traker.saver.current_store["grads"]) * traker.normalize_factor
    return features @ features.T, oracle.by_parameter(oracle.own)


IDENTITY = {"proj_type": "identity"}


def dattri(model, batch, oracle, projector=IDENTITY):
    """TracIn with one checkpoint of weight 1. Its default projects to 512 dimensions."""
    from dattri.algorithm import tracin
    from dattri.task import AttributionTask

    data = DataLoader(TensorDataset(batch["input_ids"], batch["labels"]), batch_size=3)

    def loss(weights, data):
        return functional_loss(model, weights, *data)

    task = AttributionTask(loss, model, model.state_dict())
    tracin.DEFAULT_PROJECTOR_KWARGS.pop("proj_type", None)  # the class changes its own default
    attributor = tracin.TracInAttributor(task, torch.ones(1), False, projector)
    return attributor.attribute(data, data), oracle.by_parameter(task.named_parameters)


def dattri_llm(model, batch, oracle, declare=True, size=1):
    """TracIn. RMSNorms of transformers must be declared; GPT-2's positions need batches of one."""
    from dattri_llm.attribution import AttributionArguments
    from dattri_llm.attribution.algorithm.tracin import TracInAttributor
    from dattri_llm.gradient.hooks import HookManagerConfig
    from dattri_llm.gradient.hooks.config import resolve_hook_assignments
    from dattri_llm.task import AttributionTask

    sites = [s for s, kind in oracle.kind.items() if "RMSNorm" in kind and declare]
    about = {"has_bias": False, "eps": 1e-6, "normalized_shape": (16,)}
    norms = {s.removesuffix(".weight"): about for s in sites}
    hooks = resolve_hook_assignments(model, HookManagerConfig())  # the default: all it can
    config = HookManagerConfig(
        hook_types=hooks | dict.fromkeys(norms, "linear_io"),
        layer_types=dict.fromkeys(norms, "nn.RMSNorm"),
        module_kwargs=norms,
    )
    sizes = {"per_device_train_batch_size": size, "per_device_eval_batch_size": size}
    with tempfile.TemporaryDirectory() as path:
        args = AttributionArguments(output_dir=path, max_grad_norm=None, use_cpu=True, **sizes)
        attributor = TracInAttributor(args, task=AttributionTask(batch_loss, model))
        score = attributor.attribute(rows(batch), rows(batch), hook_config=config)
    # It warns that the positions of GPT-2, one row for all, have no gradient of their own.
    shared = {s: size for s in oracle.owner if s.endswith("wpe.weight") and size > 1}
    return score.agnostic_matrix()[1], oracle.by_site(hooks), shared


def bergson(model, batch, oracle, whole=True):
    """Its collector on the whole model; ``whole=False``: collect_gradients, its own function."""
    import bergson as lib
    import datasets
    from bergson.utils.peft import detect_peft_modules

    lengths, keys = batch["attention_mask"].sum(1), ("input_ids", "labels")
    cut = {key: [x[:n].tolist() for x, n in zip(batch[key], lengths)] for key in keys}
    data = datasets.Dataset.from_dict(cut)
    adapters = detect_peft_modules(model) if hasattr(model, "peft_config") else None
    root = model if whole and adapters is None else model.base_model
    with tempfile.TemporaryDirectory() as path:
        cfg = lib.IndexConfig(run_path=path, loss_reduction="sum", include_bias=True)
        cfg.partial_run_path.mkdir()
        processor = lib.GradientProcessor(include_bias=True)
        how = {"data": data, "cfg": cfg, "processor": processor, "target_modules": adapters}
        collector = lib.InMemoryCollector(model=root, **how)
        if whole:
            computer = lib.CollectorComputer(model, data, collector=collector, cfg=cfg)
            computer.run_with_collector_hooks()
            gradients = torch.cat(list(collector.gradients.values()), 1)
        else:
            lib.collect_gradients(model, **how)
            gradients = torch.from_numpy(lib.load_gradients(cfg.partial_run_path).copy())
    prefix = next(f"{n}.".lstrip(".") for n, m in model.named_modules() if m is root)
    return gradients @ gradients.T, oracle.by_site([prefix + m for m in collector.target_info])


def kronfluence(model, batch, oracle, convert=True):
    """Pairwise scores, strategy "identity"; Conv1D made Linear, as in its own example of GPT-2."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments
    from kronfluence.module.utils import get_tracked_module_names
    from kronfluence.task import Task

    adapters = [s.removesuffix(".weight") for s in oracle.owner if ".lora_" in s]

    class LanguageModeling(Task):
        def compute_train_loss(self, batch, model, sample=False):
            return batch_loss(model, batch)

        def compute_measurement(self, batch, model):
            return batch_loss(model, batch)

        def get_influence_tracked_modules(self):
            return adapters or None

    for name, child in list(model.named_modules()):
        if convert and type(child).__name__ == "Conv1D":
            linear = torch.nn.Linear(*child.weight.shape)
            linear.load_state_dict({"weight": child.weight.T, "bias": child.bias})
            model.set_submodule(name, linear)
    task, data = LanguageModeling(), rows(batch)
    model = prepare_model(model, task)
    with tempfile.TemporaryDirectory() as path:
        analyzer = Analyzer("a", model, task, cpu=True, disable_tqdm=True, output_dir=path)
        analyzer.fit_all_factors("f", data, 3, factor_args=FactorArguments(strategy="identity"))
        analyzer.compute_pairwise_scores("s", "f", data, data, 3, 3)
        K = analyzer.load_pairwise_scores("s")["all_modules"]
    return K, oracle.by_site(get_tracked_module_names(model))


# ---- the run ------------------------------------------------------------------------------------
MAIN = {"ours": ours, "traker, no projection": trak, "dattri, identity": dattri}
MAIN |= {"dattri-llm, batch 1": dattri_llm, "bergson, whole model": bergson}
MAIN |= {"kronfluence, identity": kronfluence}
OTHER = {  # settings that people will meet first
    "dattri, default (512)": functools.partial(dattri, projector=None),
    "dattri-llm, batch 3": functools.partial(dattri_llm, size=3),
    "dattri-llm, default hooks": functools.partial(dattri_llm, declare=False),
    "bergson, collect_gradients": functools.partial(bergson, whole=False),
    "kronfluence, no Conv1D swap": functools.partial(kronfluence, convert=False),
}
PACKAGES = "sklearn-lpntk traker dattri dattri-llm bergson kronfluence torch transformers peft"
# Said at the level of a warning, but about speed, versions and hooks; not what is left out.
CHATTER = "performance drop", "deprecated", "Full backward hook is firing"
HEAD = r"""Gram matrices of per-sequence gradients, all parameters: 6 sequences of 7 tokens

error: max |K - oracle| / max |oracle|; oracle: float64, one backward pass a sequence
covered: the same error against an oracle of only what the library covers, as it adds it up
warned: of what it leaves out, by warnings or by logging at that level
*: this parameter is tied; its other use is covered
LESS: scripts only. TRAK's own score is another product: projected, (Phi^T Phi)^-1 in between.
"""


def measured(function, make, batch, oracle):
    """The second of two runs (the first imports): errors, what it leaves out and says, seconds."""
    said, quiet = [], contextlib.redirect_stderr(io.StringIO())
    hear = warnings.catch_warnings(record=True)

    def keep(_, record):
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())

    try:
        with mock.patch.object(logging.Logger, "handle", keep), quiet, hear as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                model, start = make(), time.perf_counter()
                K, *covered = function(model, batch, oracle)
                seconds = time.perf_counter() - start
    except Exception as error:  # the reason is the result
        return "-", "-", f"does not run: {type(error).__name__}: {error}", [], float("nan")
    errors = [(K - T).abs().max() / T.abs().max() for T in (oracle.K, oracle.gram(*covered))]
    errors = [f"{x:.0e}" if x < 1e-3 else f"{x:.2f}" for x in errors]
    said = {" ".join(text.split()) for text in said + [str(w.message) for w in caught]}
    said = sorted(text for text in said if not any(c in text for c in CHATTER))
    return *errors, oracle.left_out(*covered), said, seconds


def table(settings, init, notes, times):
    columns = "{:<12}{:<29}{:>7}{:>9}  {:<8}{}".format
    lines = [columns("model", "library, setting", "error", "covered", "warned", "left out")]
    for name, build in MODELS.items():
        make, batch = functools.partial(build, init), make_batch()
        oracle = Oracle(make(), batch)
        for label, function in settings.items():
            full, covered, left, said, seconds = measured(function, make, batch, oracle)
            marks = "".join(f"[{notes.setdefault(text, len(notes) + 1)}]" for text in said) or "no"
            lines.append(columns(name, label, full, covered, marks, left))
            times[label].append(f"{seconds:12.2f}")
        lines.append("")
    return lines


def main():
    logging.disable(logging.INFO)
    notes, times = {}, defaultdict(list)
    out = [HEAD, *(f"{p} {version(p)}" for p in PACKAGES.split())]
    out += ["\nBest settings, transformers' initialisation (initializer_range 0.02)\n"]
    out += [*table(MAIN, 0.02, notes, times), "Other settings", ""]
    out += [*table(OTHER, 0.02, notes, times), "Best settings, initializer_range 0.3", ""]
    out += table(MAIN, 0.3, notes, defaultdict(list))
    out += [f"[{k}] {text}" for text, k in notes.items()]
    out += ["", f"{'seconds (these vary)':<29}" + "".join(f"{name:>12}" for name in MODELS)]
    out += [f"{label:<29}{''.join(found)}" for label, found in times.items()]
    print("\n".join(out))


if __name__ == "__main__":
    main()
