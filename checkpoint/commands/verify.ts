/**
 * `verify`: whether a checkpoint is whole. Native ones are compared byte by byte with their digests; of DCP, the checksums
 * inside its items and what its metadata promises; safetensors files have no checksums, so that only their structure can
 * be checked.
 *
 * @module
 */
import type { CommandSpec } from "../../core/contracts/command.ts";
import { findSource } from "./find-source.ts";
import type { SourceFormat } from "./source.ts";
import { printable } from "./terminal.ts";

/** What was checked, by format. */
const CHECKED: Readonly<Record<SourceFormat, string>> = {
  native: "every byte matches its digests",
  dcp: "every item matches its checksums and the metadata",
  accelerate: "every item matches its checksums and the metadata",
  torch: "every tensor matches its checksum",
  safetensors: "the structure is sound; the format has no checksums",
};

/** Checks a checkpoint; exit code 1 when anything is wrong. */
export const verifyCommand: CommandSpec = {
  summary: "tells whether a checkpoint is whole, and what is damaged",
  positionals: "SRC",
  options: {},
  run: async ({ registry, options, positionals, print }) => {
    const [location] = positionals as [string];
    const found = await findSource(registry, location);
    const faults = await found.verify();
    const whole = faults.length === 0;
    if (options.json === true) {
      print(
        JSON.stringify({
          source: location,
          format: found.format,
          whole,
          checked: CHECKED[found.format],
          faults,
        }),
      );
    } else {
      for (const { file, problem } of faults) print(printable(`${file}: ${problem}`));
      const verdict = whole
        ? CHECKED[found.format]
        : `${faults.length} ${faults.length === 1 ? "fault" : "faults"}`;
      print(`${location} (${found.format}): ${verdict}`);
    }
    return whole ? 0 : 1;
  },
};
