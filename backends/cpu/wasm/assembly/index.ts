// Entry of the WebAssembly module: everything that the host calls.

export { sgemm, staticEnd } from "./gemm";
export * from "./elementwise";
export * from "./gated";
export * from "./rows";
export * from "./norm";
export * from "./rms-norm";
export * from "./rotary";
export * from "./scores";
export * from "./optimizer";
export * from "./dropout";
