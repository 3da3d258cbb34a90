// A short name is not broken. On a phone a row of a wide table is a card: each cell says which column it belongs to (pages.css).
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table.docutils")) {
    const lengths = [...table.querySelectorAll("tbody code")].map((code) => code.textContent.length);
    for (const code of table.querySelectorAll("code")) code.classList.toggle("short", code.textContent.length <= 18);
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    table.classList.toggle("cards", heads.length > 2 || (heads.length && Math.max(...lengths) > 20));
    let above = "";
    for (const row of table.querySelectorAll("tbody tr")) {
      above = row.children[0].textContent.trim() || above;
      [...row.children].forEach((cell, column) => {
        cell.classList.toggle("blank", !cell.textContent.trim());
        cell.setAttribute("data-label", column ? heads[column] : above);
      });
    }
  }
});
