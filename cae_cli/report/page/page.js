"use strict";
document.documentElement.classList.add("with-js");

const slider = document.querySelector("[data-epochs]");
if (slider) {
  const epochs = slider.dataset.epochs.split(" ");
  slider.addEventListener("input", () => {
    document.body.style.setProperty("--epoch", slider.value);
    const epoch = epochs[slider.value];
    slider.setAttribute("aria-valuetext", "epoch " + epoch);
    for (const output of document.querySelectorAll(".epochs output, [data-epoch]")) output.textContent = epoch;
  });
}

const reveal = () => {
  const target = document.querySelector(":target");
  const details = target && target.closest("details:not([open])");
  if (details) {
    details.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", reveal);
reveal();

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      const area = document.createElement("textarea");
      area.value = button.dataset.copy;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

for (const order of document.querySelectorAll("[data-sorts]")) {
  const list = document.getElementById(order.dataset.sorts);
  order.addEventListener("change", () => {
    const by = order.value;
    const cards = [...list.children];
    const value = (card) => Number(card.dataset[by]);
    cards.sort((a, b) => (by === "filter" ? value(a) - value(b) : value(b) - value(a)));
    list.append(...cards);
  });
}

for (const wipe of document.querySelectorAll("[data-wipe]")) {
  const pictures = document.getElementById(wipe.dataset.wipe);
  wipe.addEventListener("input", () => pictures.style.setProperty("--wipe", wipe.value));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      // Numbers come before texts, and what is empty comes last in either direction.
      const key = (row) => {
        const cell = row.cells[column];
        const text = cell.textContent.trim();
        return { text, value: Number(cell.dataset.value ?? NaN), empty: ["", "–"].includes(text) };
      };
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        const [p, q] = [Number.isNaN(x.value), Number.isNaN(y.value)];
        if (x.empty || y.empty) return x.empty - y.empty;
        const order = p || q ? p - q || x.text.localeCompare(y.text) : x.value - y.value;
        return rising ? order : -order;
      });
      body.append(...rows);
    });
  });
}
