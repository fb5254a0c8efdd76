/**
 * FSDP2 as any backend and any transport must do it: what PyTorch's tests of `fully_shard`
 * (test/distributed/_composable/fsdp) hold it to, as far as it applies here.
 *
 * @module
 */
import { describe } from "bun:test";
import type { Transport } from "../../../core/contracts/transport.ts";
import { accumulation } from "./accumulation.ts";
import { clipping } from "./clip.ts";
import { communication } from "./communication.ts";
import { delays } from "./delays.ts";
import { layouts } from "./layout.ts";
import { memory } from "./memory.ts";
import { parity } from "./parity.ts";
import { precision } from "./precision.ts";
import { reductions } from "./reduction.ts";
import { starting } from "./start.ts";
import { stateDicts } from "./state.ts";
import { type SubjectOptions, subjectOf } from "./subject.ts";

/** Registers the suite for ranks that `transport` runs on devices of `options.backend`. */
export function fsdp2Conformance(name: string, transport: Transport, options: SubjectOptions): void {
  const subject = subjectOf(transport, options);
  describe(`FSDP2 on ${name}`, () => {
    starting(subject);
    parity(subject);
    communication(subject);
    delays(subject);
    accumulation(subject);
    layouts(subject);
    reductions(subject);
    precision(subject);
    clipping(subject);
    memory(subject);
    stateDicts(subject);
  });
}
