import { afterAll } from "bun:test";
import { httpStore } from "../../../checkpoint/stores/http/store.ts";
import { startService } from "../../checkpoint/server/service.ts";
import { storeConformance } from "./suite.ts";

// The suite's manifests are a few arbitrary bytes; that commits prove theirs is the service's own suite.
const service = await startService({ proveCommits: false });
afterAll(() => service.close());
let count = 0;

storeConformance("HTTP", async () => httpStore(`${service.url}/runs/run-${count++}`));
