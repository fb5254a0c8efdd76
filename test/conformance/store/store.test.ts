import { afterAll } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { directoryStore } from "../../../checkpoint/stores/directory.ts";
import { memoryStore } from "../../../checkpoint/stores/memory.ts";
import { storeConformance } from "./suite.ts";

const folder = await mkdtemp(join(tmpdir(), "fsdp-store-"));
afterAll(() => rm(folder, { recursive: true, force: true }));
let count = 0;

storeConformance("memory", async () => memoryStore("memory:conformance"));
storeConformance("directory", async () => directoryStore(join(folder, `run-${count++}`, "deep")));
