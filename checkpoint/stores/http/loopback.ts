/**
 * Services of this very host, which no proxy reaches: `fetch` of either runtime would ask the proxy that the environment
 * names for them too.
 *
 * @module
 */
import process from "node:process";

/** Whether a host name or address is this host's loopback. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || host === "::1" || /^127(\.[0-9]{1,3}){3}$/.test(host);
}

/** Lets requests to a loopback host go past proxies from now on: adds it to the environment's NO_PROXY. */
export function exemptLoopback(url: string): void {
  const { hostname } = new URL(url);
  if (!isLoopback(hostname)) return;
  for (const name of ["NO_PROXY", "no_proxy"]) {
    const others = (process.env[name] ?? "").split(",").filter((host) => host !== "" && host !== hostname);
    // Set although it may be there: a thread of Bun's has its own environment, and `fetch` sees what was set in it.
    process.env[name] = [...others, hostname].join(",");
  }
}
