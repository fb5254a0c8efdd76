import { afterAll } from "bun:test";
import { serviceLifecycle } from "./lifecycle.ts";
import { makeFolder, spawnService, startService } from "./service.ts";

const { folder, remove } = makeFolder();
afterAll(remove);

serviceLifecycle("in this process", () => startService());
serviceLifecycle("serve under Bun", () => spawnService("bun", `${folder}/bun`));
serviceLifecycle("serve under Deno", () => spawnService("deno", `${folder}/deno`));
