"""Makes test/fixtures/llama-variants with PyTorch and transformers: small Llamas, one for each option of their config.

    python test/parity/torch-llama.py test/fixtures/llama-variants

Each folder has a model as `save_pretrained` writes it, and `expected.safetensors`: token ids and targets, and the logits,
mean cross entropy and gradients that transformers computes from them in float32.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

BASE = dict(
    vocab_size=32,
    max_position_embeddings=24,
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.3,
)
LLAMA3 = dict(
    rope_theta=100.0,
    rope_type="llama3",
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
VARIANTS = {
    "llama3-rope-tied": dict(rope_parameters=LLAMA3, tie_word_embeddings=True, head_dim=8),
    "linear-rope-biases": dict(
        rope_parameters=dict(rope_theta=50.0, rope_type="linear", factor=2.0), attention_bias=True, mlp_bias=True
    ),
    "wide-heads-gelu": dict(head_dim=6, num_key_value_heads=1, hidden_act="gelu"),
    "no-sharing-gelu-tanh": dict(num_key_value_heads=4, hidden_act="gelu_pytorch_tanh", rms_norm_eps=0.1),
    "bfloat16-files": dict(),
}


def write(folder: Path, name: str, options: dict) -> None:
    torch.manual_seed(len(name))
    half = name == "bfloat16-files"
    model = LlamaForCausalLM(LlamaConfig(**{**BASE, **options}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    if half:
        model = model.to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="4KB" if half else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name.startswith("llama3"):
        # As versions before 5 wrote it.
        config = json.loads((folder / "config.json").read_text())
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = rope
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.train()
    ids = torch.randint(0, BASE["vocab_size"], (2, 20))
    targets = torch.randint(0, BASE["vocab_size"], (2, 20))
    logits = model(ids).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    gradients = {f"gradient.{name}": parameter.grad for name, parameter in model.named_parameters()}
    expected = {"ids": ids, "targets": targets, "logits": logits.detach(), "loss": loss.detach(), **gradients}
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors")


for name, options in VARIANTS.items():
    write(Path(sys.argv[1]) / name, name, options)
