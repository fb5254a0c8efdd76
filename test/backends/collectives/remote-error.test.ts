import { expect, test } from "bun:test";
import { fromRemoteError, toRemoteError } from "../../../backends/collectives/remote-error.ts";
import * as errors from "../../../core/contracts/errors.ts";

const { CollectiveError, FsdpError } = errors;

test("every error class of the project comes back as itself, with its code", () => {
  for (const Class of Object.values(errors)) {
    if (Class === FsdpError) continue;
    const sent = new (Class as new (message: string) => errors.FsdpError)("what failed");
    const back = fromRemoteError(2, structuredClone(toRemoteError(sent)));
    expect(back).toBeInstanceOf(Class);
    expect(back).toMatchObject({ name: sent.name, code: sent.code, message: "rank 2: what failed" });
  }
});

test("the rank that a CollectiveError names is kept", () => {
  const back = fromRemoteError(0, toRemoteError(new CollectiveError("rank 5 failed: x", 5)));
  expect(back).toMatchObject({ rank: 5, message: "rank 0: rank 5 failed: x" });
});

test("the stack names the rank and keeps its frames", () => {
  const sent = new errors.ShapeError("no fit");
  const { stack } = fromRemoteError(1, toRemoteError(sent));
  expect(stack).toStartWith("ShapeError: rank 1: no fit\n");
  expect(stack).toContain("remote-error.test.ts");
});

test("an error whose name is a property of all objects is no class", () => {
  const back = fromRemoteError(0, { name: "constructor", message: "x" });
  expect(back).toBeInstanceOf(FsdpError);
  expect(back.name).toBe("constructor");
});
