import { readFileSync } from 'node:fs';
import { relative } from 'node:path';

/** What vitest's JSON report says about one file. */
interface File {
  readonly name: string;
  readonly status: string;
  readonly message: string;
  readonly assertionResults: readonly { readonly status: string; readonly fullName: string; readonly failureMessages: readonly string[] }[];
}

/** The first lines of an error, without colours. */
const brief = (text: string): string => text.replaceAll(/\u001B\[[\d;]*m/g, '').split('\n').slice(0, 12).map((line) => `    ${line}`).join('\n');

// node test/failures.ts REPORT [LABEL]: the failed tests of a report, each with the beginning of its error; the label says where they ran.
const label = process.argv[3] ? `[${process.argv[3]}] ` : '';
const { testResults } = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as { testResults: readonly File[] };
for (const { name, status, message, assertionResults } of testResults) {
  const failed = assertionResults.filter((test) => test.status === 'failed');
  const file = relative(process.cwd(), name);
  for (const { fullName, failureMessages } of failed) console.log(`FAIL ${label}${file} > ${fullName}\n${failureMessages.map(brief).join('\n')}`);
  if (failed.length === 0 && status === 'failed') console.log(`FAIL ${label}${file}\n${brief(message)}`);
}
