/**
 * The least that an HTTP service can do, in a process of its own: takes bytes and drops them, gives bytes that it has at
 * hand. What no checkpoint service on the same machine can exceed. Prints its URL.
 *
 * @module
 */
const PIECE = new Uint8Array(2 ** 20);

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request): Promise<Response> {
    const bytes = Number(new URL(request.url).searchParams.get("bytes") ?? 0);
    if (request.body !== null) for await (const _ of request.body);
    let left = bytes;
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller): void {
          if (left > 0) controller.enqueue(PIECE.slice(0, Math.min(left, PIECE.length)));
          left -= PIECE.length;
          if (left <= 0) controller.close();
        },
      },
      { highWaterMark: 0 },
    );
    return new Response(body);
  },
});
console.log(server.url.href);
