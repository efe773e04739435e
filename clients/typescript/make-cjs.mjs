// Says to Node that the files in dist/cjs are CommonJS, although the package is of ES modules.
import { writeFileSync } from "node:fs";

writeFileSync("dist/cjs/package.json", '{ "type": "commonjs" }\n');
