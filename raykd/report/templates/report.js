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
  // An open filter would cover the heading that a link leads to.
  addEventListener("hashchange", () => { filter.querySelector("details").open = false; });
  filter.addEventListener("submit", (event) => event.preventDefault());
}

const outlined = document.getElementById("outlined");
const beside = document.getElementById("beside");
const outline = () => {
  for (const viewer of all(".viewer")) {
    const stages = viewer.querySelector(".stages");
    all(".seen.second", stages).forEach((second) => second.remove());
    viewer.classList.toggle("paired", beside.value !== "");
    if (beside.value) {
      const second = stages.firstElementChild.cloneNode(true);
      second.classList.add("second");
      all("[id]", second).forEach((image) => image.removeAttribute("id"));
      stages.append(second);
    }
    const labels = JSON.parse(viewer.dataset.labels);
    all(".seen", stages).forEach((seen, index) => {
      const label = index ? beside.value : outlined.value;
      all(".student", seen).forEach((path) => path.classList.toggle("other", path.dataset.label !== label));
      const isKept = labels.includes(label);
      seen.querySelector(".whose").textContent = isKept ? label : `No prediction of ${label || "a model"} was kept of this case.`;
    });
  }
};
const structures = document.getElementById("structures");
const veil = () => {
  const hidden = new Set(all("input", structures).filter((box) => !box.checked).map((box) => box.value));
  all(".viewer [data-structure]").forEach((path) => path.classList.toggle("veiled", hidden.has(path.dataset.structure)));
};
if (outlined) {
  for (const choice of [outlined, beside]) choice.addEventListener("change", () => { outline(); veil(); });
  structures.addEventListener("change", veil);
  outline();
}

for (const viewer of all(".viewer")) {
  const slider = viewer.querySelector("input");
  const places = slider.dataset.places.split(";");
  const show = () => {
    const at = Number(slider.value);
    all(".slice", viewer).forEach((slice) => slice.classList.toggle("off", Number(slice.dataset.at) !== at));
    slider.setAttribute("aria-valuetext", `${at + 1} of ${places.length}, at ${places[at]}`);
    viewer.querySelector("output").textContent = `${at + 1} of ${places.length}`;
  };
  const move = (to) => {
    const at = Math.min(Math.max(to, 0), places.length - 1);
    const isMoved = at !== Number(slider.value);
    slider.value = at;
    show();
    return isMoved;
  };
  const stages = viewer.querySelector(".stages");
  slider.addEventListener("input", show);
  stages.addEventListener("wheel", (event) => {
    if (event.deltaY && move(Number(slider.value) + Math.sign(event.deltaY))) event.preventDefault();
  }, { passive: false });
  stages.addEventListener("click", () => slider.focus({ preventScroll: true }));
}

addEventListener("beforeprint", () => all("section details").forEach((details) => { details.open = true; }));
