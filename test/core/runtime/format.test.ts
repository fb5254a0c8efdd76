import { expect, test } from "bun:test";
import { formatBytes, formatCount, formatDuration, parseBytes } from "../../../core/runtime/format.ts";

test("bytes are MiB with one decimal", () => {
  expect(formatBytes(0)).toBe("0.0 MiB");
  expect(formatBytes(1_572_864)).toBe("1.5 MiB");
  expect(formatBytes(3 * 2 ** 30)).toBe("3072.0 MiB");
});

test("durations use two units at most, and the carry reaches the larger one", () => {
  expect([0, 59.4, 59.6, 61, 3599.7, 7740, 90_000].map(formatDuration)).toEqual([
    "0s",
    "59s",
    "1m00s",
    "1m01s",
    "1h00m",
    "2h09m",
    "1d01h",
  ]);
  expect([NaN, Infinity, -1].map(formatDuration)).toEqual(["?", "?", "?"]);
});

test("counts are grouped by thousands", () => {
  expect([0, 999.4, 1000, 1_234_567.8].map(formatCount)).toEqual(["0", "999", "1,000", "1,234,568"]);
  expect(formatCount(NaN)).toBe("?");
});

test("sizes are read by decimal and binary units, in any case; what is none is undefined", () => {
  expect(["500MB", "5gb", "2 GiB", "0.5KB", "7", " 3KiB "].map(parseBytes)).toEqual([
    500e6,
    5e9,
    2 ** 31,
    500,
    7,
    3072,
  ]);
  expect(["", "big", "-1MB", "1TB", "0", "0.1", "1e3", "9999999999GB", "5 G B"].map(parseBytes)).toEqual(
    Array.from({ length: 9 }, () => undefined),
  );
});
