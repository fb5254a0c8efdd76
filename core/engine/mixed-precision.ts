/**
 * Mixed precision of a unit, as FSDP2's `MixedPrecisionPolicy`: shards, gradients and optimizer state stay in the
 * original dtype; what is gathered, computed and communicated may be narrower.
 *
 * @module
 */
import { DTYPES, type DType } from "../contracts/dtype.ts";
import { ConfigError } from "../contracts/errors.ts";
import { mapTensors } from "../tensor/nested-tensors.ts";
import { cast } from "../tensor/ops/layout.ts";

/** What a unit computes and communicates in. */
export interface MixedPrecisionPolicy {
  /** Parameters are gathered and computed with in this dtype. Left out: their own. */
  readonly paramDtype?: DType | undefined;
  /** Gradients are reduced in this dtype. Left out: the dtype they are computed in. */
  readonly reduceDtype?: DType | undefined;
  /** Floating outputs of the unit's module are cast to this dtype. Left out: they are not. */
  readonly outputDtype?: DType | undefined;
  /** Whether floating inputs of the unit's module are cast to `paramDtype`. Default true. */
  readonly castForwardInputs?: boolean | undefined;
}

/** @throws ConfigError for a dtype that is not floating. */
export function checkPolicy(policy: MixedPrecisionPolicy): void {
  for (const name of ["paramDtype", "reduceDtype", "outputDtype"] as const) {
    const dtype = policy[name];
    if (dtype === undefined || DTYPES[dtype]?.floating) continue;
    const allowed = Object.entries(DTYPES).flatMap(([key, { floating }]) => (floating ? [key] : []));
    throw new ConfigError(
      `Mixed precision policy failed: ${name} is "${dtype}", allowed are ${allowed.join(", ")}`,
    );
  }
}

/** The value with its floating tensors, alone or inside arrays and plain objects, cast to `dtype`. */
export function castFloating(value: unknown, dtype: DType): unknown {
  return mapTensors(value, (tensor) =>
    DTYPES[tensor.dtype].floating && tensor.dtype !== dtype ? cast(tensor, dtype) : tensor,
  );
}
