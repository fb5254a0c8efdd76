/**
 * What a rank asked for, in a form that ranks can compare: argument checks, and the message when ranks disagree.
 *
 * @module
 */
import type { ReductionOp } from "../../core/contracts/collective.ts";
import { DTYPES, type DType, type HostArray } from "../../core/contracts/dtype.ts";
import { CollectiveError, ShapeError } from "../../core/contracts/errors.ts";
import { dtypeOf } from "./elements.ts";
import { SPLIT_FIELDS } from "./split.ts";

/** The operations, `split` included: it is a gather of colors and keys. */
export type CallName =
  | "allGather"
  | "reduceScatter"
  | "allReduce"
  | "broadcast"
  | "share"
  | "barrier"
  | "split";

/** One call of one rank; calls that belong together are equal in every field. */
export interface Call {
  readonly name: CallName;
  /** Elements of this rank's input. */
  readonly length: number;
  readonly dtype: DType;
  /** Present for reductions. */
  readonly op?: ReductionOp;
  /** Present for broadcast. */
  readonly root?: number;
}

/** @throws ShapeError unless `output` has `size` times the elements of `input` and the same class. */
export function allGatherCall(size: number, output: HostArray, input: HostArray): Call {
  const dtype = dtypeOf(input);
  if (dtypeOf(output) !== dtype || output.length !== size * input.length) {
    throw new ShapeError(
      `allGather over ${size} ranks: output has ${output.length} ${dtypeOf(output)} elements, input ${input.length} ${dtype}; output must be ${size} times input`,
    );
  }
  return { name: "allGather", length: input.length, dtype };
}

/** @throws ShapeError unless `input` has `size` times the elements of `output` and both fit `dtype`. */
export function reduceScatterCall(
  size: number,
  output: HostArray,
  input: HostArray,
  op: ReductionOp,
  dtype: DType,
): Call {
  checkElements("reduceScatter", output, op, dtype);
  checkElements("reduceScatter", input, op, dtype);
  if (input.length !== size * output.length) {
    throw new ShapeError(
      `reduceScatter over ${size} ranks: input has ${input.length} elements, output ${output.length}; input must be ${size} times output`,
    );
  }
  return { name: "reduceScatter", length: input.length, dtype, op };
}

/** @throws ShapeError unless `data` fits `dtype`. */
export function allReduceCall(data: HostArray, op: ReductionOp, dtype: DType): Call {
  checkElements("allReduce", data, op, dtype);
  return { name: "allReduce", length: data.length, dtype, op };
}

/** @throws CollectiveError when `root` is no rank of the group. */
export function broadcastCall(size: number, data: HostArray, root: number): Call {
  if (!Number.isInteger(root) || root < 0 || root >= size) {
    throw new CollectiveError(`broadcast over ${size} ranks: root is ${root}; it must be 0 to ${size - 1}`);
  }
  return { name: "broadcast", length: data.length, dtype: dtypeOf(data), root };
}

/** The call of a share of `input`. */
export function shareCall(input: HostArray): Call {
  return { name: "share", length: input.length, dtype: dtypeOf(input) };
}

/** The barrier's call. */
export const BARRIER_CALL: Call = { name: "barrier", length: 0, dtype: "uint8" };

/** The call of a split: its data are one row of the table of `split.ts`. */
export const SPLIT_CALL: Call = { name: "split", length: SPLIT_FIELDS, dtype: "float64" };

/** @throws CollectiveError when color or key are not safe integers. */
export function checkSplit(color: number, key: number): void {
  if (Number.isSafeInteger(color) && Number.isSafeInteger(key)) return;
  throw new CollectiveError(`split: color is ${color}, key ${key}; both must be integers`);
}

/** Whether two ranks called the same. */
export function sameCall(a: Call, b: Call): boolean {
  return (
    a.name === b.name && a.length === b.length && a.dtype === b.dtype && a.op === b.op && a.root === b.root
  );
}

/** Undefined when all ranks (in rank order) called the same, otherwise the error that says who called what. */
export function mismatch(sequence: number, calls: readonly Call[]): CollectiveError | undefined {
  const first = calls[0]!;
  const odd = calls.findIndex((call) => !sameCall(call, first));
  if (odd < 0) return undefined;
  const ranksByText = new Map<string, number[]>();
  calls.forEach((call, rank) => {
    const text = callText(call);
    const ranks = ranksByText.get(text);
    if (ranks) ranks.push(rank);
    else ranksByText.set(text, [rank]);
  });
  const groups = [...ranksByText].map(([text, ranks]) => `${ranksText(ranks)} called ${text}`);
  return new CollectiveError(`ranks disagree at call ${sequence} of their group: ${groups.join(", ")}`);
}

function checkElements(name: CallName, data: HostArray, op: ReductionOp, dtype: DType): void {
  if (data.BYTES_PER_ELEMENT !== DTYPES[dtype].bytes) {
    throw new ShapeError(`${name}: elements have ${data.BYTES_PER_ELEMENT} bytes, which is not ${dtype}`);
  }
  if (dtype === "bool" && op === "avg") {
    throw new ShapeError(`${name}: avg of bool elements is not defined; use sum or max`);
  }
}

function callText(call: Call): string {
  const { name, length, dtype, op, root } = call;
  if (name === "barrier" || name === "split") return name;
  const detail = op ?? (root === undefined ? undefined : `root ${root}`);
  return `${name}${detail === undefined ? "" : ` (${detail})`} of ${length} ${dtype}`;
}

/** `rank 3`, or `ranks 0-2, 5` for several. */
function ranksText(ranks: readonly number[]): string {
  const runs: string[] = [];
  for (let i = 0; i < ranks.length; ) {
    let end = i;
    while (ranks[end + 1] === ranks[end]! + 1) end++;
    runs.push(end === i ? `${ranks[i]}` : `${ranks[i]}-${ranks[end]}`);
    i = end + 1;
  }
  return `${ranks.length === 1 ? "rank" : "ranks"} ${runs.join(", ")}`;
}
