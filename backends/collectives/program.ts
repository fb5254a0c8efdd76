/**
 * Finds the function that ranks run.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";
import type { RankFunction, RankProgram } from "../../core/contracts/transport.ts";

/** Imports a program's module and returns its export. @throws ConfigError when that is no function. */
export async function loadProgram(program: RankProgram): Promise<RankFunction> {
  const module: Readonly<Record<string, unknown>> = await import(program.module);
  const found = module[program.export];
  if (typeof found !== "function") {
    throw new ConfigError(
      `rank program ${program.module}: export ${program.export} is ${typeof found}, not a function`,
    );
  }
  return found as RankFunction;
}
