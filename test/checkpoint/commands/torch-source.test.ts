import { expect, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { call, dict, global, type PickleValue, tuple } from "../../../checkpoint/formats/pickle/values.ts";
import { writePickle } from "../../../checkpoint/formats/pickle/writer.ts";
import { zipWriter } from "../../../checkpoint/formats/zip/writer.ts";
import { bytesOf } from "../../../core/contracts/dtype.ts";
import { inFolder } from "../../support/command.ts";
import { command, contentOf } from "./run.ts";

/** A file of torch.save with float32 storages. */
async function torchFile(
  path: string,
  value: PickleValue,
  ...storages: readonly Float32Array[]
): Promise<void> {
  const parts: Uint8Array[] = [];
  const zip = zipWriter(async (bytes) => void parts.push(bytes.slice()));
  await zip.add("archive/data.pkl", writePickle(value));
  for (const [i, storage] of storages.entries()) await zip.add(`archive/data/${i}`, bytesOf(storage));
  await zip.add("archive/version", new TextEncoder().encode("3\n"));
  await zip.finish();
  await writeFile(path, Buffer.concat(parts));
}

/** A tensor over a storage. */
function tensor(
  storage: number,
  numel: number,
  shape: readonly number[],
  strides: readonly number[],
  offset = 0,
): PickleValue {
  const id = tuple("storage", global("torch FloatStorage"), String(storage), "cpu", numel);
  const rest = [offset, tuple(...shape), tuple(...strides), false, call("collections OrderedDict")];
  return call("torch._utils _rebuild_tensor_v2", { kind: "persistent", id }, ...rest);
}

const float32 = (shape: readonly number[], ...values: readonly number[]): string =>
  `float32 [${shape}] ${Buffer.from(bytesOf(Float32Array.from(values))).toString("hex")}`;

test("a file of torch.save is a source: nested tensors, views of one storage, and values", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "state.pt");
    const state = dict([
      [
        "model",
        dict([
          ["w", tensor(0, 4, [2, 2], [1, 2])],
          ["tied", tensor(0, 4, [2], [1], 2)],
        ]),
      ],
      ["state", dict([[0, dict([["m", tensor(1, 1, [], [])]])]])],
      ["groups", [dict([["lr", { kind: "float", value: 0.5 }]])]],
      ["betas", tuple(1, 2)],
    ]);
    await torchFile(path, state, Float32Array.of(1, 2, 3, 4), Float32Array.of(9));
    const content = await contentOf(path);
    expect(content.format).toBe("torch");
    expect(content.tensors).toEqual({
      "model.w": float32([2, 2], 1, 3, 2, 4),
      "model.tied": float32([2], 3, 4),
      "state.0.m": float32([], 9),
    });
    expect(content.values).toEqual({ "groups.0.lr": 0.5, betas: [1, 2] });
    expect((await command("verify", path)).out).toEqual([
      `${path} (torch): every tensor matches its checksum`,
    ]);
    await command("convert", path, join(folder, "dcp"), "--to", "dcp");
    expect((await contentOf(join(folder, "dcp"))).tensors).toEqual(content.tensors);
  });
});

test("a folder of accelerate with whole states merges and converts, with FSDP and without", async () => {
  await inFolder(async (folder) => {
    const weights = dict([["a.weight", tensor(0, 2, [2], [1])]]);
    const optimizer = dict([
      ["state", dict([[0, dict([["exp_avg", tensor(0, 2, [2], [1])]])]])],
      [
        "param_groups",
        [
          dict([
            ["lr", 1],
            ["params", [0]],
          ]),
        ],
      ],
    ]);
    const full = join(folder, "full");
    const plain = join(folder, "plain");
    for (const place of [full, plain]) {
      await mkdir(place);
      await torchFile(join(place, "optimizer.bin"), optimizer, Float32Array.of(5, 6));
    }
    await torchFile(join(full, "pytorch_model_fsdp.bin"), weights, Float32Array.of(1, 2));
    await command("merge-weights", full, plain);
    for (const place of [full, plain]) {
      const content = await contentOf(place);
      expect(content.format).toBe("accelerate");
      expect(content.tensors).toEqual({
        "model.a.weight": float32([2], 1, 2),
        "optimizer.state.0.exp_avg": float32([2], 5, 6),
      });
      expect(content.values).toEqual({
        "optimizer.param_groups.0.lr": 1,
        "optimizer.param_groups.0.params": [0],
      });
      expect((await command("verify", place)).code).toBe(0);
    }
  });
});

test("a file that names code, or that is none of torch's, is refused in one line", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "evil.bin");
    await torchFile(path, call("builtins eval", "1"));
    for (const verb of ["inspect", "verify"]) {
      const { code, out, err } = await command(verb, path);
      expect(code).toBe(1);
      expect([...out, ...err].join(" ")).toContain('global "builtins eval" is not allowed');
    }
    await writeFile(path, "pickled before zip files were used");
    expect(await command("inspect", path)).toMatchObject({
      code: 1,
      err: [expect.stringContaining("zip: ")],
    });
  });
});
