/**
 * The errors a caller can catch. One base class, a handful of kinds; each has a stable `code`.
 *
 * Messages follow one style: what failed, a colon, what was given and what is allowed, with the parameter, option or
 * rank by name. No final period.
 *
 * @module
 */

/** Base of every error that this project throws on purpose. */
export class FsdpError extends Error {
  /** Stable machine-readable kind, for example `"shape"`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

/** Shapes, dtypes or sizes of operands do not fit together. */
export class ShapeError extends FsdpError {
  constructor(message: string, options?: ErrorOptions) {
    super("shape", message, options);
  }
}

/** A value is used in a state in which it cannot be: released, sharded, not yet materialised, overlapping calls. */
export class StateError extends FsdpError {
  constructor(message: string, options?: ErrorOptions) {
    super("state", message, options);
  }
}

/** A device is missing, lost, out of memory or lacks a capability. */
export class DeviceError extends FsdpError {
  constructor(message: string, options?: ErrorOptions) {
    super("device", message, options);
  }
}

/** A collective failed: ranks disagree, or a rank failed or vanished. `rank` names the one at fault when known. */
export class CollectiveError extends FsdpError {
  readonly rank: number | undefined;

  constructor(message: string, rank?: number, options?: ErrorOptions) {
    super("collective", message, options);
    this.rank = rank;
  }
}

/** An option, argument or config value is unknown, missing or out of range. */
export class ConfigError extends FsdpError {
  constructor(message: string, options?: ErrorOptions) {
    super("config", message, options);
  }
}

/** A checkpoint or tensor file is missing, damaged, incomplete or does not fit what is loaded. */
export class CheckpointError extends FsdpError {
  constructor(message: string, options?: ErrorOptions) {
    super("checkpoint", message, options);
  }
}

/** A plugin cannot be set up, or a registered name is unknown or taken. */
export class PluginError extends FsdpError {
  constructor(message: string, options?: ErrorOptions) {
    super("plugin", message, options);
  }
}

/** The run was stopped on request (Ctrl-C or an abort), not by a fault. */
export class AbortError extends FsdpError {
  constructor(message: string, options?: ErrorOptions) {
    super("abort", message, options);
  }
}
