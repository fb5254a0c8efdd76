/**
 * The version that a composition root's package states.
 *
 * @module
 */
import { readFile } from "node:fs/promises";
import * as v from "valibot";

const PackageVersion = v.object({ version: v.string() });

/** `version` of the `package.json` beside the registry's root, or `"unknown"` when there is none to read. */
export async function packageVersion(root: string): Promise<string> {
  try {
    const text = await readFile(new URL("package.json", root), "utf8");
    return v.parse(PackageVersion, JSON.parse(text)).version;
  } catch {
    return "unknown";
  }
}
