"""The callbacks and the mixin inside of real trainers, on tiny models."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch

trl = pytest.importorskip("trl")
transformers = pytest.importorskip("transformers", minversion="5")
datasets = pytest.importorskip("datasets")

from sklearn_lpntk.language import nthr_advantages, sequence_kernel  # noqa: E402
from sklearn_lpntk.language.trl import (  # noqa: E402
    NTHRTrainerMixin,
    ResponseProbe,
    UpdateRecorder,
)

from .models import VOCABULARY, lora, make, make_batch, sums, tied_llama, token_log_proba  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
WORDS = [f"w{i}" for i in range(VOCABULARY - 3)]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {w: i + 3 for i, w in enumerate(WORDS)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<pad>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def texts(n, length, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for _ in range(n)]


def preferences(n=8):
    data = {"prompt": texts(n, 3), "chosen": texts(n, 4, 1), "rejected": texts(n, 4, 2)}
    return datasets.Dataset.from_dict(data)


PROBES = {"chosen": make_batch(2, 6, "left"), "rejected": make_batch(3, 7, "right", seed=1)}
COMMON = {"report_to": "none", "logging_steps": 1, "per_device_train_batch_size": 2,
          "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}  # fmt: skip


def small(family=tied_llama):
    return make(family).float()


def dpo_trainer(tokenizer, tmp_path, callbacks, model=None, **options):
    model = small() if model is None else model
    options = COMMON | {"max_steps": 6, "learning_rate": 1e-4} | options
    return trl.DPOTrainer(
        model,
        ref_model=copy.deepcopy(model),
        args=trl.DPOConfig(str(tmp_path), **options),
        train_dataset=preferences(),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def sft_trainer(tokenizer, tmp_path, callbacks, **options):
    data = {"prompt": texts(8, 3), "completion": texts(8, 4, 1)}
    options = COMMON | {"max_steps": 4, "learning_rate": 1e-3} | options
    return trl.SFTTrainer(
        small(),
        args=trl.SFTConfig(str(tmp_path), **options),
        train_dataset=datasets.Dataset.from_dict(data),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


class TestResponseProbe:
    @pytest.mark.parametrize("make_trainer", [sft_trainer, dpo_trainer])
    def test_records_and_logs(self, tokenizer, tmp_path, make_trainer):
        probe = ResponseProbe(PROBES, every=2)
        trainer = make_trainer(tokenizer, tmp_path, [probe])
        before = sums(token_log_proba(trainer.model, PROBES["rejected"]), PROBES["rejected"])
        argmax = likeliest_log_proba(trainer.model, PROBES["chosen"])
        trainer.train()
        steps = trainer.args.max_steps
        assert [r.step for r in probe.records] == list(range(0, steps + 1, 2))
        first, last = probe.records[0].log_proba, probe.records[-1].log_proba
        sizes = {"chosen": 2, "rejected": 3, "argmax": 2, "likeliest": 2}
        assert {k: len(v) for k, v in first.items()} == sizes
        np.testing.assert_allclose(first["rejected"], before.detach(), rtol=1e-4)
        # without its padding, as a position is that of the token in its sequence
        np.testing.assert_allclose(first["argmax"][0], argmax[0], rtol=1e-4)
        assert (first["argmax"] >= first["chosen"]).all()
        np.testing.assert_array_equal(first["likeliest"], first["argmax"])
        assert (last["likeliest"] >= last["argmax"]).all()
        trained = small()  # a trainer's model computes in half precision
        trained.load_state_dict(trainer.model.state_dict())
        by_now = likeliest_log_proba(trained, PROBES["chosen"])
        np.testing.assert_allclose(last["likeliest"][0], by_now[0], rtol=1e-4)
        frame = probe.to_frame()
        counted = [frame[frame.response == k].n_tokens.tolist() for k in ("argmax", "likeliest")]
        assert counted[0] == counted[1]
        after = sums(token_log_proba(trainer.model, PROBES["rejected"]), PROBES["rejected"])
        np.testing.assert_allclose(last["rejected"], after.detach(), rtol=1e-4)
        logged = [entry for entry in trainer.state.log_history if "probe/chosen" in entry]
        assert len(logged) >= steps - 1

    def test_a_frame(self, tokenizer, tmp_path):
        probe = ResponseProbe(PROBES, every=3, argmax_of=None)
        sft_trainer(tokenizer, tmp_path, [probe]).train()
        frame = probe.to_frame()
        assert set(frame.response) == {"chosen", "rejected"}
        assert sorted(set(frame.step)) == [0, 3, 4]  # the last step, too
        lengths = frame[frame.response == "rejected"].n_tokens[:3].tolist()
        assert lengths == (PROBES["rejected"]["labels"] != -100).sum(1).tolist()

    def test_training_is_the_same(self, tokenizer, tmp_path):
        states = []
        for callbacks in ([], [ResponseProbe(PROBES, every=1), UpdateRecorder(PROBES, every=1)]):
            torch.manual_seed(0)
            trainer = sft_trainer(tokenizer, tmp_path, callbacks, seed=3)
            trainer.train()
            states.append(trainer.model.state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def likeliest_log_proba(model, batch):
    """Sums of the largest log-probability at each labelled position."""
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    best = torch.log_softmax(logits, 2).amax(2)[:, :-1]
    return torch.where(batch["labels"][:, 1:] != -100, best, 0).sum(1)


def test_a_name_of_ours(tokenizer, tmp_path):
    probe = ResponseProbe({"likeliest": PROBES["chosen"]}, every=4)
    sft_trainer(tokenizer, tmp_path, [probe]).train()
    assert set(probe.to_frame().response) == {"likeliest"}
    probe = ResponseProbe({"chosen": PROBES["rejected"], "likeliest": PROBES["chosen"]}, every=4)
    sft_trainer(tokenizer, tmp_path, [probe]).train()
    assert {k: len(v) for k, v in probe.records[0].log_proba.items()} == {
        "chosen": 3,
        "likeliest": 2,
        "argmax": 3,
    }


class TestUpdateRecorder:
    def test_it_keeps_no_model(self, tokenizer, tmp_path):
        recorder = UpdateRecorder(PROBES, every=1)
        trainer = sft_trainer(tokenizer, tmp_path, [recorder])
        trainer.train()
        n_bytes = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
        assert len(pickle.dumps(recorder)) < n_bytes / 2

    def test_dpo_with_adam(self, tokenizer, tmp_path):
        recorder = UpdateRecorder(PROBES, every=2)
        trainer = dpo_trainer(tokenizer, tmp_path, [recorder], max_steps=12)
        trainer.train()
        assert [r.step for r in recorder.records] == [0, 2, 4, 6, 8, 10]
        summary = recorder.summary()
        assert summary.correlation >= 0.99
        assert summary.signs >= 0.95
        frame = recorder.to_frame()
        assert len(frame) == 6 * 5
        assert np.corrcoef(frame.predicted, frame.actual)[0, 1] == pytest.approx(
            summary.correlation
        )
        logged = [e for e in trainer.state.log_history if "update/correlation" in e]
        assert logged[-1]["update/signs"] == summary.signs

    def test_adapters(self, tokenizer, tmp_path):
        model = small(lora)
        recorder = UpdateRecorder(PROBES["chosen"], every=1)
        trainer = trl.SFTTrainer(
            model,
            args=trl.SFTConfig(str(tmp_path), **COMMON, max_steps=4, learning_rate=1e-4),
            train_dataset=datasets.Dataset.from_dict({"text": texts(8, 6)}),
            processing_class=tokenizer,
            callbacks=[recorder],
        )
        trainer.train()
        assert {*recorder.records[0].predicted} == {"probes"}
        assert recorder.summary().correlation > 0.99

    def test_nothing_recorded(self):
        recorder = UpdateRecorder(PROBES)
        assert np.isnan(recorder.summary().correlation)
        assert recorder.to_frame().empty


# -- GRPO -----------------------------------------------------------------------------------


def grpo_trainer(tokenizer, tmp_path, base, **options):
    def reward(completion_ids, **kwargs):
        return [float(sum(ids) % 2) for ids in completion_ids]

    defaults = {"max_steps": 20, "learning_rate": 1e-3, "num_generations": 4,
                "max_completion_length": 5, "per_device_train_batch_size": 8}  # fmt: skip
    return base(
        small(),
        reward_funcs=reward,
        args=trl.GRPOConfig(str(tmp_path), **COMMON | defaults | options),
        train_dataset=datasets.Dataset.from_dict({"prompt": texts(8, 3)}),
        processing_class=tokenizer,
    )


class Trainer(NTHRTrainerMixin, trl.GRPOTrainer):
    nthr_beta = 0.2


class TestGRPO:
    def test_twenty_steps_train_and_log(self, tokenizer, tmp_path):
        trainer = grpo_trainer(tokenizer, tmp_path, Trainer)
        before = copy.deepcopy(trainer.model.state_dict())
        trainer.train()
        after = trainer.model.state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in before)
        shares = [e["nthr/selected"] for e in trainer.state.log_history if "nthr/selected" in e]
        assert len(shares) == 20
        assert max(shares) > 0

    def test_the_advantages_are_those_of_the_function(self, tokenizer, tmp_path):
        trainer = grpo_trainer(tokenizer, tmp_path, Trainer)
        rows = [{"prompt": text} for text in texts(2, 3) for _ in range(4)]
        state = torch.get_rng_state()
        torch.manual_seed(5)
        plain = trl.GRPOTrainer._generate_and_score_completions(trainer, rows)
        torch.manual_seed(5)
        found = trainer._generate_and_score_completions(rows)
        torch.set_rng_state(state)
        assert torch.equal(plain["completion_ids"], found["completion_ids"])
        for g in (slice(0, 4), slice(4, 8)):
            ids, mask = plain["completion_ids"][g], plain["completion_mask"][g]
            batch = torch.cat([plain["prompt_ids"][g], ids], 1)
            attended = torch.cat([plain["prompt_mask"][g], mask], 1)
            with torch.no_grad():
                out = trainer.model(
                    input_ids=batch, attention_mask=attended, output_hidden_states=True
                )
            at = slice(-ids.shape[1] - 1, -1)
            given = out.hidden_states[-1][:, at], out.logits[:, at], ids, mask
            advantages = plain["advantages"][g]
            expected = nthr_advantages(advantages, *given, advantages.round(decimals=2), beta=0.2)
            torch.testing.assert_close(found["advantages"][g], expected)

    def test_groups_over_processes_are_refused(self, tokenizer, tmp_path, monkeypatch):
        trainer = grpo_trainer(tokenizer, tmp_path, Trainer)
        few = {"completion_ids": torch.zeros(6, 3)}
        monkeypatch.setattr(trl.GRPOTrainer, "_generate_and_score_completions", lambda *_: few)
        with pytest.raises(ValueError, match="6 answers in groups of 4"):
            trainer._generate_and_score_completions([])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_trainer_wraps_around_a_model_is_left_out(tokenizer, tmp_path, dtype):
    """A copy in single precision must compute with its own parameters."""
    batch = make_batch(3, 6, "right")
    expected = sequence_kernel(small().to(dtype), batch).toarray()
    model = small().to(dtype)
    dpo_trainer(tokenizer, tmp_path, [], model=model)
    assert "forward" in vars(model)
    np.testing.assert_allclose(sequence_kernel(model, batch).toarray(), expected, rtol=1e-4)
    assert "forward" in vars(model)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((torch.zeros(2, 3),), TypeError, "probes must be a batch"),
        (({},), TypeError, "probes must be a batch"),
        (({"chosen": {"input_ids": [[5]]}},), ValueError, "probes.'chosen'.* no labelled token"),
    ],
)
@pytest.mark.parametrize("callback", [ResponseProbe, UpdateRecorder])
def test_probes_that_are_refused(callback, args, error, message):
    with pytest.raises(error, match=message):
        callback(*args)


@pytest.mark.parametrize("callback", [ResponseProbe, UpdateRecorder])
def test_periods_that_are_refused(callback):
    with pytest.raises(ValueError, match="every must be an int"):
        callback(PROBES, every=0)


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "sklearn_lpntk.language.trl")
    with pytest.raises(ImportError, match=r"sklearn-lpntk\[language\]"):
        import sklearn_lpntk.language.trl  # noqa: F401
