/**
 * What must hold of a state that is to be saved, as far as one rank can see it.
 *
 * @module
 */
import type { ShardedState } from "../core/contracts/checkpointer.ts";
import { STORED_DTYPES } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { formatBox, insideShape } from "./boxes.ts";
import { listFaults } from "./manifest.ts";
import { pieceKey } from "./replicas.ts";

/** @throws CheckpointError that lists every fault of the state's tensors. */
export function checkState(state: ShardedState): void {
  const faults: string[] = [];
  const names = new Set<string>();
  for (const { name, dtype, shape, pieces } of state.tensors) {
    if (name === "" || name.length > 4096 || !name.isWellFormed()) {
      faults.push(`tensor ${JSON.stringify(name.slice(0, 80))}: a name has 1 to 4096 well-formed characters`);
    }
    if (names.has(name)) faults.push(`tensor ${name}: given twice`);
    names.add(name);
    if (!Object.hasOwn(STORED_DTYPES, dtype)) faults.push(`tensor ${name}: unknown dtype ${dtype}`);
    if (!shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0)) {
      faults.push(`tensor ${name}: shape [${shape}] is not made of non-negative integers`);
    }
    const keys = new Set<string>();
    for (const piece of pieces) {
      const key = pieceKey(name, piece);
      if (!insideShape(piece, shape))
        faults.push(`tensor ${name}: piece ${formatBox(piece)} is outside shape [${shape}]`);
      else if (keys.has(key) && !piece.sizes.includes(0))
        faults.push(`tensor ${name}: piece ${formatBox(piece)} is given twice`);
      keys.add(key);
    }
  }
  if (faults.length > 0) throw new CheckpointError(listFaults(faults));
}
