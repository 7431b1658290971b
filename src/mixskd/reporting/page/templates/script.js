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
