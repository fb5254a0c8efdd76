/**
 * Tests in a browser: Chromium from PATH, headless. Without one they are skipped with a word on how to get it, and in CI
 * they fail.
 *
 * @module
 */
import { describe } from "bun:test";
import process from "node:process";
import { type Browser, chromium } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
const path = NAMES.map((name) => Bun.which(name)).find((found) => found !== null);

if (path === undefined) {
  const how = `no ${NAMES[0]} in PATH: apt-get install chromium`;
  if (process.env.CI !== undefined) throw new Error(how);
  process.stderr.write(`Browser tests are skipped: ${how}\n`);
}

/** A group of tests in a browser. */
export const describeBrowser: typeof describe | typeof describe.skip =
  path === undefined ? describe.skip : describe;

/** Starts the browser. */
export async function launchChromium(): Promise<Browser> {
  // Chromium's sandbox does not run as root.
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  return await chromium.launch({ executablePath: path ?? "", args });
}
