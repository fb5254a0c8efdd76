/**
 * Ctrl-C while something runs.
 *
 * @module
 */
import process from "node:process";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** What a shell expects of a program that Ctrl-C ended. */
export const INTERRUPTED = 130;

/**
 * Runs `body`; meanwhile SIGINT and SIGTERM call `stop` instead of ending the process, which the second one does.
 */
export async function whileInterruptible<T>(stop: () => void, body: () => Promise<T>): Promise<T> {
  let asked = false;
  const interrupt = () => {
    if (asked) process.exit(INTERRUPTED);
    asked = true;
    stop();
  };
  for (const signal of SIGNALS) process.on(signal, interrupt);
  try {
    return await body();
  } finally {
    for (const signal of SIGNALS) process.off(signal, interrupt);
  }
}
