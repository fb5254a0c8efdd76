/**
 * Run by either runtime in `embedded.test.ts`: a service in this process, and ranks in threads that save to it and load
 * from it. The directory is the argument. Prints one line of JSON.
 *
 * @module
 */
import process from "node:process";
import { threadsTransport } from "../../../backends/collectives/threads/transport.ts";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { startEmbeddedService } from "../../../checkpoint/server/embedded.ts";
import { openHttpStore } from "../../../checkpoint/stores/http/store.ts";
import type { RankContext } from "../../../core/contracts/transport.ts";
import { cutBox, dimZero, emptyState, patternTensor, shardedState } from "../states.ts";

/** A save, and a load of it. */
export async function saveAndLoad({ collective }: RankContext, location: string): Promise<boolean> {
  const tensors = [patternTensor("model.w", "float32", [70, 50])];
  const checkpointer = nativeCheckpointer(openHttpStore(location)!);
  const layout = dimZero(collective.size);
  await checkpointer.save(shardedState(tensors, layout, collective.rank), 1, collective);
  const { state, filled } = emptyState(tensors, layout, collective.rank);
  await checkpointer.load(state, "latest", collective);
  return filled.every(({ tensor, box, bytes }) => cutBox(tensor, box).every((byte, i) => byte === bytes[i]));
}

if (import.meta.main) {
  const service = await startEmbeddedService(process.argv[2]!);
  const program = { module: import.meta.url, export: "saveAndLoad", args: `${service.url}/runs/one` };
  const results = await threadsTransport.launch(program, { worldSize: 2 }).results;
  await service.close();
  console.log(JSON.stringify(results));
  process.exit(0);
}
