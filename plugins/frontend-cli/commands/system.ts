import { type KernelReport } from '@engine/core/api';
import { fail } from '@engine/core/errors';
import { command } from '../command.ts';
import { formatInspect, formatRows, formatTable } from '../output.ts';
import { parsePairs, splitOnce } from '../units.ts';
import { table } from '../text.ts';

export const volumeCreateCommand = command({
  name: 'volume create', usage: '[FLAGS] [NAME]', summary: 'make a volume', args: [0, 1],
  flags: { driver: { type: 'string', short: 'd', value: 'NAME', help: 'volume driver (local)' }, label: { type: 'list', value: 'NAME[=VALUE]', help: 'set a label' }, name: { type: 'string', value: 'NAME', help: 'its name' }, opt: { type: 'list', short: 'o', value: 'NAME=VALUE', help: 'option of the driver' } },
  async run(context, flags, [positional]) {
    const name = positional ?? flags.name;
    const volume = await (await context.open()).volumes.create({
      labels: parsePairs('--label', flags.label), options: parsePairs('-o', flags.opt), ...(name === undefined ? {} : { name }), ...(flags.driver === undefined ? {} : { driver: flags.driver }),
    });
    await context.print(`${volume.name}\n`);
    return 0;
  },
});

export const volumeListCommand = command({
  name: 'volume ls', aliases: ['volume list'], usage: '[FLAGS]', summary: 'list volumes', args: [0, 0],
  flags: { filter: { type: 'list', short: 'f', value: 'NAME=VALUE', help: 'name, driver, label' }, format: { type: 'string', value: 'FORMAT', help: 'json or a Go template' }, quiet: { type: 'boolean', short: 'q', help: 'only names' } },
  async run(context, flags) {
    const engine = await context.open();
    const tests = flags.filter.map((item) => splitOnce(item, '='));
    for (const [name] of tests) if (!['name', 'driver', 'label'].includes(name)) throw fail('ERR_INVALID_VALUE', `invalid filter "${name}"`, { operation: '--filter', hint: 'name, driver and label are known' });
    const volumes = (await engine.volumes.list()).filter((volume) => tests.every(([name, value = '']) => {
      if (name === 'name') return volume.name.includes(value);
      if (name === 'driver') return volume.driver === value;
      const [label, text] = splitOnce(value, '=');
      return label in volume.labels && (text === undefined || volume.labels[label] === text);
    }));
    const rows = volumes.map((volume) => ({ Driver: volume.driver, Name: volume.name, Mountpoint: volume.mountpoint, Labels: Object.entries(volume.labels).map(([k, v]) => `${k}=${v}`).join(','), Scope: 'local' }));
    const columns = { Driver: 'DRIVER', Name: 'VOLUME NAME' };
    if (flags.quiet) await context.print(rows.map((row) => `${row.Name}\n`).join(''));
    else await context.print(flags.format ? formatRows(rows, flags.format, { ...columns, Mountpoint: 'MOUNTPOINT', Labels: 'LABELS', Scope: 'SCOPE' }) : formatTable(rows, columns));
    return 0;
  },
});

export const volumeRemoveCommand = command({
  name: 'volume rm', aliases: ['volume remove'], usage: '[FLAGS] VOLUME...', summary: 'remove volumes', args: [1, Infinity], flags: { force: { type: 'boolean', short: 'f', help: 'a missing one is no error' } },
  async run(context, flags, names) {
    const engine = await context.open();
    return context.forEach(names, async (name) => {
      await engine.volumes.remove(name, { force: flags.force });
      await context.print(`${name}\n`);
    });
  },
});

const show = (value: unknown): string => (typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value));

export const infoCommand = command({
  name: 'info', usage: '[FLAGS]', summary: 'show what this engine is and has', args: [0, 0], flags: { format: { type: 'string', short: 'f', value: 'FORMAT', help: 'json or a Go template' } },
  async run(context, flags) {
    const info = await (await context.open()).system.info();
    await context.print(flags.format ? formatInspect([info], flags.format).replace(/^\[([^]*)\]\n$/, '$1\n') : Object.entries(info).map(([name, value]) => `${name}: ${show(value)}\n`).join(''));
    return 0;
  },
});

