import { expect, test } from "bun:test";
import { copyHere, findMappedCopy } from "../../../backends/webgpu/mapped-copy.ts";

/** A buffer whose mapped memory is that of the host. Every range begins where the memory does, as in use. */
function mapped(bytes: Uint8Array<ArrayBuffer>): GPUBuffer {
  return { getMappedRange: () => bytes.buffer } as unknown as GPUBuffer;
}

const random = (length: number): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length }, (_, i) => (i * 2_654_435_761) >>> 13);

test.each([0, 1, 1003, 2 ** 18 - 1, 2 ** 18, 5 * 2 ** 20 + 3])(
  "copies of %i bytes are the same on other threads as here, and leave the rest alone",
  async (length) => {
    const fast = await findMappedCopy();
    const source = random(length);
    const filled = await Promise.all(
      [fast, copyHere].map(async (copy) => {
        const device = new Uint8Array(length + 64).fill(7);
        await copy.fill(mapped(device), source);
        return device;
      }),
    );
    expect(Buffer.compare(filled[0]!, filled[1]!)).toBe(0);
    expect(filled[0]!.subarray(length)).toEqual(new Uint8Array(64).fill(7));
    for (const skip of [0, 2]) {
      const host = await Promise.all(
        [fast, copyHere].map(async (copy) => {
          const target = new Uint8Array(new SharedArrayBuffer(length));
          await copy.drain(target, mapped(filled[0]!), skip);
          return target;
        }),
      );
      expect(Buffer.compare(host[0]!, host[1]!)).toBe(0);
    }
  },
);

test("more copies than there are threads all arrive", async () => {
  const copy = await findMappedCopy();
  const sources = Array.from({ length: 20 }, (_, i) => new Uint8Array(2 ** 18 + i).fill(i));
  const devices = sources.map(({ length }) => new Uint8Array(length));
  await Promise.all(sources.map((source, i) => copy.fill(mapped(devices[i]!), source)));
  for (const [i, device] of devices.entries()) expect(Buffer.compare(device, sources[i]!)).toBe(0);
});
