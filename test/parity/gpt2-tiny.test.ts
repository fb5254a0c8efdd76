import { testParity } from "./tiny-model.ts";

testParity("gpt2-tiny", {
  cpu: [
    ["bun", 1, []],
    ["bun", 2, []],
    ["bun", 4, []],
    ["bun", 2, ["--fsdp-reshard-after-forward", "true", "--collective", "local"]],
    ["bun", 2, ["--backend-options", "matmul=wasm"]],
    ["bun", 2, ["--gradient-accumulation-steps", "2"]],
    ["deno", 2, []],
  ],
  gpu: [
    ["bun", 1, ["--backend", "webgpu"]],
    ["bun", 2, ["--backend", "webgpu", "--fsdp-forward-prefetch"]],
    ["bun", 4, ["--backend", "webgpu"]],
    ["deno", 2, ["--backend", "webgpu", "--webgpu-checks"]],
  ],
});
