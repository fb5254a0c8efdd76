/**
 * An estimate as tables for people.
 *
 * @module
 */
import { formatCount } from "../../../core/runtime/format.ts";
import { textTable } from "../../../core/runtime/text-table.ts";
import type { Algorithm } from "./communication.ts";
import { type Estimate, SCALING_WORLDS, type StrategyEstimate } from "./estimate.ts";

/** Lines of a report; sizes in MiB, times in milliseconds. */
export function reportLines(estimate: Estimate): readonly string[] {
  return [
    ...subject(estimate),
    "",
    ...memoryTable(estimate),
    "",
    ...zeroLines(estimate),
    ...(estimate.strategies.some(({ scaling }) => scaling !== undefined)
      ? ["", ...scalingTable(estimate)]
      : []),
  ];
}

function subject({ family, parameters, world, workload, ...rest }: Estimate): readonly string[] {
  const { batchSize, seqLen, optimizer, accumulation = 1 } = workload;
  const checkpointing = rest.activationCheckpointing ? ", activation checkpointing" : "";
  const precision = rest.precision === "no" ? "float32" : rest.precision;
  return [
    `${family}, ${formatCount(parameters)} parameters; ${world.worldSize} ranks, ${world.ranksPerNode} a node`,
    `a rank's step: ${accumulation > 1 ? `${accumulation} x ` : ""}${batchSize} x ${seqLen} tokens, ${optimizer}, ${precision}${checkpointing}`,
    "MiB of the rank that holds most. Shards are what lies cut between backward pass and update; peaks include what is gathered",
  ];
}

const MEMORY_COLUMNS: readonly (readonly [title: string, cell: (one: StrategyEstimate) => string])[] = [
  ["params", ({ memory }) => mib(memory.shards.parameter)],
  ["grads", ({ memory }) => mib(memory.shards.gradient)],
  ["optim", ({ memory }) => mib(memory.shards.optimizer)],
  ["peak state", ({ memory }) => mib(memory.peakState)],
  ["activations", ({ memory }) => mib(memory.peak.activation)],
  ["buffers", ({ memory }) => mib(memory.peak.communication)],
  ["peak", ({ memory }) => mib(memory.peakTotal)],
  ["host", ({ memory }) => mib(memory.hostPeakTotal)],
  ["sent", ({ communication }) => mib(communication.bytesSent)],
  ["calls", ({ communication }) => String(communication.collectives)],
];

const TIME_COLUMNS: typeof MEMORY_COLUMNS = [
  ["ring ms", ({ communication }) => milliseconds(communication.seconds!.ring)],
  ["tree ms", ({ communication }) => milliseconds(communication.seconds!.tree)],
];

function memoryTable({ strategies }: Estimate): readonly string[] {
  const timed = strategies.every(({ communication }) => communication.seconds !== undefined);
  const columns = timed ? [...MEMORY_COLUMNS, ...TIME_COLUMNS] : MEMORY_COLUMNS;
  const header = ["", ...columns.map(([title]) => title)];
  const rows = strategies.map((one) => [one.name, ...columns.map(([, cell]) => cell(one))]);
  return textTable(rows, { header, align: alignment(header) });
}

function zeroLines({ zero }: Estimate): readonly string[] {
  const stages = zero.map((bytes, stage) => `${stage}: ${mib(bytes)}`);
  return [`state by the ZeRO paper's formula (16-bit, Adam), by stage: ${stages.join(", ")}`];
}

function scalingTable({ strategies }: Estimate): readonly string[] {
  const header = ["communication of a step, ms", "", ...SCALING_WORLDS.map(String)];
  const rows = strategies.flatMap(({ name, scaling = [] }) =>
    (["ring", "tree"] satisfies Algorithm[]).map((algorithm) => [
      name,
      algorithm,
      ...SCALING_WORLDS.map((worldSize) => {
        const found = scaling.find((entry) => entry.worldSize === worldSize);
        return found === undefined ? "-" : milliseconds(found[algorithm]);
      }),
    ]),
  );
  return textTable(rows, { header, align: ["left", ...alignment(header).slice(0, -1)] });
}

function alignment(header: readonly string[]): readonly ("left" | "right")[] {
  return header.map((_, column) => (column === 0 ? "left" : "right"));
}

function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}

function milliseconds(seconds: number): string {
  return (seconds * 1000).toFixed(seconds < 0.1 ? 2 : 0);
}
