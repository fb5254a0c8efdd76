/**
 * Standard output and error of a command. A reader that goes away (`| head`) ends the process quietly, as it ends any
 * filter, instead of an error with a stack.
 *
 * @module
 */
import process from "node:process";

/** Where a command's lines go. */
export interface CommandOutput {
  print(line: string): void;
  printError(line: string): void;
  /** Resolves when everything printed was handed to the system. */
  drain(): Promise<void>;
}

/** The output of this process. Made once, since it listens for a closed pipe from then on. */
export function processOutput(): CommandOutput {
  const out = lineWriter(process.stdout);
  const err = lineWriter(process.stderr);
  return {
    print: out.write,
    printError: err.write,
    drain: async () => {
      await out.drain();
      await err.drain();
    },
  };
}

function lineWriter(stream: NodeJS.WriteStream): { write(line: string): void; drain(): Promise<void> } {
  // The end of the last write, which comes after those of all others; an empty write would not wait for them in Bun.
  let last: Promise<void> = Promise.resolve();
  stream.on("error", endOnClosedPipe);
  return {
    write: (line) => {
      try {
        last = new Promise((resolve) => stream.write(`${line}\n`, () => resolve()));
      } catch (error) {
        // Some runtimes report a closed pipe by an event, some by throwing.
        endOnClosedPipe(error);
      }
    },
    drain: () => last,
  };
}

function endOnClosedPipe(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== "EPIPE") throw error;
  process.exit(0);
}
