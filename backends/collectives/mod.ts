/**
 * The transports that need nothing but the runtime: single, local, threads.
 *
 * @module
 */
import { type Plugin, TRANSPORT } from "../../core/contracts/plugin.ts";
import { localTransport } from "./local/transport.ts";
import { singleTransport } from "./single.ts";
import { threadsTransport } from "./threads/transport.ts";

export { localCollectives } from "./local/group.ts";
export { singleCollective } from "./single.ts";

/** Registers the transports `single`, `local` and `threads`. */
export const collectivesPlugin: Plugin = {
  name: "collectives",
  setup(registry) {
    for (const transport of [singleTransport, localTransport, threadsTransport]) {
      registry.register(TRANSPORT, transport.name, transport);
    }
  },
};
