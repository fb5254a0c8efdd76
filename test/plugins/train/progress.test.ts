import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  createProgress,
  type Progress,
  type ProgressOptions,
  progressLine,
} from "../../../plugins/train/progress.ts";

const SHOW_CURSOR = "\u001b[?25h";
const HIDE_CURSOR = "\u001b[?25l";
const STEP = { loss: 2.5, tokensPerSecond: 12_345, memory: 2 ** 20 };

/** A display on a recorded output, with a clock that a test sets. */
function display(options: Partial<ProgressOptions>, output: { isTTY?: boolean; columns?: number } = {}) {
  let written = "";
  const clock = { seconds: 0 };
  const progress: Progress = createProgress({
    steps: 100,
    ...options,
    output: { ...output, write: (text) => (written += text) },
    now: () => clock.seconds * 1000,
  });
  return { progress, clock, text: () => written };
}

describe("progressLine", () => {
  const step = { ...STEP, step: 7, steps: 300, elapsed: 65, remaining: 3700 };

  test("shows every figure where there is room", () => {
    expect(progressLine(step, 200)).toBe(
      "step   7/300  loss 2.5000  12,345 tokens/s  1.0 MiB a rank  1m05s  1h01m left",
    );
  });

  test("drops what matters least, and keeps step, loss and time left longest", () => {
    expect(progressLine(step, 60)).toBe("step   7/300  loss 2.5000  12,345 tokens/s  1h01m left");
    expect(progressLine(step, 40)).toBe("step   7/300  loss 2.5000  1h01m left");
    expect(progressLine(step, 8)).toBe("step   7");
  });

  test("never exceeds the columns", () => {
    fc.assert(
      fc.property(fc.nat(200), fc.double(), fc.nat(), (columns, loss, memory) => {
        expect(progressLine({ ...step, loss, memory }, columns).length).toBeLessThanOrEqual(columns);
      }),
    );
  });
});

describe("on a terminal", () => {
  test("rewrites one line within the columns and gives the cursor back", () => {
    const { progress, clock, text } = display({}, { isTTY: true, columns: 40 });
    for (let step = 1; step <= 100; step++) {
      clock.seconds = step;
      progress.update({ ...STEP, step });
    }
    progress.close();
    progress.close();
    expect(text().startsWith(HIDE_CURSOR)).toBe(true);
    expect(text().split(SHOW_CURSOR)).toHaveLength(2);
    expect(text().endsWith(SHOW_CURSOR)).toBe(true);
    expect(text().split("\n")).toHaveLength(2);
    const lines = text().replaceAll(SHOW_CURSOR, "").split("\r\u001b[2K").slice(1);
    expect(lines).toHaveLength(100);
    for (const line of lines) expect(line.trimEnd().length).toBeLessThan(40);
    expect(lines.at(-1)).toBe("step 100/100  loss 2.5000  0s left\n");
  });

  test("a note stands above the line, which is drawn again", () => {
    const { progress, text } = display({}, { isTTY: true, columns: 30 });
    progress.note("first");
    progress.update({ ...STEP, step: 1 });
    progress.note("saved");
    progress.close();
    const line = "\r\u001b[2Kstep   1/100  loss 2.5000";
    expect(text()).toBe(`${HIDE_CURSOR}first\n${line}\r\u001b[2Ksaved\n${line}\n${SHOW_CURSOR}`);
  });

  test("leaves no listener behind", () => {
    const before = process.listenerCount("exit");
    const { progress } = display({}, { isTTY: true });
    expect(process.listenerCount("exit")).toBe(before + 1);
    progress.close();
    expect(process.listenerCount("exit")).toBe(before);
  });
});

describe("elsewhere", () => {
  test("plain lines come at most every few seconds, first and last always, and never rewrite", () => {
    const { progress, clock, text } = display({ plainSeconds: 10 });
    for (let step = 1; step <= 100; step++) {
      clock.seconds = step / 2;
      progress.update({ ...STEP, step });
    }
    progress.note("done");
    progress.close();
    const lines = text().trimEnd().split("\n");
    expect(lines.map((line) => line.slice(0, 12))).toEqual([
      "step   1/100",
      "step  21/100",
      "step  41/100",
      "step  61/100",
      "step  81/100",
      "step 100/100",
      "done",
    ]);
    expect(text()).not.toContain("\r");
    expect(text()).not.toContain("\u001b");
  });

  test("JSON gives one object a step and nothing else", () => {
    const { progress, clock, text } = display({ json: true }, { isTTY: true });
    progress.note("ignored");
    clock.seconds = 2;
    progress.update({ ...STEP, step: 1 });
    progress.update({ ...STEP, step: 2, loss: NaN });
    progress.close();
    const [first, second, ...more] = text().trimEnd().split("\n");
    expect(JSON.parse(first!)).toEqual({
      step: 1,
      steps: 100,
      loss: 2.5,
      tokens_per_second: 12_345,
      memory: 2 ** 20,
      elapsed: 2,
      remaining: 198,
    });
    expect(JSON.parse(second!)).toMatchObject({ step: 2, loss: null });
    expect(more).toEqual([]);
  });

  test("the time left of a resumed run counts only its own steps", () => {
    const { progress, clock, text } = display({ json: true, firstStep: 50 });
    clock.seconds = 10;
    progress.update({ ...STEP, step: 60 });
    expect(JSON.parse(text())).toMatchObject({ elapsed: 10, remaining: 40 });
  });
});
