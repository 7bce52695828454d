"""Style sheet and script of the report."""

STYLE = """
:root {
  --ink: #1d252c; --muted: #5c6770; --line: #dfe4e8; --ground: #f5f7f8; --accent: #00557f;
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 76rem;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
    "Liberation Sans", Arial, sans-serif;
  color: var(--ink); background: #fff; font-variant-numeric: tabular-nums;
}
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
h2 {
  font-size: 1.35rem; margin: 0 0 1rem; padding-top: 1rem; border-top: 2px solid var(--ink);
}
h3 { font-size: 1.05rem; margin: 1.75rem 0 .6rem; overflow-wrap: anywhere; }
h3 small { font-weight: 400; color: var(--muted); font-size: .92rem; }
p { margin: .5rem 0 1rem; max-width: 46rem; }
a { color: var(--accent); }
a:focus-visible, button:focus-visible, summary:focus-visible, .scroll:focus-visible {
  outline: 3px solid #5aa9d6; outline-offset: 2px;
}
code, pre {
  font: .87em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere;
}
pre {
  background: var(--ground); padding: 1rem; border-radius: 4px; white-space: pre-wrap;
}
section { margin-top: 3rem; }
img { display: block; max-width: 100%; height: auto; }
.kind { margin: 0; color: var(--muted); font-size: .9rem; }
.fine { color: var(--muted); font-size: .88rem; }
.note {
  max-width: 60rem; margin: 1.25rem 0; padding: .7rem 1rem; background: #fff7e0;
  border-left: 4px solid #b97b00; overflow-wrap: anywhere;
}
.note ul { margin: .3rem 0 0; padding-left: 1.2rem; }
nav { display: flex; flex-wrap: wrap; gap: .35rem 1.4rem; margin-top: 1.5rem; font-size: .93rem; }
.tiles {
  display: grid; gap: .75rem; margin-bottom: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(11rem, 100%), 1fr));
}
.tiles.headlines { grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); }
.tile {
  background: var(--ground); border-radius: 6px; padding: .8rem 1rem;
  display: flex; flex-direction: column; min-width: 0;
}
.tile strong { font-size: 1.45rem; line-height: 1.3; font-weight: 600; overflow-wrap: anywhere; }
.tile strong small { font-weight: 400; font-size: 1rem; }
.tile .what, .tile .more { color: var(--muted); font-size: .86rem; overflow-wrap: anywhere; }
.tile.headline { background: #e6f1f7; }
.tile.headline strong { font-size: 2rem; color: var(--accent); }
.tile.headline strong small { font-size: 1.15rem; }
.tile.headline .what, .tile.headline .more { color: #3f5461; }
.scroll { overflow-x: auto; margin: 1rem 0 1.75rem; }
table { border-collapse: collapse; font-size: .88rem; min-width: 30rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .5rem; font-size: .98rem; }
th, td { padding: .38rem .8rem; text-align: left; white-space: nowrap; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; white-space: normal; }
tbody tr { border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; position: sticky; left: 0; background: #fff; }
.n { text-align: right; }
.undefined { color: var(--muted); }
th button {
  all: unset; cursor: pointer; font-weight: 600; border-radius: 2px;
}
th button::after { content: "\\a0\\2195"; color: #8a949c; font-weight: 400; }
th[aria-sort="ascending"] button::after { content: "\\a0\\2191"; color: var(--ink); }
th[aria-sort="descending"] button::after { content: "\\a0\\2193"; color: var(--ink); }
dl { display: grid; gap: 0; margin: .5rem 0 1rem; max-width: 60rem; font-size: .93rem; }
dl div {
  display: grid; grid-template-columns: minmax(8rem, 15rem) 1fr; gap: 1rem; padding: .32rem 0;
  border-bottom: 1px solid var(--line);
}
dt { color: var(--muted); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); }
.names { max-width: none; font-size: .93rem; }
.plots {
  display: grid; gap: 1rem 1.5rem; margin: 1rem 0; align-items: end;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), max-content));
}
.plots.three { grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); }
.swatch { display: inline-flex; align-items: center; gap: .5rem; margin-right: 1.4rem; }
.swatch i { display: inline-block; width: 2.2rem; }
.legend {
  background: #14191d; color: #fff; padding: .45rem 1rem; border-radius: 4px; font-size: .9rem;
  max-width: none; width: fit-content;
}
.case { margin-bottom: 2rem; }
.panels {
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr));
}
figure { margin: 0; }
.screen { background: #000; aspect-ratio: 1; display: flex; border-radius: 3px; overflow: hidden; }
.screen img { width: 100%; height: 100%; object-fit: contain; }
figcaption { font-size: .88rem; color: var(--muted); padding-top: .35rem; }
footer { margin-top: 3rem; color: var(--muted); font-size: .85rem; }
@media (max-width: 34rem) { dl div { grid-template-columns: 1fr; gap: 0; } }
@media print {
  body { padding: 0; max-width: none; font-size: 10pt; }
  nav, th button::after { display: none; }
  section { margin-top: 1.5rem; }
  article, .tile, figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; min-width: 0; }
  th, td { padding: .15rem .3rem; white-space: normal; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# Sorts a table by the column whose heading was clicked. Undefined values stay last either way.
SCRIPT = """
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.cells[column];
      if (cell.classList.contains("undefined")) return null;
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
    };
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const text = typeof x === "string" || typeof y === "string";
      const sign = text ? String(x).localeCompare(String(y), "en", { numeric: true }) : x - y;
      return down ? -sign : sign;
    };
    const body = table.tBodies[0];
    [...body.rows].sort(order).forEach((row) => body.append(row));
  }));
});
"""