export const doctorCommand = command({
  name: 'doctor', usage: '[--fix] [--verbose] [--format json]', summary: 'say which drivers work here and why, what this kernel lacks, and what was left behind', args: [0, 0],
  flags: { fix: { type: 'boolean', help: 'remove what was left behind' }, verbose: { type: 'boolean', short: 'v', help: 'list every feature of the kernel that is used, not only those that are missing' }, format: { type: 'string', value: 'FORMAT', help: 'json' } },
  async run(context, flags) {
    if (flags.format !== undefined && flags.format !== 'json') throw fail('ERR_INVALID_VALUE', `--format ${flags.format}`, { operation: '--format', hint: 'only json is known here' });
    const report = await (await context.open()).system.doctor({ fix: flags.fix });
    const open = report.orphans.some((orphan) => !orphan.fixed);
    if (flags.format === 'json') await context.print(`${JSON.stringify(report)}\n`);
    else {
      const rows = report.drivers.map(({ contract, driver, chosen, probe }) => [`${contract} ${driver}`, chosen ? 'chosen' : probe.available ? 'available' : 'not available', probe.reasons.join('; ')]);
      await context.print(table([['DRIVER', 'STATE', 'WHY'], ...rows]));
      if (report.kernel) await context.print(`\n${kernelText(report.kernel, flags.verbose)}`);
      const counted = (n: number): string => n.toLocaleString('en-US');
      await context.print(`\n${table([['IDS FOR --userns=auto', 'FROM', 'IN USE'], ...report.ids.map(({ kind, source, ids, leased, containers }) => [`${counted(ids)} ${kind}s`, source, leased === 0 ? 'none' : `${counted(leased)} by ${containers === 1 ? 'a container' : `${containers} containers`}`])])}`);
      await context.print(report.orphans.length ? `\n${table([['LEFT BEHIND', 'WHAT', 'OWNER', ''], ...report.orphans.map(({ kind, path, owner, fixed }) => [path, kind, owner, fixed ? 'removed' : 'remove it with: engine doctor --fix'])])}` : '\nnothing was left behind\n');
    }
    return open ? 1 : 0;
  },
});

/** What the machine is, in lines; then what its kernel lacks and what is done instead, or all that is used of it. */
function kernelText({ release, oldest, facts, features }: KernelReport, all: boolean): string {
  const used = features.filter((feature) => feature.used);
  const missing = used.filter(({ there }) => !there);
  const summary = missing.length ? `${used.length - missing.length} of the ${used.length} features that are used here are there` : `all ${used.length} features that are used here are there`;
  const machine = table([['MACHINE', ''], ['kernel', `${release} (${oldest} or later is needed): ${summary}`], ...facts.map(({ name, text }) => [name, text])]);
  const shown = all ? features : missing;
  if (shown.length === 0) return machine;
  return `${machine}\n${table([['KERNEL', 'SINCE', 'STATE', all ? 'FOR WHAT, BY WHOM' : 'INSTEAD'], ...shown.map(({ name, since, there, used: here, use, users, without }) => [name, since, `${there ? 'there' : 'missing'}${here ? '' : ', not used here'}`, there ? `${use} (${users.join(', ')})` : `${all ? `${use} (${users.join(', ')}): ` : ''}${without}`])])}`;
}

export const versionCommand = command({
  name: 'version', usage: '[--format FORMAT]', summary: 'show the version', args: [0, 0], flags: { format: { type: 'string', short: 'f', value: 'FORMAT', help: 'json or a Go template' } },
  async run(context, flags) {
    const version = { Version: context.invocation.version, Node: process.versions.node, Os: process.platform, Arch: process.arch };
    await context.print(flags.format ? formatInspect([version], flags.format).replace(/^\[([^]*)\]\n$/, '$1\n') : `engine ${version.Version} (node ${version.Node}, ${version.Os}/${version.Arch})\n`);
    return 0;
  },
});
