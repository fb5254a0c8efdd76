/**
 * Checkpoints for the page to show: small ones of every kind of layout, saved over HTTP.
 *
 * @module
 */
import { nativeCheckpointer } from "../../../../checkpoint/checkpointer.ts";
import { httpStore } from "../../../../checkpoint/stores/http/store.ts";
import type { Value } from "../../../../core/contracts/checkpointer.ts";
import type { Box } from "../../../../core/contracts/shard.ts";
import { runRanks } from "../../ranks.ts";
import { dimZero, type FullTensor, type Layout, patternTensor, shardedState } from "../../states.ts";

/** Saves a state of some tensors at a step of a run. */
export async function saveRun(
  url: string,
  run: string,
  step: number,
  worldSize: number,
  tensors: readonly FullTensor[],
  { layout = dimZero(worldSize), values = {} }: { layout?: Layout; values?: Record<string, Value> } = {},
): Promise<void> {
  const checkpointer = nativeCheckpointer(httpStore(`${url}/runs/${run}`));
  await runRanks(worldSize, (collective) =>
    checkpointer.save(shardedState(tensors, layout, collective.rank, values), step, collective),
  );
}

/** The tensors of a GPT-2 of some blocks, and of its optimizer. */
export function gptTensors(blocks: number, width: number): readonly FullTensor[] {
  const shapes: [string, number[]][] = [
    ["wte.weight", [256, width]],
    ["wpe.weight", [64, width]],
    ...Array.from({ length: blocks }, (_, i) => i).flatMap((i): [string, number[]][] => [
      [`h.${i}.ln_1.weight`, [width]],
      [`h.${i}.attn.c_attn.weight`, [width, 3 * width]],
      [`h.${i}.attn.c_attn.bias`, [3 * width]],
      [`h.${i}.attn.c_proj.weight`, [width, width]],
      [`h.${i}.mlp.c_fc.weight`, [width, 4 * width]],
      [`h.${i}.mlp.c_proj.weight`, [4 * width, width]],
    ]),
    ["ln_f.weight", [width]],
  ];
  return [
    ...shapes.map(([name, shape]) => patternTensor(`model.${name}`, "float32", shape)),
    ...shapes.flatMap(([name, shape]) =>
      ["exp_avg", "exp_avg_sq"].map((kind) => patternTensor(`optim.state.${name}.${kind}`, "float32", shape)),
    ),
    patternTensor("optim.state.step", "int64", []),
  ];
}

/** A loss that falls, a point every `every` steps. */
export function fallingLosses(steps: number, every: number): readonly (readonly [number, number])[] {
  return Array.from({ length: Math.floor(steps / every) }, (_, i) => {
    const step = (i + 1) * every;
    return [step, 1.2 + 4.3 * Math.exp(-step / 250) + 0.08 * Math.sin(step * 1.7)] as const;
  });
}

/** Every tensor in one flat range per rank, as FSDP1 cuts it: a shard ends anywhere in a row. */
export function flatLayout(worldSize: number): Layout {
  return ({ shape }, rank) => {
    const [rows, columns] = [shape[0] ?? 1, shape[1] ?? 1];
    const each = Math.ceil((rows * columns) / worldSize);
    const begin = Math.min(rank * each, rows * columns);
    const end = Math.min(begin + each, rows * columns);
    const boxes: Box[] = [];
    for (let at = begin; at < end; ) {
      const [row, column] = [Math.floor(at / columns), at % columns];
      const whole = column === 0 ? Math.floor((end - at) / columns) : 0;
      const sizes = whole > 0 ? [whole, columns] : [1, Math.min(columns - column, end - at)];
      boxes.push({ offsets: [row, column], sizes });
      at += sizes[0]! * sizes[1]!;
    }
    return boxes;
  };
}

/** Names that would do harm as markup, as a script, or as a line of text. */
export const HOSTILE_NAMES: readonly string[] = [
  "model.<img src=x onerror=\"document.title='owned'\">",
  "model.\"><script>document.title='owned'</script>",
  "model.\u202egnp.exe\u202c",
  "model.line\nbreak\u0000",
  "model.{base}page/main.js",
  "model.__proto__",
  `model.${"very-long-".repeat(40)}`,
  "javascript:document.title='owned'",
];
