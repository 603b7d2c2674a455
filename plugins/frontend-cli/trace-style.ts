/** Style sheet of the picture, for light and dark. Colours of bars carry dark text in both. */
export const style = `
:root { color-scheme: light dark; --back: #fff; --text: #1c2128; --dim: #66707d; --line: #d5dae1; --band: #f4f6f8; --phase: #b9c2ce; --hook: #98a5b5; --red: #e5484d; --target: #fff3c4; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --text: #dfe4ea; --dim: #8d98a6; --line: #2e343d; --band: #1a1e25; --phase: #76808e; --hook: #5d6b7e; --red: #f2555a; --target: #3d3617; } }
body { margin: 1.5rem auto; max-width: 90rem; padding: 0 1.5rem; background: var(--back); color: var(--text); font: 13px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 .2rem; overflow-wrap: anywhere; } h2 { font-size: 1rem; margin: 1.8rem 0 .4rem; } small { color: var(--dim); font-weight: normal; } p { margin: .2rem 0; }
code { font-family: ui-monospace, monospace; }
.error { color: var(--red); font-weight: 600; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; padding: 0; margin: .5rem 0; list-style: none; }
.legend s { position: static; display: inline-block; width: 12px; height: 12px; margin-right: .4em; vertical-align: -2px; }
svg { display: block; width: 100%; height: auto; margin-top: .8rem; font: 11px ui-monospace, monospace; }
svg a { text-decoration: none; } svg text { fill: #14171c; pointer-events: none; } svg .band { fill: var(--band); } svg .track { fill: var(--text); font-weight: bold; }
svg line.tick { stroke: var(--line); stroke-width: .6; } svg text.tick { fill: var(--dim); font-size: 10px; }
svg .cut { fill: var(--back); fill-opacity: .8; stroke: var(--dim); stroke-dasharray: 2 3; stroke-width: .6; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th { text-align: left; font-weight: normal; color: var(--dim); border-bottom: 1px solid var(--line); } td, th { padding: 1px 8px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
th:nth-child(1) { width: 15rem; } th:nth-child(2), th:nth-child(3) { width: 5rem; } th:nth-child(5) { width: 33%; }
.name { font-family: ui-monospace, monospace; } .name a { color: inherit; } .n { text-align: right; font-variant-numeric: tabular-nums; } .about { color: var(--dim); } .about b { color: var(--text); font-weight: normal; } em { color: var(--red); font-style: normal; }
tbody tr:hover { background: var(--band); } tr:target { background: var(--target); } tr.failed .name { color: var(--red); font-weight: bold; }
.bar { position: relative; padding: 0; height: 18px; } th.bar i { position: absolute; bottom: 1px; padding-left: 3px; border-left: 1px solid var(--line); font-style: normal; font-size: 11px; }
s, u { position: absolute; top: 3px; height: 12px; min-width: 2px; border-radius: 2px; text-decoration: none; } u { top: 0; height: 100%; background: var(--band); border: dashed var(--line); border-width: 0 1px; }
.engine { background: var(--phase); fill: var(--phase); } .hook { background: var(--hook); fill: var(--hook); } .core { background: #a9b8c9; fill: #a9b8c9; } .engine.waits { opacity: .45; }
${['#8ab4e8', '#f6b26b', '#8fca7c', '#c7a0dc', '#72ccc2', '#f0cf62', '#d0a98a', '#f3a3ba', '#9fd3f0', '#bcd96f', '#b0b3f2', '#e5b7e0'].map((colour, i) => `.c${i} { background: ${colour}; fill: ${colour}; }`).join(' ')}
.failed > rect, s.failed { background: var(--red); fill: var(--red); }
`;
