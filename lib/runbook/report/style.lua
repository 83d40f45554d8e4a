--- How the HTML report looks: by the reader's choice light or dark, readable on a phone and on paper.

return [[
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1d2126; --dim: #626b76; --line: #e1e5ea; --soft: #f5f7f9; --link: #1f5fa8;
  --good: #16703f; --bad: #b3202a; --warn: #8a5a00; --bar: #8fb4dd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15181c; --ink: #e4e7eb; --dim: #98a2ae; --line: #2e343c; --soft: #1d2127; --link: #83b4ee;
    --good: #62c58d; --bad: #ff8a85; --warn: #e3b25a; --bar: #41678f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 70rem; padding: 2rem 1.5rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere;
}
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 0.87em; }
.name { margin: 0; color: var(--dim); }
h1 { margin: 0.2rem 0 0.5rem; font-size: 1.5rem; line-height: 1.3; font-weight: 600; }
h2 { margin: 2.4rem 0 0.7rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--line); font-size: 1.1rem; font-weight: 600; }
.dim { color: var(--dim); }
.good { color: var(--good); }
.bad { color: var(--bad); font-weight: 600; }
.warn { color: var(--warn); }
header { border-left: 4px solid var(--line); padding-left: 1rem; }
header.good { border-color: var(--good); color: inherit; }
header.bad { border-color: var(--bad); color: inherit; font-weight: inherit; }
header.warn { border-color: var(--warn); color: inherit; }
p { margin: 0.5rem 0; white-space: pre-line; }
.strong { margin-top: 1.2rem; font-weight: 600; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: 0.6rem; margin: 1.4rem 0 1rem; }
dl div { padding: 0.6rem 0.8rem; background: var(--soft); border-radius: 6px; }
dt { color: var(--dim); font-size: 0.8rem; }
dd { margin: 0; font-size: 1.1rem; font-weight: 600; }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; font-size: 0.87rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.4rem 0 0.8rem; font-size: 0.9rem; }
table.listed { width: 100%; }
th { text-align: left; color: var(--dim); font-weight: 500; font-size: 0.8rem; }
th, td { padding: 0.32rem 1rem 0.32rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
td { white-space: pre-line; min-width: 4.5rem; }
tr > :last-child { padding-right: 0; }
td code { white-space: pre-wrap; }
td.when { white-space: nowrap; }
.pairs td { border: 0; padding-top: 0.1rem; padding-bottom: 0.1rem; }
.pairs td:first-child { color: var(--dim); min-width: 6rem; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr.head td { background: var(--soft); font-weight: 500; }
.bar { display: block; width: 100%; min-width: 4rem; height: 3px; margin-top: 3px; }
.bar i { display: block; height: 100%; min-width: 1px; background: var(--bar); border-radius: 2px; }
details { margin: 0.3rem 0; }
summary { cursor: pointer; padding: 0.2rem 0; color: var(--link); }
details[open] > summary { margin-bottom: 0.3rem; }
pre { margin: 0; padding: 0.8rem; background: var(--soft); border-radius: 6px; overflow-x: auto; overflow-wrap: normal; }
@media screen and (max-width: 44rem) {
  body { padding: 1.2rem 1rem 3rem; }
  h1 { font-size: 1.25rem; }
  dl { grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); }
  .listed thead { display: none; }
  .listed tr { display: flex; flex-wrap: wrap; gap: 0 0.9rem; padding: 0.45rem 0; border-bottom: 1px solid var(--line); }
  .listed td { padding: 0; border: 0; text-align: left; white-space: pre-line; min-width: 0; }
  .listed td.n::before { content: attr(data-column) " "; color: var(--dim); font-size: 0.8rem; }
  .listed td.none { display: none; }
  .listed tr.head td { background: none; }
  .listed tr.head { background: var(--soft); padding: 0.3rem 0.5rem; }
  .bar { display: none; }
  .pairs td { display: block; }
  .pairs td:first-child { font-size: 0.8rem; padding-top: 0.4rem; }
}
@media print {
  :root {
    --page: #fff; --ink: #000; --dim: #555; --line: #ccc; --soft: #f3f3f3; --link: #000;
    --good: #000; --bad: #000; --warn: #000; --bar: #999;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  h2 { break-after: avoid; }
  tr, dl div, summary { break-inside: avoid; }
  thead { display: table-header-group; }
  pre { white-space: pre-wrap; }
}
]]
