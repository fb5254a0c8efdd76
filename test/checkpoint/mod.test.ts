import { expect, test } from "bun:test";
import { checkpointPlugin } from "../../checkpoint/mod.ts";
import { CHECKPOINTER, COMMAND, FORMAT, type Kind, PROGRAM, STORE } from "../../core/contracts/plugin.ts";
import { CHECKPOINT_SERVICE } from "../../core/runtime/checkpoint-service.ts";

test("the plugin registers each built-in under its kind and name", () => {
  const registered = new Map<string, unknown>();
  checkpointPlugin.setup({
    root: "",
    register: (kind, name, value) => void registered.set(`${kind.name}/${name}`, value),
    get: <T>(kind: Kind<T>, name: string) => registered.get(`${kind.name}/${name}`) as T,
    names: () => [],
  });
  const keys: [Kind<unknown>, string][] = [
    [FORMAT, "safetensors"],
    [FORMAT, "dcp"],
    [STORE, "directory"],
    [STORE, "memory"],
    [STORE, "http"],
    [CHECKPOINTER, "native"],
    [CHECKPOINT_SERVICE, "http"],
    [COMMAND, "serve"],
    [COMMAND, "merge-weights"],
    [COMMAND, "convert"],
    [COMMAND, "inspect"],
    [COMMAND, "verify"],
    [PROGRAM, "convert"],
  ];
  expect([...registered.keys()]).toEqual(keys.map(([kind, name]) => `${kind.name}/${name}`));
});
