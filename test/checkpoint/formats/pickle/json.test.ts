import { expect, test } from "bun:test";
import { fromJson, toJson } from "../../../../checkpoint/formats/pickle/json.ts";
import { readPickle } from "../../../../checkpoint/formats/pickle/reader.ts";
import {
  call,
  dict,
  global,
  object,
  type PickleValue,
  tuple,
} from "../../../../checkpoint/formats/pickle/values.ts";
import { writePickle } from "../../../../checkpoint/formats/pickle/writer.ts";
import type { Value } from "../../../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../../../core/contracts/errors.ts";

const float = (value: number): PickleValue => ({ kind: "float", value });

test("pickled data becomes JSON, and what JSON has no words for keeps a name", () => {
  const value = dict([
    ["lr", float(0.5)],
    ["betas", tuple(float(0.9), float(0.95))],
    [7, [null, true, "x"]],
    ["nan", float(Number.NaN)],
    ["big", 2n ** 64n],
    ["bytes", Uint8Array.of(1, 2, 255)],
    ["__proto__", 1],
  ]);
  const json = toJson(value) as Readonly<Record<string, Value>>;
  expect(JSON.parse(JSON.stringify(json))).toEqual(
    JSON.parse(
      '{"lr":0.5,"betas":[0.9,0.95],"7":[null,true,"x"],"nan":{"$float":"nan"},"big":{"$int":"18446744073709551616"},"bytes":{"$bytes":"AQL/"},"__proto__":1}',
    ),
  );
  expect(({} as Record<string, unknown>)[1]).toBeUndefined();
});

test("JSON comes back as data of the same meaning", () => {
  const values: readonly Value[] = [
    null,
    true,
    "x",
    3,
    -0.5,
    [1, [2]],
    { a: { b: [] } },
    { $int: "-36893488147419103232" },
    { $bytes: "AQL/" },
    { $float: "-infinity" },
  ];
  for (const value of values) expect(toJson(fromJson(value))).toEqual(value);
  // Through a pickle too, where protocol 2 has no bytes of its own.
  const globals = new Map([["_codecs encode", "call"]] as const);
  for (const value of values)
    expect(toJson(readPickle(writePickle(fromJson(value)), globals))).toEqual(value);
});

test("what is no data is refused, and what is shared too often", () => {
  let bomb: PickleValue = tuple();
  for (let i = 0; i < 40; i++) bomb = tuple(bomb, bomb);
  const cyclic: PickleValue[] = [];
  cyclic.push(cyclic);
  const refused: readonly PickleValue[] = [
    bomb,
    cyclic,
    global("torch float32"),
    object("meta Box"),
    call("torch Size", tuple(1)),
    call("_codecs encode", "x", "utf-8"),
    { kind: "persistent", id: 1 },
    dict([[tuple(1), 2]]),
    dict([
      [1, 2],
      ["1", 3],
    ]),
  ];
  for (const value of refused) expect(() => toJson(value)).toThrow(CheckpointError);
  expect(() => fromJson(JSON.parse(`${"[".repeat(1000)}${"]".repeat(1000)}`))).toThrow(CheckpointError);
  expect(() => fromJson({ $bytes: "?" })).toThrow(CheckpointError);
});
