"use strict";

// A click on a column's head sorts by it, a second one the other way round; cells without a value stay last.
const table = document.querySelector("table.results");
if (table) {
  const body = table.tBodies[0];
  const heads = [...table.querySelectorAll("thead tr:last-child th")];

  const byText = new Intl.Collator("en", { numeric: true }).compare;
  const byNumber = (one, other) => one - other;

  const sort = (column) => {
    const head = heads[column];
    const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => ({ row, value: row.cells[column].dataset.value || null }));
    const compare = rows.some(({ value }) => value !== null && Number.isNaN(Number(value))) ? byText : byNumber;
    rows.sort((one, other) => {
      if (one.value === null || other.value === null) return (one.value === null) - (other.value === null);
      return sign * compare(one.value, other.value);
    });
    body.append(...rows.map(({ row }) => row));
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
  };

  // A table that is too wide becomes compact; one that is still too wide has a hint above it.
  const box = table.parentElement;
  const fit = () => {
    box.classList.remove("compact");
    box.classList.toggle("compact", table.offsetWidth > box.clientWidth);
    document.getElementById("scrolls").hidden = table.offsetWidth <= box.clientWidth;
  };
  addEventListener("resize", fit);
  fit();

  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => sort(column)));
}
