/** A stand-in for a GPU: a device whose memory the host does not see. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Backend, Span } from "../../core/contracts/backend.ts";
import { bytesOf, type HostArray } from "../../core/contracts/dtype.ts";

/** A device whose memory the host does not see, and whose transfers take their time, more on some ranks than on others. */
export function remote(backend: Backend, readInto: Backend["readInto"] = lateRead(backend)): Backend {
  const own: Partial<Backend> = { hostView: () => undefined, readInto, writeFrom: lateWrite(backend) };
  return new Proxy(backend, {
    get(target, key) {
      const value: unknown = Reflect.get(own, key) ?? Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function lateRead(backend: Backend): Backend["readInto"] {
  let reads = 0;
  return async (source: Span, target: HostArray): Promise<void> => {
    const there = target.slice();
    await backend.readInto(source, there);
    bytesOf(target).fill(0xff);
    const turns = (reads++ * 7) % 5;
    if (turns === 4) await sleep(1);
    for (let i = 0; i < turns; i++) await null;
    (target as Uint8Array).set(there as Uint8Array);
  };
}

/** Like the law: the target is undefined until the write is done, and the source must stay until then. */
function lateWrite(backend: Backend): Backend["writeFrom"] {
  let writes = 0;
  return async (target: Span, source: HostArray): Promise<void> => {
    const turns = (writes++ * 5) % 7;
    if (turns === 6) await sleep(1);
    for (let i = 0; i < turns; i++) await null;
    backend.write(target, source);
  };
}
