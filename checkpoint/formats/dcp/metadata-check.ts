/**
 * What must hold between the parts of a Distributed Checkpoint's metadata. torch checks this when it saves and never when
 * it loads: a chunk that is missing would leave its part of the target as it was.
 *
 * @module
 */
import { STORED_DTYPES } from "../../../core/contracts/dtype.ts";
import { indexBoxes } from "../../box-index.ts";
import { formatBox, insideShape, volume } from "../../boxes.ts";
import type { DcpItem, DcpMetadata, DcpTensor } from "./metadata.ts";

/**
 * Every fault; empty when all tensors are covered exactly, from items inside their files.
 *
 * @param lengths bytes of each file that is there
 */
export function metadataFaults(
  metadata: DcpMetadata,
  lengths: ReadonlyMap<string, number>,
): readonly string[] {
  const faults: string[] = [];
  const names = new Set<string>();
  for (const { name } of [...metadata.tensors, ...metadata.values]) {
    if (name === "" || name.length > 4096)
      faults.push(`name ${JSON.stringify(name.slice(0, 80))}: allowed are 1 to 4096 characters`);
    if (names.has(name)) faults.push(`${name}: listed twice`);
    names.add(name);
  }
  for (const tensor of metadata.tensors) faults.push(...tensorFaults(tensor));
  faults.push(...itemFaults(metadata, lengths));
  return faults;
}

function tensorFaults({ name, dtype, shape, chunks }: DcpTensor): readonly string[] {
  const elements = volume(shape);
  if (!Number.isSafeInteger(elements * STORED_DTYPES[dtype].bytes))
    return [`tensor ${name}: shape [${shape}] is too large`];
  const outside = chunks.find((chunk) => !insideShape(chunk, shape));
  if (outside !== undefined)
    return [`tensor ${name}: chunk ${formatBox(outside)} is outside shape [${shape}]`];
  const full = chunks.filter((chunk) => !chunk.sizes.includes(0));
  // Items are not compressed: without this, a small file could claim a tensor of any size.
  const short = full.find(
    ({ sizes, begin, end }) => volume(sizes) * STORED_DTYPES[dtype].bytes > end - begin,
  );
  if (short !== undefined) {
    return [
      `tensor ${name}: chunk ${formatBox(short)} does not fit into its ${short.end - short.begin} bytes`,
    ];
  }
  const index = indexBoxes(full);
  for (const [i, chunk] of full.entries()) {
    const other = index.overlapping(chunk).find((found) => found !== i);
    if (other !== undefined) {
      return [`tensor ${name}: chunks ${formatBox(chunk)} and ${formatBox(full[other]!)} overlap`];
    }
  }
  const covered = full.reduce((sum, chunk) => sum + volume(chunk.sizes), 0);
  return covered === elements ? [] : [`tensor ${name}: chunks cover ${covered} of ${elements} elements`];
}

function itemFaults(metadata: DcpMetadata, lengths: ReadonlyMap<string, number>): readonly string[] {
  const faults: string[] = [];
  const byFile = new Map<string, { name: string; item: DcpItem }[]>();
  const named = [
    ...metadata.values.map((value) => ({ name: value.name, item: value as DcpItem })),
    ...metadata.tensors.flatMap(({ name, chunks }) => distinctItems(chunks).map((item) => ({ name, item }))),
  ];
  for (const { name, item } of named) {
    const length = lengths.get(item.file);
    if (length === undefined) faults.push(`${name}: its file ${item.file} is missing`);
    else if (item.end > length)
      faults.push(`${name}: it ends at byte ${item.end} of ${item.file}, which has ${length}`);
    const items = byFile.get(item.file);
    if (items === undefined) byFile.set(item.file, [{ name, item }]);
    else items.push({ name, item });
  }
  for (const [file, items] of byFile) {
    items.sort((a, b) => a.item.begin - b.item.begin || a.item.end - b.item.end);
    for (let i = 1; i < items.length; i++) {
      const [before, after] = [items[i - 1]!, items[i]!];
      if (after.item.begin < before.item.end) {
        faults.push(`file ${file}: ${before.name} and ${after.name} share bytes from ${after.item.begin}`);
      }
    }
  }
  return faults;
}

/** Empty chunks at one offset share an item; full ones at one offset would overlap. */
function distinctItems(chunks: readonly DcpItem[]): readonly DcpItem[] {
  const seen = new Map<string, DcpItem>();
  for (const chunk of chunks) seen.set(`${chunk.file} ${chunk.begin} ${chunk.end}`, chunk);
  return [...seen.values()];
}
