// Sorts a table by the column whose heading was clicked. Undefined values stay last either way.
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
