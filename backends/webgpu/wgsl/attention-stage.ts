/**
 * How rows of operands reach workgroup memory in the attention kernels that have tiles.
 *
 * @module
 */
import { range } from "./range.ts";

/** Rows of an operand to stage. */
export interface StagedRows {
  readonly name: string;
  readonly rows: number;
  /** First row, and rows that there are. */
  readonly begin: string;
  readonly length: string;
  /** First word in workgroup memory. */
  readonly to: number;
}

/** Who stages: threads of the workgroup, words of a row, and elements of a word (float32, or eight float16). */
export interface Staging {
  readonly threads: number;
  readonly words: number;
  readonly word: 4 | 8;
}

/**
 * Loads rows of operands and stores each word as `store` says, which sees its row `r` and place `d` in the row. All loads
 * are issued before the first store, so that their latencies overlap.
 *
 * @param store is given the operand, the word, and which of the thread's words of the operand it is
 */
export function stageWords<S extends StagedRows>(
  { threads, words, word }: Staging,
  operands: readonly S[],
  store: (operand: S, value: string, i: number) => string,
): string {
  const [kind, zero] = word === 4 ? ["four", "vec4<f32>()"] : ["eight", "vec4<u32>()"];
  const steps = operands.flatMap((operand, n) =>
    range(Math.ceil((operand.rows * words) / threads)).map((i) => ({
      operand,
      value: `${kind}${n}_${i}`,
      place: `let r = (t + ${i * threads}u) / ${words}u; let d = (t + ${i * threads}u) % ${words}u;`,
      i,
    })),
  );
  const loads = steps.map(({ operand: { name, begin, length }, value, place }) => {
    const row = `${name}Start + (${begin} + r) * p.${name}Row`;
    return `var ${value} = ${zero}; { ${place} if (${begin} + r < ${length}) { ${value} = load_${name}(${row}, d * ${word}u); } }`;
  });
  const stores = steps.map(({ operand, value, place, i }) => `{ ${place} ${store(operand, value, i)} }`);
  return `{
      ${[...loads, ...stores].join("\n      ")}
    }`;
}
