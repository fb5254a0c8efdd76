import { expect, test } from "bun:test";
import { sharingWarning } from "../../../backends/webgpu/adapter.ts";

const TWO = ["0000:01:00.0", "0000:02:00.0"];

test("ranks that share one of several GPUs are told so by the first rank of each machine alone", () => {
  const told = [0, 1, 2, 3].map((rank) => sharingWarning(TWO, "no layer", { rank, localWorldSize: 2 }));
  const warning =
    "webgpu: 2 ranks share one of 2 GPUs (0000:01:00.0, 0000:02:00.0), which cannot be told apart: no layer";
  expect(told).toEqual([warning, undefined, warning, undefined]);
});

test("nobody is warned of a GPU that one rank has, nor of the only one that ranks share", () => {
  expect(sharingWarning(TWO, "no layer", {})).toBeUndefined();
  expect(sharingWarning(TWO, "no layer", { rank: 0, localWorldSize: 1 })).toBeUndefined();
  expect(sharingWarning(TWO.slice(1), "no layer", { rank: 0, localWorldSize: 2 })).toBeUndefined();
});
