/**
 * Finds out what lies at a location.
 *
 * @module
 */
import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { CheckpointFault } from "../../core/contracts/checkpointer.ts";
import { CheckpointError, ConfigError } from "../../core/contracts/errors.ts";
import type { Registry } from "../../core/contracts/plugin.ts";
import { METADATA_FILE } from "../formats/dcp/reader.ts";
import { MANIFEST_FILE } from "../stores/names.ts";
import { isAccelerateFolder, openAccelerateSource } from "./accelerate-source.ts";
import { openDcpSource } from "./dcp-source.ts";
import { findNative, openNativeSource } from "./native-source.ts";
import { openSafetensorsSource } from "./safetensors-source.ts";
import type { CheckpointSource, SourceFormat, Verifiable } from "./source.ts";
import { openTorchSource } from "./torch-source.ts";

/** A source that was found and not yet opened. */
export interface FoundSource {
  readonly format: SourceFormat;
  open(): Promise<CheckpointSource>;
  /** Everything that is damaged, as far as the format has means to tell. */
  verify(): Promise<readonly CheckpointFault[]>;
}

/**
 * Finds out what lies at a location: a checkpoint of any format, a run's folder (its newest checkpoint), weights, or what
 * a registered store holds.
 *
 * @throws ConfigError when it is nothing of the kind.
 */
export async function findSource(registry: Registry, location: string): Promise<FoundSource> {
  const kind = await kindOf(location);
  if (kind === "folder") {
    if (await exists(join(location, METADATA_FILE))) return fromOpen("dcp", () => openDcpSource(location));
    if (await isAccelerateFolder(location))
      return fromOpen("accelerate", () => openAccelerateSource(location));
    const isNative = await exists(join(location, MANIFEST_FILE));
    const isWeights =
      (await exists(join(location, "model.safetensors"))) ||
      (await exists(join(location, "model.safetensors.index.json")));
    if (!isNative && isWeights) return fromOpen("safetensors", () => openSafetensorsSource(location));
  }
  if (kind === "file" && /\.(safetensors|json)$/.test(location)) {
    return fromOpen("safetensors", () => openSafetensorsSource(location));
  }
  if (kind === "file" && /\.(bin|pt|pth)$/.test(location))
    return fromOpen("torch", () => openTorchSource(location));
  const native = kind === "file" ? undefined : await findNative(registry, location);
  if (native !== undefined) {
    return { format: "native", open: () => openNativeSource(native), verify: native.verify };
  }
  const found = kind === "none" ? "nothing is there" : `${basename(location)} is of another kind`;
  throw new ConfigError(
    `cannot read ${JSON.stringify(location)}: ${found}, allowed are native, DCP and accelerate checkpoints, .safetensors files and their folders, files of torch.save`,
  );
}

/** A source whose verification is to open it and read all of it. */
function fromOpen(format: SourceFormat, open: () => Promise<CheckpointSource & Verifiable>): FoundSource {
  return {
    format,
    open,
    async verify(): Promise<readonly CheckpointFault[]> {
      let source: CheckpointSource & Verifiable;
      try {
        source = await open();
      } catch (error) {
        if (!(error instanceof CheckpointError)) throw error;
        return [{ file: ".", problem: error.message }];
      }
      try {
        return await source.verify();
      } finally {
        await source.close();
      }
    },
  };
}

async function kindOf(path: string): Promise<"file" | "folder" | "none"> {
  return stat(path).then(
    (found) => (found.isDirectory() ? "folder" : "file"),
    () => "none",
  );
}

async function exists(path: string): Promise<boolean> {
  return (await kindOf(path)) !== "none";
}
