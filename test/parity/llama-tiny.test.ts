import { testParity } from "./tiny-model.ts";

testParity("llama-tiny", {
  cpu: [
    ["bun", 1, []],
    ["bun", 2, []],
    ["bun", 4, ["--fsdp-reshard-after-forward", "true"]],
    ["bun", 2, ["--backend-options", "matmul=plain", "kernels=plain"]],
    // The head and the embedding become units of their own.
    ["bun", 2, ["--fsdp-auto-wrap-policy", "SIZE_BASED_WRAP", "--fsdp-min-num-params", "10000"]],
    ["bun", 2, ["--mixed-precision", "bf16"]],
    ["deno", 2, []],
  ],
  gpu: [
    ["bun", 1, ["--backend", "webgpu"]],
    ["bun", 2, ["--backend", "webgpu", "--webgpu-checks"]],
    ["bun", 4, ["--backend", "webgpu"]],
    ["bun", 2, ["--backend", "webgpu", "--mixed-precision", "fp16"]],
  ],
});
