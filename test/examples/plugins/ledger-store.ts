/**
 * A checkpoint store by a third party: `ledger://FOLDER` keeps checkpoints in a folder, as the built-in store does, and
 * writes down what became of them; the command `ledger` shows it.
 *
 *     fsdp train ... --plugin ./ledger-store.ts --save ledger://runs/one --save-every 100
 *     fsdp --plugin ./ledger-store.ts ledger runs/one
 */
import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  CheckpointError,
  type CheckpointStore,
  COMMAND,
  type Plugin,
  type Registry,
  STORE,
  type StoreTransaction,
} from "../../../mod.ts";

const SCHEME = "ledger://";
const FILE = ".ledger.jsonl";

interface Entry {
  readonly what: "committed" | "deleted";
  readonly checkpoint: string;
}

function ledgerStore(registry: Registry, folder: string): CheckpointStore {
  const store = registry.get(STORE, "directory")(folder);
  if (store === undefined) throw new CheckpointError(`cannot keep a ledger at "${folder}": it is no folder`);
  const note = (entry: Entry) => appendFile(join(folder, FILE), `${JSON.stringify(entry)}\n`);
  const noting = (name: string, transaction: StoreTransaction): StoreTransaction => ({
    id: transaction.id,
    create: (file) => transaction.create(file),
    read: (file) => transaction.read(file),
    remove: (file) => transaction.remove(file),
    abort: () => transaction.abort(),
    commit: async () => {
      await transaction.commit();
      await note({ what: "committed", checkpoint: name });
    },
  });
  return {
    location: SCHEME + folder,
    begin: async (name) => noting(name, await store.begin(name)),
    join: async (name, id) => noting(name, await store.join(name, id)),
    list: () => store.list(),
    files: (name) => store.files(name),
    size: (name, file) => store.size(name, file),
    read: (name, file, begin, end) => store.read(name, file, begin, end),
    delete: async (name) => {
      await store.delete(name);
      await note({ what: "deleted", checkpoint: name });
    },
  };
}

async function readLedger(folder: string): Promise<readonly Entry[]> {
  const text = await readFile(join(folder, FILE), "utf8").catch(() => {
    throw new CheckpointError(`cannot show the ledger of "${folder}": there is none`);
  });
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Entry);
}

const plugin: Plugin = {
  name: "ledger-store",
  contract: 1,
  setup(registry) {
    registry.register(STORE, "ledger", (location) =>
      location.startsWith(SCHEME) ? ledgerStore(registry, location.slice(SCHEME.length)) : undefined,
    );
    registry.register(COMMAND, "ledger", {
      summary: "shows what became of a folder's checkpoints",
      positionals: "FOLDER",
      options: {},
      async run({ positionals, options, print }) {
        const entries = await readLedger(positionals[0]!);
        if (options.json === true) print(JSON.stringify(entries));
        else for (const { what, checkpoint } of entries) print(`${checkpoint} ${what}`);
        return 0;
      },
    });
  },
};

export default plugin;
