/**
 * What became of a call, in a form that ranks can report.
 *
 * @module
 */
import type { SharedInputs, Work } from "../../../core/contracts/collective.ts";
import { FsdpError } from "../../../core/contracts/errors.ts";

/** What became of a call. */
export interface Outcome {
  readonly name: string;
  readonly message: string;
  readonly rank: number | undefined;
}

/** A share as an operation to await. */
export function workOf(sharing: Promise<SharedInputs>): Work {
  return {
    wait: async () => {
      await sharing;
    },
  };
}

/** What a call came to. */
export async function outcome(work: Work): Promise<Outcome> {
  try {
    await work.wait();
    return { name: "none", message: "", rank: undefined };
  } catch (error) {
    return described(error);
  }
}

/** An error as what a call came to. */
export function described(error: unknown): Outcome {
  if (!(error instanceof FsdpError)) return { name: "foreign", message: String(error), rank: undefined };
  const rank = "rank" in error && typeof error.rank === "number" ? error.rank : undefined;
  return { name: error.name, message: error.message, rank };
}
