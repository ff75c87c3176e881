"""What calls of `sklearn_lpntk.language` take with SmolLM2-135M, beside plain loops of autograd.

Every row is a process of its own, on one thread: CPU seconds without loading, and peak memory.

    make language-model
    python benchmarks/bench_language.py .venv/smollm2 > docs/language_bench.txt
"""

import subprocess
import sys
from pathlib import Path

SETUP = """
import time, torch
torch.set_num_threads(1)
import transformers
model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
from sklearn_lpntk.language import predict_log_proba, sequence_kernel, token_influence
torch.manual_seed(0)
parameters = list(model.parameters())
def batch(n, length, labelled=None):
    ids = torch.randint(100, 40_000, (n, length))
    labels = ids.clone()
    labels[:, : length - (labelled or length)] = -100
    return {"input_ids": ids, "labels": labels}
def losses(row):
    logits = model(input_ids=row["input_ids"][None], use_cache=False).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, row["labels"][1:], reduction="none")
def flat(gradient):
    return torch.cat([g.flatten() for g in gradient])
def rows(b):
    return [{k: v[i] for k, v in b.items()} for i in range(len(b["input_ids"]))]
"""
TIMED = """
begin = time.process_time()
{code}
seconds = time.process_time() - begin
status = open("/proc/self/status").read().split()
print(seconds, int(status[status.index("VmHWM:") + 1]) / 2**20)
"""
LOOP = """
given = rows(batch(8, 64))
gradients = torch.empty(8, sum(p.numel() for p in parameters))
for i, row in enumerate(given):
    gradients[i] = flat(torch.autograd.grad(losses(row).sum(), parameters))
K = gradients @ gradients.T
"""
KERNEL = "K = sequence_kernel(model, batch({n}, 64)).toarray()"
TOKENS_LOOP = """
def every(b):
    found = torch.empty(2 * len(b["input_ids"]), sum(p.numel() for p in parameters))
    for i, row in enumerate(rows(b)):
        own = losses(row)[-2:]
        for k in range(2):
            gradient = torch.autograd.grad(own[k], parameters, retain_graph=k == 0)
            found[2 * i + k] = flat(gradient)
    return found
K = every(batch(5, 20, 2)) @ every(batch(1, 20, 2)).T
"""
TOKENS = "K = token_influence(model, batch(5, 20, 2), batch(1, 20, 2)).matrix"
STEP = "found = predict_log_proba(model, batch(20, 20, 4), batch(4, 20, 4), learning_rate=1e-5)"
TAKEN = """
import copy
stepped, update, probes = copy.deepcopy(model), batch(4, 20, 4), batch(20, 20, 4)
stepped(**update).loss.backward()
with torch.no_grad():
    for p in stepped.parameters():
        p -= 1e-5 * p.grad
    for net in (model, stepped):
        net(**probes).loss
"""
TRAINED = """
import tempfile, warnings
from sklearn_lpntk.language.trl import ResponseProbe, UpdateRecorder
from benchmarks.reproduction import language_dynamics as study
warnings.simplefilter("ignore")
study.STEPS["dpo"] = 20
tokenizer, data = study.AutoTokenizer.from_pretrained(FOLDER), list(study.pairs(0))
answers = study.probes_of(tokenizer, data[:8])
probes = {kind: answers[kind] for kind in ("chosen", "rejected")}
study.dpo(FOLDER, None, tokenizer, data, 0, CALLBACK, tempfile.mkdtemp())
"""
ROWS = {
    "kernel of 8 sequences of 64 tokens": KERNEL.format(n=8),
    "    a plain loop over sequences": LOOP,
    "kernel of 32": KERNEL.format(n=32),
    "10 tokens by 2, in sequences of 20": TOKENS,
    "    a plain loop over tokens": TOKENS_LOOP,
    "20 answers, a step on 4: predicted": STEP,
    "    taken, and both measured": TAKEN,
    "20 steps of DPO on 4 pairs": TRAINED.replace("CALLBACK", "transformers.TrainerCallback()"),
    "    16 answers, each 10th step predicted": TRAINED.replace(
        "CALLBACK", "UpdateRecorder(probes, every=10)"
    ),
    "    their log-probabilities each 10th step": TRAINED.replace(
        "CALLBACK", "ResponseProbe(probes, every=10, argmax_of=None)"
    ),
}


def measured(folder, code):
    script = (SETUP + TIMED.format(code=code)).replace("FOLDER", repr(str(folder)))
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=root)
    return map(float, done.stdout.split()[-2:])


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    print(f"{'':44s}{'CPU s':>8s}{'GB':>8s}")
    for name, code in ROWS.items():
        seconds, gigabytes = measured(folder, code)
        print(f"{name:44s}{seconds:>8.1f}{gigabytes:>8.2f}", flush=True)
