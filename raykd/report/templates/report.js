"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

for (const table of all("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const sign = heading.getAttribute("aria-sort") === "descending" ? 1 : -1;
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => {
      if (key(a) !== undefined && key(b) !== undefined) return Math.sign(key(a) - key(b)) * sign || 0;
      if (key(a) !== undefined || key(b) !== undefined) return key(a) === undefined ? 1 : -1;
      return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }));
}

const filter = document.getElementById("filter");
if (filter) {
  const facets = all("fieldset", filter).map((set) => [set.dataset.facet, all("input", set)]);
  const about = all(facets.map(([facet]) => `main [data-${facet}]`).join(","));
  const apply = () => {
    const shown = new Map(facets.map(([facet, boxes]) => [facet, new Set(boxes.filter((box) => box.checked).map((box) => box.value))]));
    const known = new Map(facets.map(([facet, boxes]) => [facet, new Set(boxes.map((box) => box.value))]));
    const isHidden = (element) => [...shown].some(([facet, values]) => {
      const value = element.dataset[facet];
      return value !== undefined && known.get(facet).has(value) && !values.has(value);
    });
    about.forEach((element) => element.classList.toggle("off", isHidden(element)));
    const parts = facets.map(([facet, boxes]) => [facet, shown.get(facet).size, boxes.length]).filter(([, some, every]) => some < every);
    document.getElementById("filtered").textContent = parts.map(([facet, some, every]) => `${some} of ${every} ${facet}s shown`).join(", ");
  };
  filter.addEventListener("change", apply);
  filter.addEventListener("reset", () => setTimeout(apply));
  filter.addEventListener("submit", (event) => event.preventDefault());
}

const outlined = document.getElementById("outlined");
const outline = () => all(".viewer .student").forEach((path) => path.classList.toggle("off", path.dataset.label !== outlined.value));
if (outlined) {
  outlined.addEventListener("change", outline);
  outline();
}

for (const viewer of all(".viewer")) {
  const slider = viewer.querySelector("input");
  const slices = all(".slice", viewer);
  const places = slider.dataset.places.split(";");
  const show = () => {
    const at = Number(slider.value);
    slices.forEach((slice, index) => slice.classList.toggle("off", index !== at));
    slider.setAttribute("aria-valuetext", `${at + 1} of ${slices.length}, at ${places[at]}`);
    viewer.querySelector("output").textContent = `${at + 1} of ${slices.length}`;
  };
  const move = (to) => {
    const at = Math.min(Math.max(to, 0), slices.length - 1);
    const isMoved = at !== Number(slider.value);
    slider.value = at;
    show();
    return isMoved;
  };
  const stage = viewer.querySelector(".stage");
  slider.addEventListener("input", show);
  stage.addEventListener("wheel", (event) => {
    if (event.deltaY && move(Number(slider.value) + Math.sign(event.deltaY))) event.preventDefault();
  }, { passive: false });
  stage.addEventListener("click", () => slider.focus({ preventScroll: true }));
}

addEventListener("beforeprint", () => all("section details").forEach((details) => { details.open = true; }));
