"""How the report looks, and the script that sorts its tables."""

STYLE = """
:root { --ink: #1c1f23; --faint: #5b6470; --paper: #ffffff; --line: #d5dae0; --shade: #f3f5f8; --link: #0b57d0 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --faint: #9aa4b0; --paper: #15181c; --line: #363c44; --shade: #1f242a; --link: #8ab4f8 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2rem }
a { color: var(--link) }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: .5rem 0; border-block: 1px solid var(--line) }
.wide { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; font-size: .85rem; overflow-wrap: normal }
.sorts { width: max-content } .sorts td { max-width: 24rem; overflow-wrap: break-word }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { vertical-align: bottom }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
th button { all: unset; cursor: pointer; font-weight: 600; display: block; width: max-content; max-width: 10rem }
th button:focus-visible { outline: 2px solid var(--link) }
th[aria-sort=ascending] button::after { content: " ▲" }
th[aria-sort=descending] button::after { content: " ▼" }
tbody tr:nth-child(even), tr:nth-child(even) td:first-child { background: var(--shade) }
.sorts tr > :first-child { position: sticky; left: 0 }
.sorts tr:nth-child(odd) > :first-child { background: var(--paper) }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1rem }
figure { margin: 0; min-width: 0; max-width: 36rem }
figure svg { width: 100%; height: auto; color: var(--ink) }
figcaption, .note { color: var(--faint); font-size: .85rem }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .8rem }
.pictures img { width: 7rem; image-rendering: auto } .pictures .none { width: 7rem; padding: 2rem 0;
  text-align: center; color: var(--faint); background: var(--shade); font-size: .8rem }
.seen td, .seen th { font-size: .75rem; line-height: 1.3; min-width: 6.5rem } .seen img { width: 6rem; height: auto }
.seen tbody tr:nth-child(even) { background: none } .wide { margin-block: .6rem }
.pairs { display: grid; grid-template-columns: repeat(2, minmax(0, 18rem)); gap: .6rem } .pairs img { width: 100% }
summary { cursor: pointer; padding: .3rem 0 }
@media (max-width: 40rem) { .sorts td { max-width: 16rem } .sorts tr > :first-child { max-width: 9rem } }
pre { overflow-x: auto; background: var(--shade); padding: .6rem; font-size: .8rem }
@media print {
  :root { --ink: #000; --faint: #333; --paper: #fff; --line: #999; --shade: #f3f3f3 }
  body { max-width: none; padding: 0 } nav { display: none } .wide { overflow: visible }
  table { font-size: 7pt } .sorts { width: auto } .sorts tr > :first-child { position: static }
  figure, tr { break-inside: avoid }
}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    const of = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const missing = row => row.cells[column].textContent === "-";
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => missing(a) - missing(b)
      || (up ? 1 : -1) * of(a).localeCompare(of(b), "en", { numeric: true })
      || 0);
    if (rows.some(row => row.cells[column].dataset.value !== undefined))
      rows.sort((a, b) => missing(a) - missing(b) || (up ? 1 : -1) * (Number(of(a)) - Number(of(b))) || 0);
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }));
}
const opened = [];
addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach(
  part => { part.open = true; opened.push(part); }));
addEventListener("afterprint", () => opened.splice(0).forEach(part => { part.open = false; }));
"""
