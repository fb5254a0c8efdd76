/**
 * What a directory store needs of the operating system, in one place: a test that kills, fills or forbids puts its own
 * there.
 *
 * @module
 */
import { link, lstat, mkdir, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";

/** Calls of `node:fs/promises`, under their names. */
export interface FileSystem {
  readonly link: typeof link;
  readonly lstat: typeof lstat;
  readonly mkdir: typeof mkdir;
  readonly open: typeof open;
  readonly readdir: typeof readdir;
  readonly readFile: typeof readFile;
  readonly rename: typeof rename;
  readonly rm: typeof rm;
  readonly writeFile: typeof writeFile;
}

/** The real one. */
export const nodeFileSystem: FileSystem = Object.freeze({
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  writeFile,
});
