// Entry of the WebAssembly module: everything that the host calls.

export { sgemm, staticEnd } from "./gemm";
export * from "./elementwise";
export * from "./rows";
export * from "./norm";
export * from "./scores";
export * from "./optimizer";
export * from "./dropout";
