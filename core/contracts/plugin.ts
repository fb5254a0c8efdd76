/**
 * Plugin: how anything, built-in or third-party, enters the framework. A plugin is a frozen object with a `setup` that
 * registers what it brings under a kind and a name; config then picks by name. A plugin may define kinds of its own.
 *
 * @module
 */
import type { Backend } from "./backend.ts";
import type { Checkpointer, CheckpointerOptions, CheckpointStore, TensorFormat } from "./checkpointer.ts";
import type { CommandSpec } from "./command.ts";
import type { RankFunction, Transport } from "./transport.ts";

/** A kind of thing that can be registered; `T` is its type. */
export interface Kind<T> {
  /** What messages call it, for example `"backend"`. */
  readonly name: string;
  /** Carries the type only. */
  readonly type?: T;
}

/** One line of an environment report. */
export interface ProbeLine {
  readonly what: string;
  readonly found: string;
}

/** Options common to backends; each takes what it knows. */
export interface BackendOptions {
  /** This rank's own memory, see `RankContext.hostMemory`; no two backends share one. */
  readonly hostMemory?: WebAssembly.Memory | undefined;
  /** Ranks that share this host's cores. */
  readonly localWorldSize?: number | undefined;
  readonly rank?: number | undefined;
  /** Backend-specific settings by name, checked by the backend. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
}

/** A registered backend. */
export interface BackendFactory {
  create(options: BackendOptions): Promise<Backend>;
  /** What this machine offers to the backend and what would be used, and why. Never throws. */
  probe(): Promise<readonly ProbeLine[]>;
}

/** A registered checkpoint format over a store. */
export type CheckpointerFactory = (store: CheckpointStore, options?: CheckpointerOptions) => Checkpointer;

/** Opens the store for a location, or `undefined` when the location is of another kind. */
export type StoreFactory = (location: string) => CheckpointStore | undefined;

/** Devices. */
export const BACKEND: Kind<BackendFactory> = { name: "backend" };
/** Ways to run ranks and connect them. */
export const TRANSPORT: Kind<Transport> = { name: "collective" };
/** Places that keep checkpoints. */
export const STORE: Kind<StoreFactory> = { name: "checkpoint store" };
/** Checkpoint formats. */
export const CHECKPOINTER: Kind<CheckpointerFactory> = { name: "checkpoint format" };
/** Tensor file formats. */
export const FORMAT: Kind<TensorFormat> = { name: "tensor file format" };
/** Verbs of the command line. */
export const COMMAND: Kind<CommandSpec> = { name: "command" };
/** Functions that ranks run, found by name in a freshly imported registry. */
export const PROGRAM: Kind<RankFunction> = { name: "rank program" };

/** Where things are registered and found. */
export interface Registry {
  /** URL of the composition root, which ranks import to get the same registry. */
  readonly root: string;
  /** @throws PluginError when the name is taken. */
  register<T>(kind: Kind<T>, name: string, value: T): void;
  /** @throws PluginError that lists what there is when the name is unknown. */
  get<T>(kind: Kind<T>, name: string): T;
  /** Names of a kind, in order of registration. */
  names(kind: Kind<unknown>): readonly string[];
}

/** Version of this contract; a plugin that asks for another is refused. */
export const PLUGIN_CONTRACT = 1;

/** A plugin. */
export interface Plugin {
  readonly name: string;
  /** The contract version it was written for; this one when absent. */
  readonly contract?: number;
  setup(registry: Registry): void;
}
