/**
 * FlatParameter: the one parameter of a unit that optimizers see without `useOrigParams`, as in
 * torch/distributed/fsdp/_flat_param.py. An optimizer then takes one step a unit instead of one a parameter.
 *
 * Modules compute with their own parameters all the same; these are only hidden from whoever lists parameters, and their
 * gradients move here when a backward pass ends.
 *
 * @module
 */
import { ConfigError, StateError } from "../../core/contracts/errors.ts";
import { wholeBox } from "../../core/engine/copies.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import { type LocalPiece, Parameter } from "../../core/nn/parameter.ts";
import type { Device } from "../../core/tensor/device.ts";
import { addGradients } from "../../core/tensor/tape.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";
import type { FlatLayout } from "./flat-layout.ts";
import type { NamedParameter } from "./wrapped.ts";

/** Name of the property under which a unit's module holds it. */
export const FLAT_NAME = "_flat_param";

/** All parameters of a unit as one of shape [n]; `local` is this rank's range of it, without padding. */
export class FlatParameter extends Parameter {
  override readonly parts: readonly NamedParameter[];
  #own: Tensor | undefined;

  /** @param parts cut already, over one group, with no padding between them; all learn, or none does. */
  constructor(layout: FlatLayout, parts: readonly NamedParameter[]) {
    const [first] = parts as readonly [NamedParameter];
    const { manager, originalDType, requiresGrad } = first.parameter;
    super([layout.numel], refuseInitial, { dtype: originalDType, requiresGrad });
    this.parts = parts;
    const { group, replicate, unit } = manager!;
    const shardNumel = Math.ceil(layout.numel / group.size);
    const flat = this;
    this.manage({
      unit,
      group,
      replicate,
      pieces(rank): LocalPiece[] {
        const begin = Math.min(rank * shardNumel, layout.numel);
        const size = Math.min(begin + shardNumel, layout.numel) - begin;
        return size === 0 ? [] : [{ offsets: [begin], sizes: [size], localOffset: 0 }];
      },
      get local() {
        return flat.#local();
      },
      get materialized() {
        return first.parameter.materialized;
      },
      materialize: (device) => flat.#materialize(device),
      updated: () => first.parameter.updated(),
      dispose() {
        flat.#own?.dispose();
        flat.#own = undefined;
        for (const { parameter } of parts) parameter.dispose();
      },
    });
    // A unit is frozen and freed as a whole.
    Object.defineProperty(this, "requiresGrad", {
      get: () => first.parameter.requiresGrad,
      set(learns: boolean) {
        for (const { parameter } of parts) parameter.requiresGrad = learns;
      },
    });
    if (first.parameter.hasDevice) this.dropGathered(first.parameter.device);
  }

  /** Takes over the gradients that its parts have, adds them to its own, and tells its hook. */
  async takeGrads(): Promise<void> {
    if (this.parts.every(({ parameter }) => parameter.grad === undefined)) return;
    const parts = this.parts.map(({ parameter }) => ({ grad: parameter.grad, numel: parameter.local.numel }));
    const whole = joined(parts, this.pieces[0]?.sizes[0] ?? 0);
    for (const { parameter } of this.parts) {
      parameter.grad?.dispose();
      parameter.grad = undefined;
    }
    this.grad = this.grad === undefined ? whole : addGradients(this.grad, whole);
    await this.postAccumulateGradHook?.(this);
  }

  /** What this rank holds of the parts lies in one run of memory: a view of that. */
  #local(): Tensor {
    const locals = this.parts.map(({ parameter }) => parameter.local);
    const first = locals.find(({ numel }) => numel > 0) ?? locals[0]!;
    if (this.#own?.storage !== first.storage) {
      this.#own?.dispose();
      this.#own = first.alias([this.pieces[0]?.sizes[0] ?? 0]);
    }
    return this.#own;
  }

  async #materialize(device: Device): Promise<void> {
    const prefix = this.name.slice(0, this.name.length - FLAT_NAME.length);
    // Initial values follow from names within the model.
    for (const { name, parameter } of this.parts) parameter.name = prefix + name;
    for (const { parameter } of this.parts) {
      if (!parameter.materialized) await parameter.materialize(device);
    }
    this.dropGathered(this.parts[0]!.parameter.device);
  }
}

/** A part's gradient, if it has one, and its length. */
interface GradPart {
  readonly grad: Tensor | undefined;
  readonly numel: number;
}

/** Gradients one after the other, owned by the caller: a view where they lie so, as they come from one reduction, else a copy. */
export function joined(parts: readonly GradPart[], numel: number): Tensor {
  const held = parts.filter((part) => part.numel > 0);
  const first = held[0]?.grad ?? parts.find(({ grad }) => grad !== undefined)!.grad!;
  let next = first.offset;
  const adjoin = held.every(({ grad, numel: length }) => {
    const follows = grad?.storage === first.storage && grad.offset === next;
    next += length;
    return follows;
  });
  if (adjoin) return first.alias([numel]);
  const { device, dtype } = first;
  const { kernels } = device.backend;
  const whole = device.allocate([numel], dtype, "gradient");
  // A part that the loss did not reach has zeros, as it has in PyTorch's flat gradient.
  kernels.fill(whole.span, 0);
  let at = whole.offset;
  for (const { grad, numel: length } of held) {
    const target = { ...whole.span, offset: at, length };
    if (grad !== undefined) kernels.copy(grad.span, target, [wholeBox(length)]);
    at += length;
  }
  return whole;
}

/** @throws ConfigError when a module holds one of the parameters in an array, where it cannot be hidden alone. */
export function requireHideable(module: AnyModule, parts: readonly NamedParameter[]): void {
  const parameters = new Set<unknown>(parts.map(({ parameter }) => parameter));
  for (const inner of module.modules()) {
    for (const [name, value] of Object.entries(inner)) {
      if (!Array.isArray(value) || !value.some((item) => parameters.has(item))) continue;
      throw new ConfigError(
        `FullyShardedDataParallel() failed: ${inner.constructor.name} holds parameters in the array "${name}", which takes useOrigParams: true`,
      );
    }
  }
}

/** Hides the parts from whoever lists the parameters of modules, and shows `flat` at the unit's module in their place. */
export function replaceByFlat(module: AnyModule, flat: FlatParameter): void {
  const parts = new Set<unknown>(flat.parts.map(({ parameter }) => parameter));
  for (const inner of module.modules()) {
    for (const [name, value] of Object.entries(inner)) {
      if (parts.has(value)) Object.defineProperty(inner, name, { enumerable: false });
    }
  }
  Object.defineProperty(module, FLAT_NAME, { value: flat, enumerable: true, configurable: true });
}

function refuseInitial(): never {
  throw new StateError("A flat parameter has no initial values of its own: its parts have");
}
