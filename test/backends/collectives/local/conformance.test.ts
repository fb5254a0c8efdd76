import { localTransport } from "../../../../backends/collectives/local/transport.ts";
import { collectiveConformance } from "../../../conformance/collective/suite.ts";

collectiveConformance(localTransport, { worlds: [1, 2, 3, 4, 8, 128], sequences: 20, timeout: 60_000 });
