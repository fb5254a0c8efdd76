import { threadsTransport } from "../../../../backends/collectives/threads/transport.ts";
import { collectiveConformance } from "../../../conformance/collective/suite.ts";

collectiveConformance(threadsTransport, { worlds: [1, 2, 3, 4, 8], sequences: 4, timeout: 60_000 });
