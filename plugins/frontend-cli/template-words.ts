/** Words inside `{{ }}`. `joined`: no blank before it (`(index .A 0).B`). */
export interface Word {
  readonly kind: 'name' | 'field' | 'variable' | 'text' | 'number' | 'mark';
  readonly text: string;
  readonly joined: boolean;
}

const PATTERN = /(?<blank>\s+)|(?<text>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?<number>-?\d+(?:\.\d+)?)|(?<variable>\$\w*)|(?<field>\.[\w.]*)|(?<name>[A-Za-z_]\w*)|(?<mark>:=|[|(),])/y;

function words(source: string, wrong: (why: string) => Error): Word[] {
  const found: Word[] = [];
  let joined = false;
  PATTERN.lastIndex = 0;
  while (PATTERN.lastIndex < source.length) {
    const from = PATTERN.lastIndex;
    const groups = PATTERN.exec(source)?.groups;
    if (!groups) throw wrong(`unexpected "${source.slice(from, from + 10)}"`);
    const [kind, raw] = Object.entries(groups).find(([, value]) => value !== undefined) ?? ['blank', ''];
    if (kind !== 'blank') {
      const text = kind !== 'text' ? raw : raw.startsWith('`') ? raw.slice(1, -1) : (JSON.parse(raw) as string);
      found.push({ kind: kind as Word['kind'], text, joined });
    }
    joined = kind !== 'blank';
  }
  return found;
}

/** Plain text and actions, in order; `{{-` and `-}}` trim, comments vanish. */
export function tokenize(source: string, wrong: (why: string) => Error): (string | Word[])[] {
  const pieces: (string | Word[])[] = [];
  let rest = source;
  let trim = false;
  for (;;) {
    const open = rest.indexOf('{{');
    let plain = open < 0 ? rest : rest.slice(0, open);
    if (trim) plain = plain.trimStart();
    const trimBefore = open >= 0 && /^{{-\s/.test(rest.slice(open));
    if (trimBefore) plain = plain.trimEnd();
    if (plain !== '') pieces.push(plain);
    if (open < 0) return pieces;
    const close = rest.indexOf('}}', open);
    if (close < 0) throw wrong('"{{" without "}}"');
    let inner = rest.slice(open + (trimBefore ? 3 : 2), close);
    trim = /\s-$/.test(inner);
    if (trim) inner = inner.slice(0, -1);
    if (!/^\s*\/\*[^]*\*\/\s*$/.test(inner)) pieces.push(words(inner, wrong));
    rest = rest.slice(close + 2);
  }
}
