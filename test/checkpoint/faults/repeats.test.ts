import { expect, test } from "bun:test";
import { join } from "node:path";
import { apiOf, beginSave, expectProblem, putFile, someBytes } from "../server/api.ts";
import { makeFolder, startService } from "../server/service.ts";

test("a file that was taken out of a save stays out, whoever asks for it again and wherever the service is restarted", async () => {
  const { folder, remove } = makeFolder();
  const directory = join(folder, "data");
  let service = await startService({ directory });
  let api = apiOf(service.url);
  const save = await beginSave(api, "one", { step: 1 });
  await putFile(api, save, "a", someBytes(10));
  for (let i = 0; i < 2; i++) expect((await api("DELETE", `${save}/files/a`)).status).toBe(204);
  expectProblem(await api("DELETE", `${save}/files/b`), 404, "not-found");
  await service.close();
  service = await startService({ directory });
  api = apiOf(service.url);
  expect((await api("DELETE", `${save}/files/a`)).status).toBe(204);
  expectProblem(await api("DELETE", `${save}/files/b`), 404, "not-found");
  // The name may be taken again, and is then another file.
  await putFile(api, save, "a", someBytes(20));
  expect((await api("GET", save)).json.files).toMatchObject([{ file: "a", length: 20 }]);
  await service.close();
  remove();
});

test("a client that goes in the middle of an upload is no failure of the service, which keeps what came", async () => {
  const service = await startService();
  const api = apiOf(service.url);
  const save = await beginSave(api, "one", { step: 1 });
  const created = await api("POST", `${save}/uploads?file=a`);
  const upload = `${service.url}${created.headers.get("location")}`;
  const abort = new AbortController();
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      controller.enqueue(someBytes(1000));
      return new Promise((resolve) => setTimeout(resolve, 5));
    },
  });
  const headers = {
    "content-type": "application/partial-upload",
    "upload-offset": "0",
    "upload-complete": "?1",
  };
  const sending = fetch(upload, { method: "PATCH", headers, body, signal: abort.signal }).catch(
    () => undefined,
  );
  await new Promise((resolve) => setTimeout(resolve, 300));
  abort.abort();
  await sending;
  const { headers: standing } = await api("HEAD", upload);
  expect(Number(standing.get("upload-offset"))).toBeGreaterThan(0);
  expect(standing.get("upload-complete")).toBe("?0");
  expect(service.errors).toEqual([]);
  await service.close();
});
