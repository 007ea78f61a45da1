"use strict";
// Sorts the pairs of a run by the column that is clicked, and leaves out those that are not asked for.
(() => {
  const table = document.querySelector(".pairs table");
  const form = document.getElementById("filter");
  const body = table.tBodies[0];

  // Verdicts from the worst; of "before → after" what is after; what is not there comes last.
  function value(row, heading) {
    const text = row.cells[heading.cellIndex].textContent.trim();
    if (heading.dataset.order) return heading.dataset.order.split(" ").indexOf(text);
    if (!("number" in heading.dataset)) return text;
    return Number(text.match(/-?\d+(\.\d+)?/g)?.at(-1) ?? NaN);
  }

  function sort(heading) {
    const down = heading.ariaSort === "ascending";
    for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
    heading.ariaSort = down ? "descending" : "ascending";
    const rows = [...body.rows].map((row) => [value(row, heading), row]);
    const missing = (one) => Number.isNaN(one);
    rows.sort(([one], [other]) => {
      if (missing(one) || missing(other)) return missing(one) - missing(other);
      const order = typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  }

  function filter() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/);
    const verdicts = new FormData(form).getAll("verdict");
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !verdicts.includes(row.dataset.verdict) || !words.every((word) => text.includes(word));
    }
    const shown = [...body.rows].filter((row) => !row.hidden).length;
    form.querySelector("output").textContent = `${shown} of ${body.rows.length} shown`;
  }

  for (const heading of table.querySelectorAll("thead th")) {
    const button = heading.querySelector("button");
    button?.addEventListener("click", () => sort(heading));
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
