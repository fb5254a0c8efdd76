/** What ranks of this suite can run, each under its function's name. */
export { accumulate, divided } from "./accumulation.ts";
export { trainByHand } from "./by-hand.ts";
export { clip } from "./clip.ts";
export { events } from "./events.ts";
export { layout } from "./layout.ts";
export { memoryPoints } from "./memory.ts";
export { start } from "./start.ts";
export { exchangeState } from "./state.ts";
export { train } from "./training.ts";
