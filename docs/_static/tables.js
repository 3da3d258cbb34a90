// On a phone a row of a table is a card: each cell says which column it belongs to (pages.css).
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table.docutils")) {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.children].forEach((cell, column) => cell.setAttribute("data-label", heads[column] || ""));
    }
  }
});
