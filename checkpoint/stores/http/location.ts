/**
 * Locations of runs behind a checkpoint service: `http://HOST:PORT/runs/NAME`, with the path that the service is mounted
 * under before `/runs`, and perhaps a checkpoint after the run, which then is all that is seen of it.
 *
 * @module
 */
import { ConfigError } from "../../../core/contracts/errors.ts";
import { isStoreName } from "../names.ts";

/** A parsed location. */
export interface HttpLocation {
  /** Of the run, for people: `http://HOST:PORT/runs/NAME`. */
  readonly location: string;
  /** Resource of the run, without a final slash: `http://HOST:PORT/v1/runs/NAME`. Absent for `/runs` itself, where no checkpoints are. */
  readonly run: string | undefined;
  /** The one checkpoint that is seen, when the location names it. */
  readonly checkpoint: string | undefined;
}

/**
 * @returns `undefined` when it is no http(s) location at all.
 * @throws ConfigError for a URL that names no run, or that carries a user, a password, a query or a fragment.
 */
export function parseHttpLocation(location: string): HttpLocation | undefined {
  if (!/^https?:\/\//i.test(location)) return undefined;
  const url = URL.parse(location);
  if (url === null) throw refuse("it is not a URL");
  if (url.username !== "" || url.password !== "") throw refuse("it carries credentials");
  if (url.search !== "" || url.hash !== "") throw refuse("it has a query or a fragment");
  const [whole, mount = "", run, checkpoint] =
    /^(.*?)\/runs(?:\/([^/]+)(?:\/([^/]+))?)?\/?$/.exec(url.pathname) ?? [];
  if (whole === undefined || !isStoreName(run ?? "none") || !isStoreName(checkpoint ?? "none")) {
    throw refuse(`its path is "${url.pathname.slice(0, 200)}"`);
  }
  const at = (path: string): string => `${url.origin}${mount}${path}`;
  if (run === undefined) return { location: at("/runs"), run, checkpoint };
  return { location: at(`/runs/${run}`), run: at(`/v1/runs/${run}`), checkpoint };
}

/** The URL itself stays out of it: what was refused may be a password. */
function refuse(problem: string): ConfigError {
  return new ConfigError(
    `cannot use checkpoints by HTTP: ${problem}, allowed is http(s)://HOST[:PORT]/runs/NAME[/CHECKPOINT], a token comes by ` +
      "FSDP_TOKEN or FSDP_TOKEN_FILE",
  );
}
