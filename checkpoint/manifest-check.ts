/**
 * What must hold between the parts of a manifest. With it proven, a loader may trust that the chunks of a tensor are
 * disjoint and cover it, and that every range it computes lies inside a file and belongs to one chunk only.
 *
 * @module
 */
import { STORED_DTYPES } from "../core/contracts/dtype.ts";
import { indexBoxes } from "./box-index.ts";
import { formatBox, insideShape, volume } from "./boxes.ts";
import type { Chunk, Manifest, ManifestFile, ManifestTensor } from "./manifest.ts";

/** Every fault of a manifest whose fields are valid one by one; empty when it is sound. */
export function manifestFaults(manifest: Manifest): readonly string[] {
  const faults = listingFaults(manifest);
  if (manifest.rankValues.length !== manifest.worldSize) {
    faults.push(`rank values: of ${manifest.rankValues.length} ranks, saved were ${manifest.worldSize}`);
  }
  for (const tensor of manifest.tensors) faults.push(...coverageFaults(tensor));
  return [...faults, ...rangeFaults(manifest.tensors)];
}

/** Faults that show in what one rank contributes; whether the ranks' boxes cover their tensors shows only together. */
export function partFaults(part: Manifest): readonly string[] {
  return [...listingFaults(part), ...rangeFaults(part.tensors)];
}

/** Faults of files and tensors by themselves, and of the chunks of tensors in their files. */
function listingFaults(manifest: Manifest): string[] {
  const faults: string[] = [];
  const files = new Map<string, ManifestFile>();
  for (const file of manifest.files) {
    if (files.has(file.name)) faults.push(`file ${file.name}: listed twice`);
    files.set(file.name, file);
    const blocks = Math.ceil(file.length / file.block);
    if (file.crc32.length !== blocks) {
      faults.push(
        `file ${file.name}: ${file.crc32.length} block checksums, its ${file.length} bytes need ${blocks}`,
      );
    }
  }
  const names = new Set<string>();
  for (const tensor of manifest.tensors) {
    if (names.has(tensor.name)) faults.push(`tensor ${tensor.name}: listed twice`);
    names.add(tensor.name);
    faults.push(...chunkFaults(tensor, files));
  }
  return faults;
}

function chunkFaults(tensor: ManifestTensor, files: ReadonlyMap<string, ManifestFile>): string[] {
  const faults: string[] = [];
  const { bytes } = STORED_DTYPES[tensor.dtype];
  for (const chunk of tensor.chunks) {
    const fault = (problem: string): void => {
      faults.push(`tensor ${tensor.name}: chunk ${formatBox(chunk)}: ${problem}`);
    };
    if (!insideShape(chunk, tensor.shape)) fault(`outside shape [${tensor.shape}]`);
    if (chunk.sizes.includes(0)) fault("empty");
    const file = files.get(chunk.file);
    if (file === undefined) fault(`in ${chunk.file}, which is not listed`);
    else if (chunk.end > file.length)
      fault(`ends at byte ${chunk.end} of ${chunk.file}, which has ${file.length}`);
    const due = volume(chunk.sizes) * bytes;
    if (chunk.end - chunk.begin !== due) {
      fault(`has bytes ${chunk.begin} to ${chunk.end} of ${chunk.file}, its elements take ${due}`);
    }
  }
  return faults;
}

/** Disjoint boxes inside a tensor cover it when their volumes add up to its own. */
function coverageFaults(tensor: ManifestTensor): string[] {
  const { chunks, shape } = tensor;
  if (!chunks.every((chunk) => insideShape(chunk, shape) && !chunk.sizes.includes(0))) return [];
  const elements = volume(shape);
  if (!Number.isSafeInteger(elements * STORED_DTYPES[tensor.dtype].bytes)) {
    return [`tensor ${tensor.name}: shape [${shape}] is too large`];
  }
  const index = indexBoxes(chunks.length > 1 ? chunks : []);
  for (const [i, chunk] of chunks.entries()) {
    const other = index.overlapping(chunk).find((found) => found !== i);
    if (other !== undefined) {
      return [`tensor ${tensor.name}: chunks ${formatBox(chunk)} and ${formatBox(chunks[other]!)} overlap`];
    }
  }
  const covered = chunks.reduce((sum, chunk) => sum + volume(chunk.sizes), 0);
  if (covered === elements) return [];
  return [`tensor ${tensor.name}: chunks cover ${covered} of ${elements} elements`];
}

/** No two chunks may share bytes of a file. */
function rangeFaults(tensors: readonly ManifestTensor[]): string[] {
  const byFile = new Map<string, { name: string; chunk: Chunk }[]>();
  for (const { name, chunks } of tensors) {
    for (const chunk of chunks) {
      const ranges = byFile.get(chunk.file);
      if (ranges === undefined) byFile.set(chunk.file, [{ name, chunk }]);
      else ranges.push({ name, chunk });
    }
  }
  const faults: string[] = [];
  for (const [file, ranges] of byFile) {
    ranges.sort((a, b) => a.chunk.begin - b.chunk.begin || a.chunk.end - b.chunk.end);
    for (let i = 1; i < ranges.length; i++) {
      const [before, after] = [ranges[i - 1]!, ranges[i]!];
      if (after.chunk.begin < before.chunk.end) {
        faults.push(
          `file ${file}: tensors ${before.name} and ${after.name} share bytes from ${after.chunk.begin}`,
        );
      }
    }
  }
  return faults;
}
