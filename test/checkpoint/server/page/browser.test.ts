import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { describeBrowser, launchChromium } from "../../../support/chromium.ts";
import { patternTensor } from "../../states.ts";
import { apiOf, append, beginSave, beginUpload, sha256, someBytes } from "../api.ts";
import { uploadParts } from "../lifecycle.ts";
import { makeParts } from "../parts.ts";
import { type RunningService, startService } from "../service.ts";
import { contrasts } from "./contrast.ts";
import { fallingLosses, flatLayout, gptTensors, HOSTILE_NAMES, saveRun } from "./seed.ts";

let service: RunningService;
let browser: Browser;
let folder: string;

/** What a page did that it must not: errors, and requests to anywhere else. */
interface Opened {
  readonly page: Page;
  readonly wrong: string[];
  readonly urls: string[];
}

async function open(hash: string, options: BrowserContextOptions = {}, url = service.url): Promise<Opened> {
  const context = await browser.newContext(options);
  // Sooner than a test, which would end the browser for all.
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  const wrong: string[] = [];
  const urls: string[] = [];
  page.on("pageerror", (error) => void wrong.push(error.message));
  page.on("dialog", (dialog) => {
    wrong.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("console", (message) => {
    if (message.type() === "error" && !/status of 40[14]/.test(message.text())) wrong.push(message.text());
  });
  page.on("request", (request) => {
    urls.push(request.url());
    if (!request.url().startsWith(`${url}/`)) wrong.push(`request to ${request.url()}`);
  });
  await page.goto(`${url}/${hash}`);
  await page.locator("h1").first().waitFor();
  return { page, wrong, urls };
}

/** What is drawn of a tensor, rank by rank. */
async function cellsOf(page: Page, name: string): Promise<readonly (readonly (string | null)[])[]> {
  const row = page.locator(".tensors > li").filter({ has: page.getByText(name, { exact: true }) });
  await row.scrollIntoViewIfNeeded();
  await row.locator("rect").first().waitFor();
  return await row
    .locator("rect")
    .evaluateAll((rects) =>
      rects.map((rect) => [
        ...["data-rank", "x", "width"].map((attribute) => rect.getAttribute(attribute)),
        rect.textContent,
      ]),
    );
}

/** The page is no wider than the window. */
const fits = (page: Page): Promise<boolean> =>
  page.evaluate("document.documentElement.scrollWidth <= window.innerWidth");

describeBrowser("the page in Chromium", () => {
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "fsdp-page-"));
    [service, browser] = await Promise.all([startService(), launchChromium()]);
    const values = { step: 300, losses: fallingLosses(300, 2) };
    await saveRun(service.url, "gpt", 200, 4, gptTensors(2, 32));
    await saveRun(service.url, "gpt", 300, 4, gptTensors(2, 32), { values });
    await saveRun(service.url, "flat", 1, 3, [patternTensor("model.a", "float32", [10, 7])], {
      layout: flatLayout(3),
    });
    await saveRun(service.url, "rotten", 1, 2, [patternTensor("model.a", "float32", [10, 7])]);
    const hostile = HOSTILE_NAMES.map((name) => patternTensor(name, "float32", [6, 3]));
    await saveRun(service.url, "hostile", 1, 2, hostile, {
      values: { "<b>": "</pre><script>owned</script>" },
    });
  }, 60_000);
  afterAll(async () => {
    await browser.close();
    expect(service.errors).toEqual([]);
    await service.close();
    await rm(folder, { recursive: true });
  });

  test("leads by clicks from the runs to who holds which rows of a parameter", async () => {
    const { page, wrong } = await open("");
    await page.getByRole("link", { name: "gpt" }).click();
    const row = page.getByRole("row", { name: /step-00000300/ });
    expect(await row.innerText()).toMatch(/step-00000300\s+committed\s+300\s+4\s+[0-9.]+ [KM]iB\s+\d+ s ago/);
    const names = await page.getByRole("rowheader").allInnerTexts();
    expect(names).toEqual(["step-00000300", "step-00000200"]);
    await row.getByRole("link", { name: "step-00000300", exact: true }).click();
    await page.getByRole("heading", { name: "Who holds what" }).waitFor();
    expect(await cellsOf(page, "model.wte.weight")).toEqual([
      ["0", "0.0000%", "25.0000%", "rank 0: rows 0 to 63"],
      ["1", "25.0000%", "25.0000%", "rank 1: rows 64 to 127"],
      ["2", "50.0000%", "25.0000%", "rank 2: rows 128 to 191"],
      ["3", "75.0000%", "25.0000%", "rank 3: rows 192 to 255"],
    ]);
    // One rank alone.
    await page.getByRole("button", { name: /^rank 2/ }).click();
    const bright = await page
      .locator("rect:not(.dim)")
      .evaluateAll((rects) => rects.map((rect) => rect.getAttribute("data-rank")));
    expect(new Set(bright)).toEqual(new Set(["2"]));
    await page.getByRole("button", { name: /^rank 2/ }).click();
    expect(await page.locator("rect.dim").count()).toBe(0);
    const picture = page.getByRole("img", { name: /^Training loss/ });
    expect(await picture.getAttribute("aria-label")).toMatch(/from 5\.\d+ at step 2 to 2\.\d+ at step 300/);
    await page.screenshot({ path: join(folder, "checkpoint.png"), fullPage: true });
    expect((await stat(join(folder, "checkpoint.png"))).size).toBeGreaterThan(20_000);
    await page.goBack();
    await page.getByRole("heading", { name: "gpt" }).waitFor();
    expect(wrong).toEqual([]);
    await page.context().close();
  }, 30_000);

  test("draws flat shards as they end within rows, and lists their parts", async () => {
    const { page, wrong } = await open("#/flat/step-00000001");
    const said = (await cellsOf(page, "model.a")).map((cell) => cell.at(-1));
    expect(said).toEqual([
      "rank 0: rows 0 to 2, dim 1: 0 to 6",
      "rank 0: row 3, dim 1: 0 to 2",
      "rank 1: row 3, dim 1: 3 to 6",
      "rank 1: rows 4 to 5, dim 1: 0 to 6",
      "rank 1: row 6, dim 1: 0 to 5",
      "rank 2: row 6, dim 1: 6",
      "rank 2: rows 7 to 9, dim 1: 0 to 6",
    ]);
    await page.getByRole("button", { name: "model.a" }).click();
    expect(await page.locator(".chunks tbody tr").count()).toBe(7);
    expect(wrong).toEqual([]);
    await page.context().close();
  }, 30_000);

  test("is used by keys alone", async () => {
    const { page } = await open("#/gpt/step-00000300");
    const focused = (): Promise<string> => page.evaluate("document.activeElement.textContent.trim()");
    await page.keyboard.press("Tab");
    expect(await focused()).toBe("Skip to content");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    expect(await focused()).toBe("Download model");
    await page.keyboard.press("/");
    await page.keyboard.type("mlp H.1");
    expect(await page.locator(".tensors .name").allTextContents()).toEqual([
      "model.h.1.mlp.c_fc.weight",
      "model.h.1.mlp.c_proj.weight",
    ]);
    await page.keyboard.press("Tab");
    expect(await focused()).toBe("model.h.1.mlp.c_fc.weight");
    await page.keyboard.press("ArrowDown");
    expect(await focused()).toBe("model.h.1.mlp.c_proj.weight");
    await page.keyboard.press("Enter");
    const part = page.locator(".chunks tbody tr").first();
    expect(await part.innerText()).toMatch(/0\s+rows 0 to 31\s+\[32, 32\]\s+rank-00000.safetensors/);
    await page.keyboard.press("Enter");
    expect(await page.locator(".chunks").count()).toBe(0);
    await page.getByRole("slider").focus();
    await page.keyboard.press("Home");
    expect(await page.locator(".scale output").innerText()).toMatch(/^step 2: 5\.\d{4}$/);
    await page.context().close();
  }, 30_000);

  test("can be read in the light and in the dark, and on a phone", async () => {
    const grounds: string[] = [];
    for (const colorScheme of ["light", "dark"] as const) {
      const { page } = await open("", { colorScheme, viewport: { width: 360, height: 720 } });
      for (const hash of ["#/", "#/gpt", "#/gpt/step-00000300", "#/hostile/step-00000001"]) {
        await page.goto(`${service.url}/${hash}`);
        await page.locator("h1").waitFor();
        await page.locator("main:not([aria-busy])").waitFor();
        expect([hash, await fits(page)]).toEqual([hash, true]);
        // What WCAG asks of text.
        for (const { text, ratio } of await contrasts(page)) {
          expect({ hash, text, enough: ratio >= 4.5 }).toEqual({ hash, text, enough: true });
        }
      }
      grounds.push(await page.evaluate("getComputedStyle(document.documentElement).backgroundColor"));
      await page.screenshot({ path: join(folder, `${colorScheme}.png`) });
      await page.context().close();
    }
    expect(new Set(grounds).size).toBe(2);
  }, 60_000);

  test("shows hostile names as text and runs nothing of them", async () => {
    const { page, wrong } = await open("#/hostile/step-00000001");
    await page.locator("#group").selectOption({ label: "all tensors" });
    const spelled = HOSTILE_NAMES.map((name) =>
      name.replace(/[\u202e\u202c\n\0]/g, (char) => `\\u{${char.codePointAt(0)?.toString(16)}}`),
    );
    const shown = await page.locator(".tensors .name bdi").allTextContents();
    expect(shown.sort()).toEqual(spelled.sort());
    for (const button of await page.locator(".tensors .name").all()) await button.click();
    expect(await page.locator("main img, main script, main b, main iframe").count()).toBe(0);
    expect(await page.locator("pre").last().innerText()).toContain("</pre><script>owned</script>");
    expect(await page.title()).toBe("step-00000001 · hostile · fsdp checkpoints");
    // Names in the address are names too.
    await page.goto(`${service.url}/#/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E`);
    await page.getByRole("alert").waitFor();
    await page.goto(`${service.url}/#/%E0%A4%A`);
    await page.getByRole("heading", { name: "Runs" }).waitFor();
    expect(wrong.filter((text) => !text.includes("status of 400"))).toEqual([]);
    await page.context().close();
  }, 30_000);

  test("follows an upload as it comes, and lists the checkpoint once it is committed", async () => {
    const api = apiOf(service.url);
    const { page, wrong } = await open("#/gpt");
    const save = await beginSave(api, "gpt", { step: 400, worldSize: 2 });
    await page.getByText("step-00000400").waitFor();
    const upload = await beginUpload(api, save, "rank-00009.safetensors", { "upload-length": "1000000" });
    await append(api, upload, 0, someBytes(250_000), false);
    await page.getByText("244 KiB of 977 KiB").first().waitFor({ state: "attached" });
    const bar = page.getByRole("progressbar");
    expect(
      await bar.evaluate((element) => [element.getAttribute("max"), element.getAttribute("value")]),
    ).toEqual(["1000000", "250000"]);
    await append(api, upload, 250_000, someBytes(500_000), false);
    await page.getByText("732 KiB of 977 KiB").first().waitFor({ state: "attached" });
    expect((await api("DELETE", upload)).status).toBe(204);
    await uploadParts(api, save, makeParts(400, 2));
    expect((await api("POST", `${save}/commit`)).status).toBe(200);
    await page.getByRole("row", { name: /step-00000400/ }).waitFor();
    await page.getByText("Being saved").waitFor({ state: "hidden" });
    expect(await page.locator("#news").innerText()).toBe("step-00000400 is committed");
    expect(wrong).toEqual([]);
    await page.context().close();
  }, 30_000);

  test("downloads the model and verifies a checkpoint, damaged or whole", async () => {
    const { page } = await open("#/gpt/step-00000300");
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("link", { name: "Download model" }).click(),
    ]);
    const path = `${service.url}/v1/runs/gpt/checkpoints/step-00000300/export.safetensors`;
    expect(download.suggestedFilename()).toBe("model.safetensors");
    expect(sha256(await Bun.file(await download.path()).bytes())).toBe(
      sha256(await (await fetch(path)).bytes()),
    );
    await page.getByRole("button", { name: "Verify" }).click();
    await page.getByText("Whole: every byte matches its digest").first().waitFor();
    const file = join(service.directory, "rotten", "step-00000001", "rank-00001.safetensors");
    const bytes = await Bun.file(file).bytes();
    bytes[bytes.length - 1]! ^= 1;
    await Bun.write(file, bytes);
    await page.goto(`${service.url}/#/rotten/step-00000001`);
    await page.getByRole("heading", { name: "step-00000001" }).waitFor();
    await page.getByRole("button", { name: "Verify" }).click();
    await page.getByText("Damaged: 1 fault").first().waitFor();
    expect(await page.locator(".verdict li").innerText()).toContain("rank-00001.safetensors: block 0");
    await page.context().close();
  }, 30_000);

  test("offers a model only of checkpoints that have one, files of every one, and shows what was noted", async () => {
    await saveRun(service.url, "bare", 1, 2, [patternTensor("optim.exp_avg", "float32", [10, 7])]);
    const api = apiOf(service.url);
    const path = "/v1/runs/bare/checkpoints/step-00000001";
    expect((await api("GET", path)).json.exportable).toBe(false);
    await api("PATCH", path, { json: { labels: { kind: "probe" }, metrics: { "eval.loss": 2.25 } } });
    const { page, wrong } = await open("#/bare");
    const row = page.getByRole("row", { name: /step-00000001/ });
    await row.getByRole("button", { name: /Verify/ }).waitFor();
    expect(await row.getByRole("link", { name: /Download/ }).count()).toBe(0);
    expect(await row.locator("th .badge").allInnerTexts()).toEqual(["kind: probe", "eval.loss: 2.25"]);
    await row.getByRole("link", { name: "step-00000001", exact: true }).click();
    await page.getByRole("heading", { name: "Who holds what" }).waitFor();
    expect(await page.getByRole("link", { name: "Download model" }).count()).toBe(0);
    expect(await page.getByRole("link", { name: /^Download rank-/ }).count()).toBe(2);
    await page.goto(`${service.url}/#/gpt`);
    await page.getByRole("link", { name: "Download the model of step-00000300" }).waitFor();
    expect(wrong).toEqual([]);
    await page.context().close();
  }, 30_000);

  test("asks for a token where there is one, and sends it in no URL", async () => {
    const secret = "page-secret-token";
    const tokens = [
      { name: "reader", sha256: sha256(new TextEncoder().encode(secret)), scopes: ["read"] as const },
    ];
    const guarded = await startService({ directory: service.directory, tokens });
    const { page, urls, wrong } = await open("#/gpt/step-00000300", {}, guarded.url);
    for (const [given, answer] of [
      ["wrong", "The token is unknown, or has expired."],
      [secret, "Who holds what"],
    ] as const) {
      await page.getByLabel("Token").fill(given);
      await page.keyboard.press("Enter");
      await page.getByText(answer).waitFor();
    }
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.evaluate("delete window.showSaveFilePicker, document.querySelector('main a[download]').click()"),
    ]);
    expect((await stat(await download.path())).size).toBeGreaterThan(1000);
    await page.getByRole("link", { name: "gpt" }).click();
    await page.getByRole("row", { name: /step-00000300/ }).waitFor();
    await page.getByRole("button", { name: "Forget token" }).click();
    await page.getByLabel("Token").waitFor();
    expect(urls.filter((url) => url.includes(secret))).toEqual([]);
    expect(wrong.filter((text) => !text.startsWith("request to blob:"))).toEqual([]);
    await page.context().close();
    await guarded.close();
  }, 30_000);
});
