"use strict";
// Shows one phase at a time, the chosen node, and what a pass touched. Text goes in as text, never as markup.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const panel = document.getElementById("node");
  const tabs = all(".tabs button");

  function centre(root) { // a drawing wider than the screen starts in its middle
    for (const box of all(".scroll", root)) box.scrollLeft = (box.scrollWidth - box.clientWidth) / 2;
  }

  function showPhase(number) {
    for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.phase === number));
    for (const phase of all(".phase")) phase.hidden = phase.dataset.phase !== number;
    markTouched();
    centre(document);
  }

  function choose(box) {
    for (const other of all(".op.chosen")) other.classList.remove("chosen");
    box.classList.add("chosen");
    for (const place of all("[data-show]", panel)) {
      const text = box.dataset[place.dataset.show] || "";
      place.textContent = place.dataset.show === "rules" ? text.split(" ").filter(Boolean).join(", ") : text;
    }
    panel.querySelector("dl").hidden = false;
    panel.querySelector(".hint").hidden = true;
    panel.classList.add("shown");
  }

  function markTouched() {
    const select = document.getElementById("touched");
    if (!select) return;
    let hits = 0;
    for (const box of all(".op")) {
      const hit = select.value !== "" && box.dataset.rules.split(" ").includes(select.value);
      box.classList.toggle("touched", hit);
      box.classList.toggle("dimmed", select.value !== "" && !hit);
      if (hit && !box.closest(".phase").hidden) hits += 1;
    }
    document.getElementById("hits").textContent = select.value ? `${hits} boxes in this phase` : "";
  }

  for (const tab of tabs) tab.addEventListener("click", () => showPhase(tab.dataset.phase));
  document.addEventListener("click", (event) => {
    const box = event.target.closest && event.target.closest(".op");
    if (box) choose(box);
  });
  document.addEventListener("keydown", (event) => {
    const box = event.target.closest && event.target.closest(".op");
    if (box && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      choose(box);
    }
    if (event.key === "Escape") panel.classList.remove("shown");
  });
  document.getElementById("close").addEventListener("click", () => panel.classList.remove("shown"));
  const select = document.getElementById("touched");
  if (select) select.addEventListener("change", markTouched);
  const quiet = document.getElementById("quiet");
  if (quiet) quiet.addEventListener("change", () => document.body.classList.toggle("all", quiet.checked));
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest(".strip a");
    const group = link && document.getElementById(link.getAttribute("href").slice(1));
    if (group) group.open = true;
  });
  document.addEventListener("toggle", (event) => centre(event.target), true); // fires on details, does not bubble
  if (tabs.length) showPhase(tabs[tabs.length - 1].dataset.phase);
  document.documentElement.dataset.ready = String(all(".op").length);
})();
