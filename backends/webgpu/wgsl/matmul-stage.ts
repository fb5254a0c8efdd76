/**
 * How blocks of both operands reach workgroup memory: the next ones travel to registers while the current ones are
 * multiplied (a second block in workgroup memory, to save a barrier, was slower).
 *
 * @module
 */
import type { OperandLayout } from "./matmul-common.ts";
import { range } from "./range.ts";

/** The text that moves one operand's blocks. */
export interface Stage {
  /** Declares the registers. */
  readonly setup: string;
  /** Loads the block that begins at a depth. */
  load(depth: string): string;
  /** Stores what was loaded. */
  readonly store: string;
}

/** A block of an operand, `extent` rows (a) or columns (b) of the product by `depths`. */
export interface Block {
  readonly name: "a" | "b";
  readonly layout: OperandLayout;
  readonly extent: number;
  readonly depths: number;
  /** Of the workgroup. */
  readonly threads: number;
  /** Elements of a register: four in a `vec4<f32>`, or eight float16 in a `vec4<u32>`. */
  readonly word: 4 | 8;
}

/** A register and where it is loaded from, for text that sees `r` and `q`: the row in the block, and the word in it. */
export interface Move {
  readonly to: string;
  /** Of deep operands: the place at depth 0. */
  readonly from: string;
  /** Of others, whose rows are depths: the place at `depth`. */
  readonly row: string;
  readonly depth: string;
}

/** How registers are loaded and stored. */
export interface Moves {
  load(move: Move): string;
  store(register: string): string;
}

/** The first row (a) or column (b) of the workgroup, and the end of all. */
export function outerOf(name: "a" | "b"): readonly [string, string] {
  return name === "a" ? ["rowBegin", "p.m"] : ["columnBegin", "p.n"];
}

/** The text that moves blocks, register by register. */
export function stage({ name, layout, extent, depths, threads, word }: Block, moves: Moves): Stage {
  const [outerBegin, outerEnd] = outerOf(name);
  const perRow = (layout.deep ? depths : extent) / word;
  const registers = range((extent * depths) / word / threads).map((i) => ({
    at: `let index = t + ${i * threads}u; let r = index / ${perRow}u; let q = index % ${perRow}u;`,
    to: `${name}Next${i}`,
    from: `${name}Base${i}`,
  }));
  const shift = layout.vector ? ` >> ${Math.log2(word)}u` : "";
  const first = layout.deep
    ? `min(${outerBegin} + r, ${outerEnd} - 1u) * p.${name}Row + q * ${word}u`
    : layout.vector
      ? `min(${outerBegin} + q * ${word}u, (${outerEnd} - 1u) & ~${word - 1}u) + r * p.${name}Row`
      : `r * p.${name}Row`;
  const zero = word === 4 ? "vec4<f32>()" : "vec4<u32>()";
  const setup = registers.map(
    ({ at, to, from }) => `var ${from}: u32; var ${to} = ${zero};
    { ${at} ${from} = p.${name}_at + ((batch * p.${name}Batch + ${first})${shift}); }`,
  );
  const load = (depth: string): string =>
    registers
      .map(({ at, to, from }) => {
        const row = `${from} + ((${depth} * p.${name}Row)${shift})`;
        return `{ ${at} ${moves.load({ to, from, row, depth })} }`;
      })
      .join("\n        ");
  const store = registers.map(({ at, to }) => `{ ${at} ${moves.store(to)} }`);
  return { setup: setup.join("\n    "), load, store: store.join("\n      ") };
}

/** Multiplies blocks of `depths` from `kBegin` to `kEnd`: `steps` take what is in workgroup memory. */
export function multiplyStaged(a: Stage, b: Stage, depths: number, steps: readonly string[]): string {
  return `if (kBegin < kEnd) {
    ${a.setup}
    ${b.setup}
    var depth = kBegin;
    ${a.load("depth")}
    ${b.load("depth")}
    ${a.store}
    ${b.store}
    workgroupBarrier();
    loop {
      let next = depth + ${depths}u;
      let more = next < kEnd;
      if (more) {
        ${a.load("next")}
        ${b.load("next")}
      }
      ${steps.join("\n      ")}
      if (!more) { break; }
      workgroupBarrier();
      ${a.store}
      ${b.store}
      workgroupBarrier();
      depth = next;
    }
  }`;
}
