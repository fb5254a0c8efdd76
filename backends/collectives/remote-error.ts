/**
 * Errors that travel from a rank to its launcher: reduced to plain data, then rebuilt as the class they had.
 *
 * @module
 */
import {
  AbortError,
  CheckpointError,
  CollectiveError,
  ConfigError,
  DeviceError,
  FsdpError,
  PluginError,
  ShapeError,
  StateError,
} from "../../core/contracts/errors.ts";

/** An error as plain, structured-cloneable data. */
export interface RemoteError {
  readonly name: string;
  readonly message: string;
  readonly stack?: string | undefined;
  /** `FsdpError.code`. */
  readonly code?: string | undefined;
  /** `CollectiveError.rank`. */
  readonly rank?: number | undefined;
}

const CLASSES: Readonly<Record<string, new (message: string) => Error>> = {
  AbortError,
  CheckpointError,
  ConfigError,
  DeviceError,
  PluginError,
  ShapeError,
  StateError,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

/** Anything thrown, as plain data. */
export function toRemoteError(thrown: unknown): RemoteError {
  if (!(thrown instanceof Error)) return { name: "Error", message: String(thrown) };
  return {
    name: thrown.name,
    message: thrown.message,
    stack: thrown.stack,
    code: thrown instanceof FsdpError ? thrown.code : undefined,
    rank: thrown instanceof CollectiveError ? thrown.rank : undefined,
  };
}

/**
 * The error of `rank` as its launcher throws it: the class it had, when that is the project's or the language's,
 * otherwise FsdpError under the name it had; the message starts with `rank N: `; the stack is the rank's.
 */
export function fromRemoteError(rank: number, remote: RemoteError): Error {
  const message = `rank ${rank}: ${remote.message}`;
  const error = rebuild(remote, message);
  if (remote.stack !== undefined) error.stack = `${remote.name}: ${message}\n${framesOf(remote)}`;
  return error;
}

function rebuild(remote: RemoteError, message: string): Error {
  if (remote.name === "CollectiveError") return new CollectiveError(message, remote.rank);
  const Class = Object.hasOwn(CLASSES, remote.name) ? CLASSES[remote.name] : undefined;
  if (Class) return new Class(message);
  const error = new FsdpError(remote.code ?? "rank", message);
  error.name = remote.name;
  return error;
}

/** The stack without its first lines, where the runtime repeats the message (V8 does, JavaScriptCore does not). */
function framesOf(remote: RemoteError): string {
  const stack = remote.stack ?? "";
  const at = stack.indexOf(remote.message);
  const frames = at >= 0 && remote.message !== "" ? stack.slice(at + remote.message.length) : stack;
  return frames.replace(/^\n/, "");
}
