/**
 * Progress of a run: on a terminal one line that is rewritten in place, elsewhere plain lines now and then, and for
 * machines one JSON object a step.
 *
 * @module
 */
import process from "node:process";
import { formatBytes, formatCount, formatDuration } from "../../core/runtime/format.ts";

/** Figures of one finished step. */
export interface StepProgress {
  /** Steps done, of the whole run. */
  readonly step: number;
  /** Averaged over ranks. */
  readonly loss: number;
  /** Of all ranks. */
  readonly tokensPerSecond: number;
  /** Peak bytes of the rank that needs most. */
  readonly memory: number;
}

/** Where progress is written; a `NodeJS.WriteStream` fits. */
export interface ProgressOutput {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

/** How progress is shown. */
export interface ProgressOptions {
  /** Steps of the whole run. */
  readonly steps: number;
  /** Steps done before this process began (resumed runs). Default 0. */
  readonly firstStep?: number;
  /** One JSON object a step. Default false. */
  readonly json?: boolean;
  /** Seconds between plain lines; the first and the last step always get one. Default 10. */
  readonly plainSeconds?: number;
  /** Standard output unless given. */
  readonly output?: ProgressOutput;
  /** Milliseconds of a clock that does not go back. */
  readonly now?: () => number;
}

/** A progress display. Close it however the run ends, or a terminal keeps its cursor hidden. */
export interface Progress {
  /** Shows a finished step. */
  update(step: StepProgress): void;
  /** Prints a line of its own, above a rewritten one. With JSON it is dropped. */
  note(line: string): void;
  /** Leaves the last line as it is and shows the cursor again. May be called twice. */
  close(): void;
}

/** A step with the times that belong to it. */
interface TimedProgress extends StepProgress {
  readonly steps: number;
  /** Seconds since the display was made. */
  readonly elapsed: number;
  /** Seconds to the end at the pace so far. */
  readonly remaining: number;
}

const HIDE_CURSOR = "\x1b[?25l";
const SHOW_CURSOR = "\x1b[?25h";
const CLEAR_LINE = "\r\x1b[2K";

/** A display that fits the output: JSON if asked for, a rewritten line on a terminal, plain lines elsewhere. */
export function createProgress(options: ProgressOptions): Progress {
  const {
    steps,
    firstStep = 0,
    json = false,
    output = process.stdout,
    now = () => performance.now(),
  } = options;
  const began = now();
  const timed = (progress: StepProgress): TimedProgress => {
    const elapsed = (now() - began) / 1000;
    const done = progress.step - firstStep;
    return {
      ...progress,
      steps,
      elapsed,
      remaining: done > 0 ? (elapsed / done) * (steps - progress.step) : NaN,
    };
  };
  if (json) return jsonProgress(output, timed);
  if (output.isTTY === true) return terminalProgress(output, timed);
  return plainProgress(output, timed, options.plainSeconds ?? 10);
}

function jsonProgress(output: ProgressOutput, timed: (progress: StepProgress) => TimedProgress): Progress {
  return {
    update: (progress) => {
      const { step, steps, loss, tokensPerSecond, memory, elapsed, remaining } = timed(progress);
      // JSON has no NaN or Infinity: both become null.
      const record = { step, steps, loss, tokens_per_second: tokensPerSecond, memory, elapsed, remaining };
      output.write(`${JSON.stringify(record)}\n`);
    },
    note: () => {},
    close: () => {},
  };
}

function plainProgress(
  output: ProgressOutput,
  timed: (progress: StepProgress) => TimedProgress,
  seconds: number,
): Progress {
  let next = 0;
  return {
    update: (progress) => {
      const all = timed(progress);
      if (all.elapsed < next && all.step < all.steps) return;
      next = all.elapsed + seconds;
      output.write(`${progressLine(all, Infinity)}\n`);
    },
    note: (line) => output.write(`${line}\n`),
    close: () => {},
  };
}

function terminalProgress(
  output: ProgressOutput,
  timed: (progress: StepProgress) => TimedProgress,
): Progress {
  let last: TimedProgress | undefined;
  let closed = false;
  const draw = (): void => {
    // The last column stays free: a terminal may wrap when it is written.
    if (last !== undefined) output.write(CLEAR_LINE + progressLine(last, (output.columns ?? 80) - 1));
  };
  const close = (): void => {
    if (closed) return;
    closed = true;
    process.removeListener("exit", close);
    output.write(last === undefined ? SHOW_CURSOR : `\n${SHOW_CURSOR}`);
  };
  output.write(HIDE_CURSOR);
  process.once("exit", close);
  return {
    update: (progress) => {
      last = timed(progress);
      draw();
    },
    note: (line) => {
      output.write(`${last === undefined ? "" : CLEAR_LINE}${line}\n`);
      draw();
    },
    close,
  };
}

/**
 * The figures of a step in at most `columns` columns: what matters least goes first when they do not all fit, and what
 * is left is cut.
 */
export function progressLine(progress: TimedProgress, columns: number): string {
  const { step, steps, loss, tokensPerSecond, memory, elapsed, remaining } = progress;
  const fields = [
    { text: `step ${String(step).padStart(String(steps).length)}/${steps}`, rank: 0 },
    { text: `loss ${loss.toFixed(4)}`, rank: 1 },
    { text: `${formatCount(tokensPerSecond)} tokens/s`, rank: 3 },
    { text: `${formatBytes(memory)} a rank`, rank: 4 },
    { text: formatDuration(elapsed), rank: 5 },
    { text: `${formatDuration(remaining)} left`, rank: 2 },
  ];
  const gap = "  ";
  for (let kept = fields.length; kept > 1; kept--) {
    const line = fields
      .filter(({ rank }) => rank < kept)
      .map(({ text }) => text)
      .join(gap);
    if (line.length <= columns) return line;
  }
  return fields[0]!.text.slice(0, Math.max(0, columns));
}
