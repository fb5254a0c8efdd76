/**
 * The operations over the memory of all ranks at once: the plain statement of what each of them means.
 *
 * @module
 */
import type { HostArray } from "../../../core/contracts/dtype.ts";
import type { Call } from "../calls.ts";
import { copyBytes, windowOf } from "../elements.ts";
import { reduceInto } from "../reduce.ts";

/** One rank's buffers; the same array twice for operations in place. */
export interface Operands {
  readonly input: HostArray;
  readonly output: HostArray;
}

/** Performs a call for all ranks; `ranks` are their operands in rank order. */
export function perform(call: Call, ranks: readonly Operands[]): void {
  const { name, dtype, length } = call;
  if (name === "allGather" || name === "split") {
    for (const { output } of ranks) {
      ranks.forEach(({ input }, rank) => {
        copyBytes(windowOf(output, dtype, rank * length, length), input);
      });
    }
  } else if (name === "reduceScatter") {
    const share = length / ranks.length;
    ranks.forEach(({ output }, rank) => {
      const inputs = ranks.map(({ input }) => windowOf(input, dtype, rank * share, share));
      reduceInto(output, inputs, call.op!, dtype);
    });
  } else if (name === "allReduce") {
    const inputs = ranks.map(({ input }) => input);
    reduceInto(inputs[0]!, inputs, call.op!, dtype);
    for (const input of inputs) copyBytes(input, inputs[0]!);
  } else if (name === "broadcast") {
    const { input } = ranks[call.root!]!;
    for (const { output } of ranks) copyBytes(output, input);
  }
}
